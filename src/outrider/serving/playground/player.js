/** Plays a sequence diagram again: at the pace at which it came, in slow motion, or pass by pass. */

import { make } from "./dom.js";

const BEAT_MS = 140; // as --beat in sequence.css
const AFTER_MS = 900; // a pass of slow motion, besides a beat for each guess: checking, and time to look
const LONGEST_MS = 2000; // between two passes, however long the server took

export class Player {
  #sequence;
  #steps;
  #shown;
  #at = 0; // passes that are shown
  #timer = null;
  #play = make("button", { type: "button", className: "quiet" });
  #slider = make("input", { type: "range", min: 0, step: 1, ariaLabel: "Passes shown" });
  #pace = make("select", { ariaLabel: "Pace" },
    make("option", { value: "slow" }, "slow motion"), make("option", { value: "real" }, "as it came"));

  /** shown: called with the number of passes that are shown. */
  constructor(sequence, steps, shown = () => {}) {
    this.#sequence = sequence;
    this.#steps = steps;
    this.#shown = shown;
    const step = (label, by) => {
      const button = make("button", { type: "button", className: "quiet", ariaLabel: label }, by < 0 ? "‹" : "›");
      button.addEventListener("click", () => {
        this.pause();
        this.#go(this.#at + by, true);
      });
      return button;
    };
    this.#play.addEventListener("click", () => (this.#timer === null ? this.play() : this.pause()));
    this.#slider.addEventListener("input", () => {
      this.pause();
      this.#go(this.#slider.valueAsNumber, false);
    });
    this.element = make("div", { className: "player" }, this.#play, step("Pass before", -1), this.#slider,
      step("Next pass", 1), this.#pace);
    this.#name();
    this.element.hidden = true;
  }

  /** The steps are complete: all of them are shown, and can be played. */
  ready() {
    this.#at = this.#slider.max = this.#slider.value = this.#steps.length;
    this.element.hidden = !this.#steps.length;
  }

  /** From where it is, or from the beginning where it is at the end. */
  play() {
    if (this.#at >= this.#steps.length) this.#go(0, false);
    this.#timer = setTimeout(() => this.#next(), BEAT_MS);
    this.#name();
  }

  pause() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#name();
  }

  #next() {
    this.#go(this.#at + 1, this.#pace.value === "slow");
    if (this.#at >= this.#steps.length) this.pause();
    else this.#timer = setTimeout(() => this.#next(), this.#wait());
  }

  /** Ms until the next pass. */
  #wait() {
    const [step, next] = [this.#steps[this.#at - 1], this.#steps[this.#at]];
    if (this.#pace.value === "real") return Math.min(next.at - step.at, LONGEST_MS);
    return AFTER_MS + BEAT_MS * (step.draft?.tokens.length ?? 0);
  }

  #go(count, acted) {
    this.#at = Math.max(0, Math.min(count, this.#steps.length));
    this.#slider.value = this.#at;
    this.#slider.ariaValueText = `${this.#at} of ${this.#steps.length}`;
    this.#sequence.show(this.#at, { acted });
    this.#shown(this.#at);
  }

  #name() {
    this.#play.textContent = this.#timer === null ? "Replay" : "Pause";
  }
}
