/** What an answer is made of: reasoning, text and calls of tools, in the order in which they came. */

/**
 * A part: kind ("reasoning", "text" or "call"), name (of a call's function), text (of a call: its arguments), and
 * pieces: {from, text, token}, of which the text is made up; token is null where it is not known.
 */
export class Parts {
  all = [];
  #calls = new Map(); // by their index in the answer

  /** Take in a chunk's delta, and the tokens that came with it. */
  add(delta, tokens) {
    const left = [...tokens];
    if (delta.reasoning_content) grow(this.#last("reasoning"), delta.reasoning_content, left);
    if (delta.content) grow(this.#last("text"), delta.content, left);
    for (const call of delta.tool_calls ?? []) {
      const part = this.#call(call.index ?? 0);
      part.id ??= call.id;
      part.name += call.function?.name ?? "";
      grow(part, call.function?.arguments ?? "", left);
    }
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
    const part = { kind, text: "", pieces: [] };
    this.all.push(part);
    return part;
  }
}

/** Tags and the form of a call are tokens too, but no text of the part: they are passed over. */
function grow(part, text, tokens) {
  const put = (piece, token) => {
    part.pieces.push({ from: part.text.length, text: piece, token });
    part.text += piece;
  };
  let rest = text;
  while (rest) {
    const next = tokens.findIndex((token) => token.text && rest.startsWith(token.text));
    if (next < 0) {
      put(rest, null);
      return;
    }
    const token = tokens.splice(0, next + 1).at(-1);
    put(token.text, token);
    rest = rest.slice(token.text.length);
  }
}
