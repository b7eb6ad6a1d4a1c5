/** A part of an answer as formatted text, each piece of it in the look of the token that it is of. */

import { make } from "./dom.js";
import { parse } from "./markdown.js";
import { lookOf } from "./sources.js";

const GROWING = 2; // blocks at the end that further text may change

/** Nothing becomes markup: elements are made by name, from a fixed list of them, and texts are set as texts. */
export class Prose {
  #settled = 0; // blocks that are drawn and will not change
  #from = 0; // where the first of the others begins
  #drawn = 0; // changes of the part

  /** part: of a Reading, as it grows. */
  constructor(part) {
    this.part = part;
    this.element = make("div", { className: "prose" });
  }

  /** Draw what the part has grown by. Its textContent is the part's text. */
  draw() {
    const { text, changes } = this.part;
    if (changes === this.#drawn) return;
    this.#drawn = changes;
    const blocks = parse(text, this.#from);
    while (this.element.childNodes.length > this.#settled) this.element.lastChild.remove();
    this.element.append(...blocks.map((block) => this.#render(block)));
    this.#settled += Math.max(0, blocks.length - GROWING);
    this.#from = blocks.at(-GROWING)?.from ?? this.#from;
  }

  #render(node) {
    if (node.tag === undefined) {
      const spans = this.#spans(node.from, node.to);
      return node.mark ? make("span", { className: "mark" }, ...spans) : fragment(spans);
    }
    const children = node.children.filter((child) => child.tag !== undefined || child.to > child.from);
    const element = make(node.tag, {}, ...children.map((child) => this.#render(child)));
    if (node.className) element.className = node.className;
    if (node.language) element.dataset.language = node.language;
    if (node.start !== undefined) element.start = node.start;
    if (node.url) Object.assign(element, { href: node.url, target: "_blank", rel: "noopener noreferrer" });
    return node.tag === "table" ? make("div", { className: "scrolls", tabIndex: 0 }, element) : element;
  }

  #spans(from, to) {
    const spans = [];
    for (let i = this.#pieceAt(from); i < this.part.pieces.length && this.part.pieces[i].from < to; i += 1) {
      const piece = this.part.pieces[i];
      spans.push(spanOf(piece.token, piece.text.slice(Math.max(0, from - piece.from), to - piece.from)));
    }
    return spans;
  }

  /** The first piece that ends behind an offset. */
  #pieceAt(offset) {
    const { pieces } = this.part;
    let [low, high] = [0, pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (pieces[middle].from + pieces[middle].text.length > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Text in the look of its token; plain where that is not known. */
export function spanOf(token, text) {
  if (!token) return make("span", {}, text);
  const span = make("span", { className: `token ${lookOf(token)}` }, text);
  span.dataset.position = token.position;
  return span;
}

function fragment(children) {
  const all = document.createDocumentFragment();
  all.append(...children);
  return all;
}
