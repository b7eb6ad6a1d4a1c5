/** From the form to the fields of a request. */

import { byId } from "./dom.js";

/** Controls of the form, by id. */
const FIELDS = ["length", "fixed", "temperature", "max-tokens", "seed", "system", "extra"];

/** Fields that the page sets itself; another value of theirs it could not show. */
const OWN = ["messages", "stream", "n", "speculation_trace", "num_speculative_tokens"];

/** What the user has to change before a request can be sent. element: where. */
export class Unusable extends Error {
  constructor(message, element) {
    super(message);
    this.element = element;
  }
}

/** What stands in the form, but for the key. */
export const written = () => Object.fromEntries(FIELDS.map((id) => [id, byId(id).value]));

/** Write such values, those that are given, into the form. */
export function write(values) {
  for (const id of FIELDS) byId(id).value = values[id] ?? byId(id).defaultValue ?? "auto";
}

export const randomSeed = () => Math.floor(Math.random() * 2 ** 31);

/** The fields of the next request, but for its messages. Throws Unusable. */
export function fields() {
  const seed = byId("seed").value;
  return {
    temperature: byId("temperature").valueAsNumber,
    max_completion_tokens: byId("max-tokens").valueAsNumber,
    ...(seed === "" ? {} : { seed: Number(seed) }),
    ...draftLength(),
    ...extra(),
    stream: true,
    speculation_trace: true,
  };
}

/** Left out, the server chooses. */
function draftLength() {
  const length = { auto: undefined, off: 0, fixed: byId("fixed").valueAsNumber }[byId("length").value];
  return length === undefined ? {} : { num_speculative_tokens: length };
}

/** The fields that are given as JSON. Throws Unusable. */
export function extra() {
  const element = byId("extra");
  if (!element.value.trim()) return {};
  let given;
  try {
    given = JSON.parse(element.value);
  } catch (error) {
    throw new Unusable(`The other fields are not JSON: ${error.message}`, element);
  }
  if (given === null || typeof given !== "object" || Array.isArray(given)) {
    throw new Unusable('The other fields have to be a JSON object, such as {"top_p": 0.9}.', element);
  }
  const taken = OWN.filter((name) => name in given);
  if (taken.length) throw new Unusable(`The page sets ${taken.join(", ")} itself; leave it out.`, element);
  return given;
}

/** The system message, if there is one. */
export function system() {
  const content = byId("system").value;
  return content ? [{ role: "system", content }] : [];
}

export const key = () => byId("key").value;

/** The page as it looks for a mode and a draft length. */
export function arrange(mode) {
  const fixed = byId("length").value === "fixed";
  byId("fixed").disabled = !fixed;
  byId("fixed").hidden = byId("fixed").labels[0].hidden = !fixed;
  byId("chat").hidden = mode !== "chat";
  byId("race").hidden = mode !== "race";
  byId("send").textContent = mode === "race" ? "Race" : "Send";
  byId("prompt-label").textContent = mode === "race" ? "Prompt of both" : "Message";
  byId("prompt").placeholder = mode === "race" ? "A prompt to race with…" : "Ask the model…";
}
