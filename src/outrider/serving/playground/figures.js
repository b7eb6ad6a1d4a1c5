/** The figures of an answer: what speculation saved, largest, and what else is counted. */

import { make, percent, rounded, seconds } from "./dom.js";

const OTHERS = {
  "Tokens/s": (reading) => rounded(reading.rate),
  Accepted: (reading) => percent(reading.acceptance),
  "Tokens a pass": (reading) => rounded(reading.perStep, 2),
  "Tokens a draft": (reading) => rounded(reading.meanLength),
  Time: (_, elapsed) => seconds(elapsed),
};

export class Figures {
  #number = make("strong", {});
  #words = make("span", {});
  #passes = make("span", { className: "bar-passes" });
  #replicas = make("p", { className: "replicas", hidden: true });
  #others = Object.keys(OTHERS).map(() => make("dd", {}));

  /** name: of the answer. */
  constructor(reading, name) {
    this.reading = reading;
    const bars = make("div", { className: "bars", ariaHidden: "true" }, make("span", { className: "bar-tokens" }), this.#passes);
    const pairs = Object.keys(OTHERS).map((label, i) => make("div", {}, make("dt", {}, label), this.#others[i]));
    this.element = make(
      "div", { className: "figures" },
      make("p", { className: "headline" }, this.#number, " ", this.#words),
      bars,
      make("dl", { ariaLabel: `Figures of ${name}` }, ...pairs),
      this.#replicas,
    );
    this.draw(0);
  }

  /** elapsed: ms since the request. */
  draw(elapsed) {
    const { tokens, steps, saved, replicas } = this.reading;
    this.#number.textContent = String(saved);
    this.#words.textContent = `${saved === 1 ? "pass" : "passes"} saved: ${tokens.length} tokens in ${steps.length} passes`;
    this.#passes.style.width = `${tokens.length ? (100 * steps.length) / tokens.length : 100}%`;
    this.#replicas.hidden = !replicas.length;
    this.#replicas.textContent = `Answered by replica ${replicas.join(", then by ")}.`;
    Object.values(OTHERS).forEach((figure, i) => (this.#others[i].textContent = figure(this.reading, elapsed)));
  }
}
