/** The same request with drafts and without, one after the other, and what came of it. */

import { AnswerView } from "./answer.js";
import { byId, make, rounded, tell } from "./dom.js";
import { Reading } from "./reading.js";
import { receive } from "./receive.js";
import { Unusable, fields, system } from "./settings.js";

// With drafts first: a prompt that the target finds in its cache is one of which a head knows less.
const LANES = { drafted: "With speculation", plain: "Without speculation" };

let recorded = null;

class Lane {
  constructor(title) {
    this.title = title;
    this.reading = new Reading();
    this.view = new AnswerView(this.reading, title);
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
    this.state.textContent = `${rounded(this.reading.rate)} tokens/s`;
  }

  get ids() {
    return this.reading.tokens.map((token) => token.id);
  }
}

/** Race with this prompt. Throws what ends it early; what came until then stays on the page. */
export async function race(content, signal) {
  const body = { ...fields(), return_token_ids: true, messages: [...system(), { role: "user", content }] };
  if (body.num_speculative_tokens === 0) {
    throw new Unusable("A race is between drafts and none: choose another draft length than off.", byId("length"));
  }
  // Unseeded, each request would draw its own tokens.
  body.seed ??= Math.floor(Math.random() * 2 ** 31);
  const lanes = { drafted: new Lane(LANES.drafted), plain: new Lane(LANES.plain) };
  recorded = null;
  byId("replay").hidden = true;
  byId("verdict").textContent = "";
  byId("lanes").replaceChildren(lanes.drafted.element, lanes.plain.element);
  await lanes.drafted.run(body, signal);
  await lanes.plain.run({ ...body, num_speculative_tokens: 0 }, signal);
  recorded = lanes;
  byId("replay").hidden = false;
  byId("verdict").textContent = verdict(lanes.drafted, lanes.plain, body.seed);
  tell(byId("verdict").textContent);
}

function verdict(drafted, plain, seed) {
  const [rate, base] = [drafted.reading.rate, plain.reading.rate];
  const ratio = rate && base ? `${rounded(rate / base, 2)} times as fast with speculation` : "too short to time";
  const speed = drafted.reading.drafts.length ? `${ratio}.`
    : `${ratio}, but nothing was drafted: the server has no drafter, or none that pays here.`;
  return `${sameness(drafted.ids, plain.ids)} ${speed} Both with seed ${seed}.`;
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
  const lanes = Object.values(recorded).map((lane) => [lane, lane.reading]);
  byId("lanes").replaceChildren();
  tell("Both again, at the pace at which they came.");
  await Promise.all(lanes.map(([lane, reading]) => again(lane.title, reading, signal)));
  tell("The replay is over.");
}

async function again(title, reading, signal) {
  const view = new AnswerView(new Reading(), title);
  const state = make("p", { className: "state" }, "replays");
  byId("lanes").append(make("section", { ariaLabel: title }, make("h3", {}, title), state, view.element));
  const began = performance.now();
  for (const [at, chunk] of reading.chunks) {
    while (!signal.aborted && performance.now() - began < at) {
      await new Promise((resolve) => setTimeout(resolve, at - (performance.now() - began)));
    }
    view.reading.add(chunk, at);
    view.grown(at);
  }
  view.draw();
  state.textContent = `${rounded(view.reading.rate)} tokens/s`;
}
