/** Talking to the server: JSON to ask with, server-sent events to read. */

/** The server said no, beforehand or in the middle of a stream. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The connection ended before the answer did, or was never there. */
export class Dropped extends Error {}
const LOST = "The connection to the server was lost.";

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    throw asDropped(error, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const message = await response.json().then((form) => form.error.message, () => response.statusText);
  throw new Refused(response.status, message);
}

/** fetch has a TypeError for every failure of the network; what the user aborted stays what it is. */
function asDropped(error, message) {
  return error instanceof TypeError ? new Dropped(message) : error;
}

const headers = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** The one model that is served, as /v1/models describes it. */
export async function servedModel(key) {
  const response = await ask("/v1/models", { headers: headers(key) });
  return (await response.json()).data[0];
}

/** The chunks of an answer to `body`. Throws Refused, Dropped, and AbortError where `signal` says so. */
export async function* chunks(body, { key, signal }) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers(key) },
    body: JSON.stringify(body),
    signal,
  });
  for await (const line of lines(response.body)) {
    if (line === "data: [DONE]") return;
    if (!line.startsWith("data: ")) continue;
    const chunk = JSON.parse(line.slice("data: ".length));
    if (chunk.error) throw new Refused(response.status, chunk.error.message);
    yield chunk;
  }
  throw new Dropped(LOST);
}

async function* lines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = parts.pop();
      yield* parts;
    }
  } catch (error) {
    throw asDropped(error, LOST);
  } finally {
    reader.releaseLock();
  }
}
