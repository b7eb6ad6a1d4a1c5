/** What is known of one answer so far: its tokens, its steps, its parts, its times. Nothing of the page. */

import { Parts } from "./parts.js";

/** Who drafted a token of a draft: several may have had a part in it. */
export const drafterOf = (draft, place) => draft.drafters?.[place] ?? draft.drafter;

/**
 * A token: position, text, source ("draft", "correction", "bonus", "target"), drafter (of source "draft"), id (if
 * asked for), p and q: the target's and the draft's probability, null where unknown; instead: the drafted token
 * that a correction replaced.
 * A step is one pass of the target: draft (as the server tells it, or null), own: the token that the target added to
 * it, or null so far, and at: when it came, in ms since the request.
 */
export class Reading {
  tokens = [];
  steps = [];
  parts = new Parts();
  /** [ms since the request, tokens] of each chunk that had tokens. */
  arrivals = [];
  /** [ms since the request, chunk], to be read again. */
  chunks = [];
  finish = null;
  /** Who has answered, where several could: the names of replicas, in order. */
  replicas = [];
  #drafts = new Map();

  /** Take in a chunk. now: in ms since the request. */
  add(chunk, now) {
    this.chunks.push([now, chunk]);
    if (chunk.replica && chunk.replica !== this.replicas.at(-1)) this.replicas.push(chunk.replica);
    const choice = chunk.choices[0];
    if (!choice) return;
    const { drafts, tokens } = choice.speculation_trace ?? { drafts: [], tokens: [] };
    this.finish = choice.finish_reason ?? this.finish;
    for (const draft of drafts) this.#drafts.set(draft.position, draft);
    const added = tokens.map((token, i) =>
      this.#token(token, now, choice.logprobs?.content?.[i]?.logprob ?? null, choice.token_ids?.[i] ?? null),
    );
    this.parts.add(choice.delta ?? {}, added);
    if (added.length) this.arrivals.push([now, added.length]);
  }

  #token({ text, source }, at, logprob, id) {
    const position = this.tokens.length;
    const draft = this.#drafts.get(position) ?? null;
    if (draft || source === "target") this.steps.push({ draft, own: null, at });
    const step = this.steps.at(-1);
    const place = step.draft ? position - step.draft.position : 0;
    const drafted = step.draft?.tokens[place];
    const token = {
      position,
      text,
      source,
      id,
      drafter: source === "draft" ? drafterOf(step.draft, place) : null,
      p: logprob === null ? null : Math.exp(logprob),
      q: drafted === undefined ? null : (step.draft.probabilities?.[place] ?? null),
      instead: source === "correction" ? drafted : null,
    };
    if (source !== "draft") step.own = token;
    this.tokens.push(token);
    return token;
  }

  /** What it says, without its reasoning. */
  get text() {
    return this.parts.textOf("text");
  }

  /** Passes of the target that its drafts spared: plain decoding takes one a token. */
  get saved() {
    return this.tokens.length - this.steps.length;
  }

  get drafts() {
    return this.steps.flatMap((step) => (step.draft ? [step.draft] : []));
  }

  /** Tokens drafted in a step, on average. */
  get meanLength() {
    return share(sum(this.drafts.map((draft) => draft.tokens.length)), this.steps.length);
  }

  /** Of the drafted tokens, those that stood. */
  get acceptance() {
    return share(sum(this.drafts.map((d) => d.accepted)), sum(this.drafts.map((d) => d.tokens.length)));
  }

  /** Tokens of the answer that came out of a pass, on average. */
  get perStep() {
    return share(this.tokens.length, this.steps.length);
  }

  /** Tokens a second, from the first arrival on, whose own tokens took the time before it. */
  get rate() {
    if (this.arrivals.length < 2) return null;
    const [[first, there]] = this.arrivals;
    return share(1000 * (this.tokens.length - there), this.arrivals.at(-1)[0] - first);
  }
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const share = (part, whole) => (whole ? part / whole : null);
