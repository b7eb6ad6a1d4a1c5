/** What is known of one token: shown beside it, and spoken where the keyboard moved there. */

import { byId, make, rounded, visible } from "./dom.js";
import { nameOf } from "./sources.js";

/** The lines of a token's tooltip. */
export function describe(token) {
  const lines = [`token ${token.position + 1}: ${visible(token.text)}`, nameOf(token)];
  if (token.p !== null) lines.push(`target's probability ${rounded(token.p, 3)}`);
  if (token.instead !== null) lines.push(`the draft said ${visible(token.instead)}`);
  if (token.q !== null) lines.push(`draft's probability${token.instead === null ? "" : " of that"} ${rounded(token.q, 3)}`);
  else if (token.source === "draft" && token.p !== null) lines.push("the drafter has no probabilities: it copies");
  return lines;
}

let shown = null; // the element that the tooltip is of

function show(element, token) {
  const tip = byId("tip");
  tip.replaceChildren(...describe(token).map((line) => make("div", {}, line)));
  tip.hidden = false;
  shown = element;
  place();
}

function place() {
  if (!shown) return;
  const [element, tip] = [shown, byId("tip")];
  const at = element.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const below = at.bottom + 6 + own.height <= innerHeight;
  tip.style.top = `${Math.max(4, below ? at.bottom + 6 : at.top - own.height - 6)}px`;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - own.width - 4))}px`;
}

function hide() {
  shown = null;
  byId("tip").hidden = true;
}

/**
 * Tooltips for the tokens of `box`, which are its children in order: by pointer, and by the arrow keys, Home and End
 * once the box has the focus. tokens: of the reading that the box shows.
 */
export function explain(box, tokens) {
  let current = -1;
  const of = (element) => [...box.children].indexOf(element);

  const go = (wanted) => {
    box.children[current]?.classList.remove("current");
    current = Math.max(0, Math.min(wanted, box.children.length - 1));
    const element = box.children[current];
    if (!element) return;
    element.classList.add("current");
    element.scrollIntoView({ block: "nearest" });
    show(element, tokens[current]);
    byId("spoken").textContent = describe(tokens[current]).join(", ");
  };
  const leave = () => {
    box.children[current]?.classList.remove("current");
    hide();
  };
  const moves = { ArrowRight: () => current + 1, ArrowLeft: () => current - 1, Home: () => 0, End: () => Infinity };
  moves.ArrowDown = moves.ArrowRight;
  moves.ArrowUp = moves.ArrowLeft;

  box.addEventListener("pointerover", (event) => {
    const number = of(event.target);
    if (number >= 0) show(event.target, tokens[number]);
  });
  box.addEventListener("pointerleave", hide);
  box.addEventListener("focusout", leave);
  box.addEventListener("keydown", (event) => {
    if (event.key in moves) {
      event.preventDefault();
      go(moves[event.key]());
    } else if (event.key === "Escape" && shown) {
      event.stopPropagation(); // it closes the tooltip, and stops nothing else
      leave();
    }
  });
}

addEventListener("scroll", place, { passive: true, capture: true });
