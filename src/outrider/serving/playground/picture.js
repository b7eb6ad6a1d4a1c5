/** Answers as a picture: what was saved, and each token in its look, on a canvas. */

import { percent, rounded } from "./dom.js";
import { lookOf, looks } from "./sources.js";

const WIDTH = 1200;
const MARGIN = 56;
const SCALE = 2;
const MOST_TOKENS = 1500; // a canvas has a greatest height
const FONT = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";

/** A PNG of a record, as share.js describes it. */
export async function picture(record) {
  const canvas = document.createElement("canvas");
  const height = paint(new Pen(canvas), record); // once to measure
  canvas.width = WIDTH * SCALE;
  canvas.height = height * SCALE;
  paint(new Pen(canvas), record);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Returns how high it is. */
function paint(pen, { prompt, body, answers }) {
  pen.ground();
  pen.words("Outrider", { size: 22, weight: 700, color: "accent" });
  for (const { name, reading } of answers) {
    pen.down(20);
    if (answers.length > 1) pen.words(name, { size: 20, color: "muted" });
    pen.words(`${reading.saved} passes saved`, { size: 44, weight: 700 });
    pen.words(
      `${reading.tokens.length} tokens in ${reading.steps.length} passes · ${rounded(reading.rate)} tokens/s · ` +
        `${percent(reading.acceptance)} of drafted tokens accepted`,
      { size: 20, color: "muted" },
    );
    pen.down(20);
    pen.words(prompt, { size: 20, color: "muted" });
    pen.down(12);
    const shown = reading.tokens.slice(0, MOST_TOKENS);
    pen.run(shown.map((token) => [token.text, lookOf(token)]), { size: 24 });
    if (shown.length < reading.tokens.length) pen.words(`… and ${reading.tokens.length - shown.length} more`, { size: 20 });
  }
  pen.down(24);
  pen.run(looks().filter(([look]) => look !== "discarded").flatMap(([look, name]) => [[name, look], ["   ", ""]]), { size: 18 });
  const [{ reading: { chunks } }] = answers;
  pen.words(`${chunks[0]?.[1].model ?? ""} · seed ${body.seed} · temperature ${body.temperature}`, { size: 18, color: "muted" });
  return pen.y + MARGIN;
}

/** Writes from the top down, between the margins. */
class Pen {
  y = MARGIN;
  #context;
  #style = getComputedStyle(document.documentElement);

  constructor(canvas) {
    this.#context = canvas.getContext("2d");
    this.#context.setTransform(SCALE, 0, 0, SCALE, 0, 0);
    this.#context.textBaseline = "alphabetic";
  }

  ground() {
    this.#context.fillStyle = this.#color("ground");
    this.#context.fillRect(0, 0, WIDTH, this.#context.canvas.height);
  }

  down(by) {
    this.y += by;
  }

  words(text, { color = "text", ...font }) {
    this.run(text.split(/(?<=\s)/).map((word) => [word, ""]), { color, ...font });
  }

  /** Pieces of text, each with a look, one after the other; a line ends where the next piece would not fit. */
  run(pieces, { size, weight = 400, color = "text" }) {
    const context = this.#context;
    const height = size * 1.6;
    context.font = `${weight} ${size}px ${FONT}`;
    let x = MARGIN;
    const next = () => {
      x = MARGIN;
      this.y += height;
    };
    for (const [text, look] of pieces) {
      text.split("\n").forEach((part, i) => {
        if (i) next();
        const shown = part.replaceAll("\t", "    ");
        const width = context.measureText(shown).width;
        if (x > MARGIN && x + width > WIDTH - MARGIN) next();
        const baseline = this.y + size;
        const ground = this.#color(look.replace("from-", ""));
        if (ground) {
          context.fillStyle = ground;
          context.fillRect(x, baseline - size * 0.95, width, size * 1.3);
          context.fillStyle = this.#color("text");
          context.fillRect(x, look === "from-bonus" ? baseline - size * 0.95 : baseline + size * 0.25, width, 2);
        }
        context.fillStyle = this.#color(color);
        context.fillText(shown, x, baseline);
        x += width;
      });
    }
    next();
  }

  #color(name) {
    return name && this.#style.getPropertyValue(`--${name}`);
  }
}
