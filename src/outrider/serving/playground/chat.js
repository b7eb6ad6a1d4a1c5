/** A conversation. */

import { AnswerView } from "./answer.js";
import { byId, make, percent, rounded, tell } from "./dom.js";
import { followed } from "./follow.js";
import { Reading } from "./reading.js";
import { receive } from "./receive.js";
import { fields, system } from "./settings.js";

let messages = [];
let answers = 0;

export function clear() {
  messages = [];
  byId("turns").replaceChildren();
  tell("A new conversation.");
}

/** Say it, and show the answer as it comes. Throws what ends it early, once what came is kept. */
export async function say(content, signal) {
  const body = { logprobs: true, ...fields(), messages: [...system(), ...messages, { role: "user", content }] };
  answers += 1;
  const reading = new Reading();
  const view = new AnswerView(reading, `Answer ${answers}`);
  byId("turns").append(
    make("article", { className: "user" }, make("h3", {}, "You"), make("p", {}, content)),
    make("article", { className: "model" }, make("h3", {}, "Model"), view.element),
  );
  tell("The model answers.");
  const following = followed(view.box);
  try {
    await receive(body, reading, view, signal);
    tell(
      `The answer is complete: ${reading.tokens.length} tokens, ${rounded(reading.rate)} tokens a second, ` +
        `${percent(reading.acceptance)} of drafted tokens accepted.`,
    );
  } finally {
    following.end();
    // What came before a break is part of the conversation; what nobody answered is not.
    if (reading.tokens.length) {
      messages.push({ role: "user", content }, { role: "assistant", content: reading.text });
    }
  }
}
