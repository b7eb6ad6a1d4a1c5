/** What an answer is made of: reasoning, text and calls of tools, in the order in which they came. */

/**
 * A part: kind ("reasoning", "text" or "call"), name (of a call's function), text (of a call: its arguments), and
 * pieces: {from, text, token}, of which the text is made up; token is null where it is not known. changes counts them.
 *
 * A chunk may have text whose tokens come with the next chunk, or tokens whose text is held back; and tags, and the
 * form of a call, are tokens without a text of their own. So text and tokens wait for each other here.
 */
export class Parts {
  all = [];
  #calls = new Map(); // by their index in the answer
  #bare = []; // [part, piece] of text without tokens so far
  #tokens = []; // those without text so far

  /** Take in a chunk's delta, and the tokens that came with it. */
  add(delta, tokens) {
    if (delta.reasoning_content) this.#grow(this.#last("reasoning"), delta.reasoning_content);
    if (delta.content) this.#grow(this.#last("text"), delta.content);
    for (const call of delta.tool_calls ?? []) {
      const part = this.#call(call.index ?? 0);
      part.id ??= call.id;
      part.name += call.function?.name ?? "";
      if (call.function?.arguments) this.#grow(part, call.function.arguments);
    }
    this.#tokens.push(...tokens);
    if (!this.#tokens.length) return;
    for (const [part, piece] of this.#bare) {
      part.changes += 1;
      part.pieces.splice(part.pieces.lastIndexOf(piece), 1, ...matched(piece, this.#tokens));
    }
    this.#bare = [];
  }

  /** All the text of a kind. */
  textOf(kind) {
    return this.all.filter((part) => part.kind === kind).map((part) => part.text).join("");
  }

  /** The calls, as a message of a conversation has them. */
  get calls() {
    return [...this.#calls.values()].map(({ id, name, text }) => ({
      id, type: "function", function: { name, arguments: text },
    }));
  }

  #last(kind) {
    const last = this.all.at(-1);
    return last?.kind === kind ? last : this.#begin(kind);
  }

  #call(index) {
    if (!this.#calls.has(index)) this.#calls.set(index, Object.assign(this.#begin("call"), { name: "" }));
    return this.#calls.get(index);
  }

  #begin(kind) {
    const part = { kind, text: "", pieces: [], changes: 0 };
    this.all.push(part);
    return part;
  }

  #grow(part, text) {
    const piece = { from: part.text.length, text, token: null };
    part.pieces.push(piece);
    part.text += text;
    part.changes += 1;
    this.#bare.push([part, piece]);
  }
}

/** The piece, cut into those of the tokens. Takes away tokens up to the last that has been found. */
function matched({ from, text }, tokens) {
  const pieces = [];
  const put = (end, token) => {
    if (end > from) pieces.push({ from, text: text.slice(from - begin, end - begin), token });
    from = end;
  };
  const begin = from;
  const end = begin + text.length;
  while (from < end) {
    const rest = text.slice(from - begin);
    const place = (token) => (token.text.trim() ? rest.indexOf(token.text) : -1);
    let next = tokens.findIndex((token) => token.text && rest.startsWith(token.text));
    if (next < 0) next = tokens.findIndex((token) => place(token) >= 0); // after text of which no token is known
    if (next < 0) break;
    const [token] = tokens.splice(0, next + 1).slice(-1);
    put(from + Math.max(0, place(token)), null);
    put(from + token.text.length, token);
  }
  put(end, null);
  return pieces;
}
