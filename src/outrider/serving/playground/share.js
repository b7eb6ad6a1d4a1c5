/**
 * Answers as links and as JSON. A record is what was asked and answered: mode, prompt, before (the messages before
 * it), settings (of the form, with the seed that was used), body (of the request) and answers ({name, reading}). A
 * link has all but the last two in its fragment, which browsers do not send to servers. A key is in neither.
 */

const ROLES = ["user", "assistant"];

export function linkTo({ mode, prompt, before, settings }) {
  const fields = { mode, prompt, before: before.length ? JSON.stringify(before) : "", ...settings };
  const given = Object.entries(fields).filter(([, value]) => value !== "");
  return `${location.origin}${location.pathname}#${new URLSearchParams(given)}`;
}

/** What the page's own link holds: mode, prompt, before, settings; null if it is not one. Throws an Error if it is damaged. */
export function fromLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (!given.has("prompt")) return null;
  const { mode, prompt, before: text, ...settings } = Object.fromEntries(given);
  const before = messagesOf(text ?? "[]");
  if (!before || !["chat", "race"].includes(mode)) throw new Error("this link is damaged");
  return { mode, prompt, before, settings };
}

function messagesOf(text) {
  try {
    const messages = JSON.parse(text);
    return messages.every(({ role, content }) => ROLES.includes(role) && typeof content === "string") ? messages : null;
  } catch {
    return null;
  }
}

/** All that is known, to be read by programs. */
export function asJSON({ body, answers }) {
  const [{ reading: { chunks } }] = answers;
  return JSON.stringify({ model: chunks[0][1].model, request: body, answers: answers.map(told) }, null, 2);
}

function told({ name, reading }) {
  const { text, parts, finish, tokens, steps, saved, acceptance, rate } = reading;
  return {
    name,
    text,
    reasoning: parts.textOf("reasoning"),
    tool_calls: parts.calls,
    finish_reason: finish,
    figures: {
      tokens: tokens.length, passes: steps.length, passes_saved: saved, acceptance_rate: acceptance, tokens_per_second: rate,
    },
    passes: steps.map(({ draft, own, at }) => ({ at_ms: at, draft, own: own?.text ?? null })),
    tokens: tokens.map((token) => ({
      text: token.text, source: token.source, drafter: token.drafter, id: token.id,
      target_probability: token.p, draft_probability: token.q, instead_of: token.instead,
    })),
  };
}
