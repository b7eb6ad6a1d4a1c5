/** A conversation. */

import { actions } from "./actions.js";
import { AnswerView } from "./answer.js";
import { byId, make, percent, rounded, tell } from "./dom.js";
import { followed } from "./follow.js";
import { Reading } from "./reading.js";
import { receive } from "./receive.js";
import { fields, randomSeed, system, written } from "./settings.js";

let messages = [];
let answers = 0;
let last = null; // {content, before, elements}: what can be asked again

export const isEmpty = () => byId("turns").childElementCount === 0;

/** Messages that have an answer, however far it came, and those answers. */
export const length = () => messages.length;

export function clear() {
  messages = [];
  last = null;
  byId("turns").replaceChildren();
}

/** Begin with the turns of another conversation. */
export function resume(before) {
  clear();
  messages = [...before];
  byId("turns").append(...before.map(({ role, content }) => turn(role, make("p", {}, content ?? ""))));
}

/** Say it, and show the answer as it comes. Throws what ends it early, once what came is kept. */
export async function say(content, signal) {
  const before = messages;
  const body = { logprobs: true, ...fields(), messages: [...system(), ...before, { role: "user", content }] };
  body.seed ??= randomSeed(); // it is part of a link to this answer
  answers += 1;
  const name = `Answer ${answers}`;
  const reading = new Reading();
  const view = new AnswerView(reading, name);
  const elements = [turn("user", make("p", {}, content)), turn("assistant", view.element)];
  byId("turns").querySelector(".again")?.remove();
  byId("turns").append(...elements);
  tell("The model answers.");
  const following = followed(view.box);
  try {
    await receive(body, reading, view, signal);
    tell(
      `The answer is complete: ${reading.tokens.length} tokens, ${rounded(reading.rate)} tokens a second, ` +
        `${percent(reading.acceptance)} of drafted tokens accepted.`,
    );
  } finally {
    // What came before a break is part of the conversation; what nobody answered is not.
    if (reading.parts.all.length) {
      messages = [...before, { role: "user", content }, said(reading)];
      last = { content, before, elements };
      const settings = { ...written(), seed: String(body.seed) };
      const record = { mode: "chat", prompt: content, before, settings, body, answers: [{ name, reading }] };
      view.element.querySelector(".note").after(actions(record, view.box));
    } else {
      for (const element of elements) element.remove();
    }
    following.end();
  }
}

/** The last answer is taken back, and asked for again. */
export async function again(signal) {
  const { content, before, elements } = last;
  messages = before;
  for (const element of elements) element.remove();
  await say(content, signal);
}

function turn(role, element) {
  const [className, title] = role === "user" ? ["user", "You"] : ["model", "Model"];
  return make("article", { className }, make("h3", {}, title), element);
}

function said({ text, parts }) {
  const calls = parts.calls.length ? { tool_calls: parts.calls } : {};
  return { role: "assistant", content: text, ...calls };
}
