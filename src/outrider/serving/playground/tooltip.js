/** What is known of one token: shown beside it, and spoken where the keyboard moved there. */

import { byId, make, rounded, visible } from "./dom.js";
import { meaningOf } from "./sources.js";

/** The lines of a token's tooltip. */
export function describe(token) {
  const lines = [`token ${token.position + 1}: ${visible(token.text)}`, meaningOf(token)];
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
  const tip = byId("tip");
  const at = shown.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const floor = Math.min(innerHeight, byId("form").getBoundingClientRect().top);
  const below = at.bottom + 6 + own.height <= floor;
  tip.style.top = `${Math.max(4, below ? at.bottom + 6 : at.top - own.height - 6)}px`;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - own.width - 4))}px`;
}

function hide() {
  shown = null;
  byId("tip").hidden = true;
}

/**
 * Tooltips for the tokens in `box`: by pointer, by touch, where it stays until another place is touched, and by the
 * arrow keys, Home and End once the box has the focus. tokens: of the reading that the box shows.
 */
export function explain(box, tokens) {
  let current = -1;
  const spans = (number) => [...box.querySelectorAll(`[data-position="${number}"]`)];
  const of = (target) => target.closest(".token");
  const light = (on) => spans(current).forEach((span) => span.classList.toggle("current", on));

  const go = (wanted) => {
    if (!tokens.length) return;
    light(false);
    current = Math.max(0, Math.min(wanted, tokens.length - 1));
    light(true);
    // Of a token that only marks the form nothing is to be seen, but for what it says.
    const element = spans(current).find((span) => span.checkVisibility()) ?? box;
    if (element !== box) element.scrollIntoView({ block: "nearest" });
    show(element, tokens[current]);
    byId("spoken").textContent = describe(tokens[current]).join(", ");
  };
  const leave = () => {
    light(false);
    hide();
  };
  const moves = { ArrowRight: () => current + 1, ArrowLeft: () => current - 1, Home: () => 0, End: () => Infinity };
  moves.ArrowDown = moves.ArrowRight;
  moves.ArrowUp = moves.ArrowLeft;

  const point = (event) => {
    const span = of(event.target);
    if (span) show(span, tokens[Number(span.dataset.position)]);
    else hide();
  };
  box.addEventListener("pointerover", (event) => event.pointerType === "mouse" && point(event));
  box.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && hide());
  box.addEventListener("click", point);
  box.addEventListener("focusout", leave);
  box.addEventListener("keydown", (event) => {
    if (event.target === box && event.key in moves) {
      event.preventDefault();
      go(moves[event.key]());
    } else if (event.key === "Escape" && shown) {
      event.stopPropagation(); // it closes the tooltip, and stops nothing else
      leave();
    }
  });
}

addEventListener("pointerdown", (event) => !event.target.closest?.(".token") && hide());
addEventListener("scroll", place, { passive: true, capture: true });
