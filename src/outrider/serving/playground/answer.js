/** One answer on the page: its parts, its figures, how it came about, and its tokens as a table. */

import { make, rounded, visible } from "./dom.js";
import { Figures } from "./figures.js";
import { Drawing } from "./frames.js";
import { Player } from "./player.js";
import { Prose, spanOf } from "./prose.js";
import { Sequence } from "./sequence.js";
import { nameOf } from "./sources.js";
import { explain } from "./tooltip.js";

/** Shows a Reading as it grows. */
export class AnswerView {
  #parts = [];
  #drawing = new Drawing(() => this.#draw());
  #elapsed = 0;

  /** name: what the answer is called where it is not seen. open: whether the diagram is. */
  constructor(reading, name, { open = true } = {}) {
    this.reading = reading;
    this.box = make("div", { className: "answer", tabIndex: 0, role: "group" });
    this.box.ariaLabel = `${name}. Arrow keys go from token to token.`;
    explain(this.box, reading.tokens);
    this.note = make("p", { className: "note" });
    this.figures = new Figures(reading, name);
    this.sequence = new Sequence(reading.steps);
    this.player = new Player(this.sequence, reading.steps, (passes) => this.#dim(passes));
    this.element = make(
      "div", { className: "answered" }, this.box, this.note,
      make("div", { className: "panel" }, this.figures.element,
        make("details", { open }, make("summary", {}, "How it was written, pass by pass"), this.sequence.element, this.player.element),
        this.#table()),
    );
  }

  /** The reading has grown. elapsed: ms since the request. */
  grown(elapsed) {
    this.#elapsed = elapsed;
    this.#drawing.soon();
  }

  /** The reading is complete, or grows no more. */
  ended() {
    this.#drawing.now();
    this.player.ready();
  }

  #draw() {
    this.sequence.draw(); // before the text, so that drafters get their looks in the order in which they drafted
    const { all } = this.reading.parts;
    for (const part of all.slice(this.#parts.length)) {
      this.#parts.push(VIEWS[part.kind](part));
      this.box.append(this.#parts.at(-1).element);
    }
    for (const part of this.#parts) part.draw();
    this.figures.draw(this.#elapsed);
  }

  /** Fade the text of tokens that come after so many passes. */
  #dim(passes) {
    const { steps, tokens } = this.reading;
    const next = steps[passes];
    const end = next ? (next.draft?.position ?? next.own.position) : tokens.length;
    for (const span of this.box.querySelectorAll(".token")) span.classList.toggle("later", Number(span.dataset.position) >= end);
  }

  /** For those who cannot see colours or tooltips, or want to copy them; filled when it is opened. */
  #table() {
    const box = make("div", { className: "scrolls", tabIndex: 0, role: "region", ariaLabel: "Tokens as a table" });
    const details = make("details", {}, make("summary", {}, "Tokens as a table"), box);
    details.addEventListener("toggle", () => {
      if (details.open) box.replaceChildren(table(this.reading.tokens));
    });
    return details;
  }
}

/** How a part of each kind is shown: an element, and draw(), which shows what the part has grown by. */
const VIEWS = { text: (part) => new Prose(part), reasoning, call };

/** Folded: it is long, and not the answer. */
function reasoning(part) {
  const prose = new Prose(part);
  const element = make("details", { className: "reasoning" }, make("summary", {}, "Reasoning"), prose.element);
  return { element, draw: () => prose.draw() };
}

function call(part) {
  const name = make("b", {});
  const code = make("code", {});
  const draw = () => {
    name.textContent = part.name;
    code.replaceChildren(...part.pieces.map(({ token, text }) => spanOf(token, text)));
  };
  const title = make("p", {}, "Calls the tool ", name);
  return { element: make("section", { className: "call", ariaLabel: "Tool call" }, title, make("pre", {}, code)), draw };
}

function table(tokens) {
  const head = ["Position", "Token", "Source", "Target's probability", "Draft's probability"];
  const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, cell)));
  const rows = tokens.map((token) =>
    row("td", [`${token.position + 1}`, visible(token.text), nameOf(token), rounded(token.p, 3), rounded(token.q, 3)]),
  );
  return make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, ...rows));
}
