/** What is known of one answer so far: its tokens, its steps, its times. Nothing of the page. */

/**
 * A token: position, text, source ("draft", "correction", "bonus", "target"), drafter (of source "draft"), id (if
 * asked for), p and q: the target's and the draft's probability, null where unknown; instead: the drafted token
 * that a correction replaced.
 * A step: draft (as the server tells it, or null) and own: the token that the target added to it, or null so far.
 */
export class Reading {
  tokens = [];
  steps = [];
  /** [ms since the request, tokens] of each chunk that had tokens. */
  arrivals = [];
  /** [ms since the request, chunk], to be read again. */
  chunks = [];
  finish = null;
  #drafts = new Map();

  /** Take in a chunk; returns the tokens that it added. now: in ms since the request. */
  add(chunk, now) {
    this.chunks.push([now, chunk]);
    const choice = chunk.choices[0];
    const trace = choice?.speculation_trace;
    if (!trace) return [];
    this.finish = choice.finish_reason ?? this.finish;
    for (const draft of trace.drafts) this.#drafts.set(draft.position, draft);
    const added = trace.tokens.map((token, i) =>
      this.#token(token, choice.logprobs?.content[i]?.logprob ?? null, choice.token_ids?.[i] ?? null),
    );
    if (added.length) this.arrivals.push([now, added.length]);
    return added;
  }

  #token({ text, source }, logprob, id) {
    const position = this.tokens.length;
    const draft = this.#drafts.get(position) ?? null;
    if (draft || source === "target") this.steps.push({ draft, own: null });
    const step = this.steps.at(-1);
    const place = step.draft ? position - step.draft.position : 0;
    const drafted = step.draft?.tokens[place];
    const token = {
      position,
      text,
      source,
      id,
      drafter: source === "draft" ? step.draft.drafter : null,
      p: logprob === null ? null : Math.exp(logprob),
      q: drafted === undefined ? null : (step.draft.probabilities?.[place] ?? null),
      instead: source === "correction" ? drafted : null,
    };
    if (source !== "draft") step.own = token;
    this.tokens.push(token);
    return token;
  }

  get text() {
    return this.tokens.map((token) => token.text).join("");
  }

  get drafts() {
    return this.steps.flatMap((step) => (step.draft ? [step.draft] : []));
  }

  /** Tokens drafted in the last step, and in a step on average. */
  get lastLength() {
    return this.steps.length ? (this.steps.at(-1).draft?.tokens.length ?? 0) : null;
  }

  get meanLength() {
    return share(sum(this.drafts.map((draft) => draft.tokens.length)), this.steps.length);
  }

  /** Of the drafted tokens, those that stood. */
  get acceptance() {
    return share(sum(this.drafts.map((d) => d.accepted)), sum(this.drafts.map((d) => d.tokens.length)));
  }

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
