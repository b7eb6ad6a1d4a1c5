/** One request from beginning to end. */

import { Dropped, chunks } from "./stream.js";
import { key } from "./settings.js";

/**
 * Send `body` and let `reading` and `view` take in the answer. Where it breaks off, the view says so and keeps what
 * came, and the error is thrown on.
 */
export async function receive(body, reading, view, signal) {
  const began = performance.now();
  const elapsed = () => performance.now() - began;
  try {
    for await (const chunk of chunks(body, { key: key(), signal })) {
      reading.add(chunk, elapsed());
      view.grown(elapsed());
    }
  } catch (error) {
    view.note.textContent = note(error, reading.tokens.length);
    throw error;
  } finally {
    view.draw();
  }
  if (reading.finish === "length") view.note.textContent = "Cut off: it has as many tokens as were asked for.";
}

function note(error, count) {
  const came = count ? `after ${count} tokens, which are kept` : "before the first token";
  if (error.name === "AbortError") return `Stopped ${came}.`;
  if (error instanceof Dropped) return `The connection was lost ${came}.`;
  return `Ended by an error ${came}.`;
}
