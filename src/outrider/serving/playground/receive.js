/** One request from beginning to end. */

import { chunks } from "./stream.js";
import { key } from "./settings.js";

/**
 * Send `body` and let `reading` and `view` take in the answer. Where it breaks off, the view says what was kept, and
 * the error is thrown on.
 */
export async function receive(body, reading, view, signal) {
  const began = performance.now();
  const elapsed = () => performance.now() - began;
  try {
    for await (const chunk of chunks(body, { key: key(), signal })) {
      reading.add(chunk, elapsed());
      view.grown(elapsed());
    }
    if (reading.finish === "length") view.note.textContent = "Cut off: it has as many tokens as were asked for.";
  } catch (error) {
    view.note.textContent = `${error.name === "AbortError" ? "Stopped" : "Broke off"} after ${reading.tokens.length} tokens, which are kept.`;
    throw error;
  } finally {
    view.ended();
  }
}
