/** Drawing that waits for the browser's next frame, so that many small chunks are drawn at once. */

const PAUSE_MS = 250; // between drawings: the server may run on this very machine, and needs its processor

export class Drawing {
  #draw;
  #waiting = false;
  #last = -Infinity;

  /** draw: shows all that has come since it was last called. */
  constructor(draw) {
    this.#draw = draw;
  }

  /** Draw before long. */
  soon() {
    if (this.#waiting) return;
    this.#waiting = true;
    const rest = this.#last + PAUSE_MS - performance.now();
    setTimeout(() => requestAnimationFrame(() => this.#waiting && this.now()), Math.max(0, rest));
  }

  now() {
    this.#waiting = false;
    this.#draw();
    this.#last = performance.now();
  }
}
