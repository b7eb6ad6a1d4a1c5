/** One answer on the page: its tokens, its figures, its strip, and its tokens as a table. */

import { make, percent, rounded, seconds, visible } from "./dom.js";
import { lookOf, nameOf } from "./sources.js";
import { emptyStrip, showSteps } from "./strip.js";
import { explain } from "./tooltip.js";

const FIGURES = {
  Tokens: (reading) => String(reading.tokens.length),
  "Tokens/s": (reading) => rounded(reading.rate),
  "Draft length now": (reading) => rounded(reading.lastLength, 0),
  "Draft length, mean": (reading) => rounded(reading.meanLength),
  Accepted: (reading) => percent(reading.acceptance),
  "Tokens a step": (reading) => rounded(reading.perStep, 2),
  Clock: (_, elapsed) => seconds(elapsed),
};

/**
 * Shows a Reading as it grows. Drawing waits for the browser's next frame, so that many small chunks are drawn at
 * once and reading them, by which time is measured, is not held up.
 */
export class AnswerView {
  #shownTokens = 0;
  #shownSteps = 0;
  #waiting = false;
  #elapsed = 0;

  /** name: what the answer is called where it is not seen. */
  constructor(reading, name) {
    this.reading = reading;
    this.box = make("div", { className: "answer", tabIndex: 0, role: "group" });
    this.box.ariaLabel = `${name}. Arrow keys go from token to token.`;
    explain(this.box, reading.tokens);
    this.note = make("p", { className: "note" });
    this.figures = make("dl", { className: "figures", ariaLabel: `Figures of ${name}` });
    this.strip = emptyStrip();
    this.element = make(
      "div", {}, this.box, this.note, this.figures,
      make("details", { open: true }, make("summary", {}, "Drafts, step by step"), this.strip),
      this.#table(),
    );
    this.#showFigures();
  }

  /** The reading has grown. elapsed: ms since the request. */
  grown(elapsed) {
    this.#elapsed = elapsed;
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => this.draw());
  }

  /** Draw what there is now. */
  draw() {
    this.#waiting = false;
    const { tokens, steps } = this.reading;
    // Before the tokens, so that drafters get their looks in the order in which they drafted.
    showSteps(this.strip, steps, Math.max(0, this.#shownSteps - 1)); // the last may have got its own token
    this.#shownSteps = steps.length;
    this.box.append(...tokens.slice(this.#shownTokens).map(span));
    this.#shownTokens = tokens.length;
    this.#showFigures();
  }

  #showFigures() {
    const figures = Object.entries(FIGURES).map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value(this.reading, this.#elapsed))),
    );
    this.figures.replaceChildren(...figures);
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

function span(token) {
  return make("span", { className: `token ${lookOf(token)}` }, token.text);
}

function table(tokens) {
  const head = ["Position", "Token", "Source", "Target's probability", "Draft's probability"];
  const row = (tag, cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, cell)));
  const rows = tokens.map((token) =>
    row("td", [`${token.position + 1}`, visible(token.text), nameOf(token), rounded(token.p, 3), rounded(token.q, 3)]),
  );
  return make("table", {}, make("thead", {}, row("th", head)), make("tbody", {}, ...rows));
}
