/** The same request with drafts and without, one after the other, and what came of it. */

import { actions } from "./actions.js";
import { AnswerView } from "./answer.js";
import { byId, make, rounded, tell } from "./dom.js";
import { Reading } from "./reading.js";
import { receive } from "./receive.js";
import { Unusable, extra, fields, randomSeed, system, written } from "./settings.js";

// With drafts first: a prompt that the target finds in its cache is one of which a head knows less.
const LANES = { drafted: "With speculation", plain: "Without speculation" };

let recorded = null;

class Lane {
  constructor(title) {
    this.title = title;
    this.reading = new Reading();
    this.view = new AnswerView(this.reading, title, { open: false });
    this.state = make("p", { className: "state" }, "waits");
    this.element = make("section", { ariaLabel: title }, make("h3", {}, title), this.state, this.view.element);
  }

  async run(body, signal) {
    this.state.textContent = "runs";
    tell(`${this.title}: runs.`);
    try {
      await receive(body, this.reading, this.view, signal);
    } catch (error) {
      this.state.textContent = "broke off";
      throw error;
    }
    this.done();
  }

  /** Show again what another lane got, at the pace at which it came. */
  async repeat(reading, signal) {
    this.state.textContent = "replays";
    const began = performance.now();
    for (const [at, chunk] of reading.chunks) {
      while (!signal.aborted && performance.now() - began < at) {
        await new Promise((resolve) => setTimeout(resolve, at - (performance.now() - began)));
      }
      this.reading.add(chunk, at);
      this.view.grown(at);
    }
    this.view.ended();
    this.done();
  }

  done() {
    this.state.textContent = `${rounded(this.reading.rate)} tokens/s`;
  }

  get ids() {
    return this.reading.tokens.map((token) => token.id);
  }
}

/**
 * Race with this prompt. more: fields of this request besides those of the form. Throws what ends it early; what came
 * until then stays on the page.
 */
export async function race(content, signal, more = {}) {
  const messages = [...system(), { role: "user", content }];
  const body = { ...fields(), ...more, return_token_ids: true, messages };
  if (body.num_speculative_tokens === 0) {
    throw new Unusable("A race is between drafts and none: choose another draft length than off.", byId("length"));
  }
  body.seed ??= randomSeed(); // unseeded, each request would draw its own tokens
  const lanes = { drafted: new Lane(LANES.drafted), plain: new Lane(LANES.plain) };
  clear();
  byId("lanes").append(lanes.drafted.element, lanes.plain.element);
  byId("lanes").scrollIntoView({ block: "nearest" });
  // A salt of its own: a race that is run again has nothing to copy from the last one.
  const salted = { ...body, cache_salt: `race ${Date.now()} ${randomSeed()}` };
  await lanes.drafted.run(salted, signal);
  await lanes.plain.run({ ...salted, num_speculative_tokens: 0 }, signal);
  recorded = lanes;
  show(lanes.drafted, lanes.plain, body.seed);
  const settings = { ...written(), seed: String(body.seed), extra: asJSON({ ...extra(), ...more }) };
  const answers = Object.values(lanes).map(({ title, reading }) => ({ name: title, reading }));
  byId("result").append(actions({ mode: "race", prompt: content, before: [], settings, body, answers }));
  byId("verdict").scrollIntoView({ block: "nearest" });
}

const asJSON = (given) => (Object.keys(given).length ? JSON.stringify(given) : "");

export function clear() {
  recorded = null;
  byId("result").hidden = true;
  byId("result").querySelector(".actions")?.remove();
  byId("verdict").textContent = "";
  byId("lanes").replaceChildren();
}

function show(drafted, plain, seed) {
  const [rate, base] = [drafted.reading.rate, plain.reading.rate];
  const { saved, drafts } = drafted.reading;
  const timed = rate && base;
  byId("ratio").textContent = timed ? `${rounded(rate / base, 2)}×` : `${saved}`;
  byId("ratio-words").textContent = timed ? "as fast with speculation" : "passes saved; too short to time";
  const none = drafts.length ? "" : " Nothing was drafted: the server has no drafter, or none that pays here.";
  byId("verdict").textContent = `${sameness(drafted.ids, plain.ids)} ${saved} passes saved.${none} Both with seed ${seed}.`;
  byId("result").hidden = false;
  tell(`The race is over: ${byId("ratio").textContent} ${byId("ratio-words").textContent}.`);
}

function sameness(a, b) {
  const longest = Math.max(a.length, b.length);
  const place = Array.from({ length: longest }, (_, i) => i).find((i) => a[i] !== b[i]);
  if (place === undefined) return `Identical: all ${longest} tokens are the same.`;
  return `Different from token ${place + 1} on. Only the acceptance rule "coupled" promises the same tokens.`;
}

/** Show both lanes again, at once, at the pace at which they came. */
export async function replay(signal) {
  if (!recorded) return;
  const pairs = Object.values(recorded).map((lane) => [new Lane(lane.title), lane.reading]);
  byId("lanes").replaceChildren(...pairs.map(([lane]) => lane.element));
  tell("Both again, at the pace at which they came.");
  await Promise.all(pairs.map(([lane, reading]) => lane.repeat(reading, signal)));
  tell("The replay is over.");
}
