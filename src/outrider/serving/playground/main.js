/** The page: what its buttons and keys do. */

import * as chat from "./chat.js";
import { byId, complain, tell } from "./dom.js";
import { race, replay } from "./race.js";
import { Unusable, arrange, key } from "./settings.js";
import { showLegend } from "./sources.js";
import { Dropped, servedModel } from "./stream.js";

const form = byId("form");
const prompt = byId("prompt");
let running = null; // what stops it

const mode = () => form.elements.mode.value;

/** One thing at a time; whatever ends it is told. Returns whether it came to its end. */
async function run(work) {
  if (running) return false;
  running = new AbortController();
  complain("");
  busy(true);
  try {
    await work(running.signal);
    return true;
  } catch (error) {
    tellError(error);
    return false;
  } finally {
    running = null;
    busy(false);
  }
}

function busy(on) {
  byId("stop").disabled = !on;
  for (const id of ["send", "clear", "replay"]) byId(id).disabled = on;
  byId("turns").ariaBusy = byId("lanes").ariaBusy = String(on);
}

function tellError(error) {
  if (error.name === "AbortError") {
    tell("Stopped.");
    return;
  }
  tell("");
  if (error.status === 401) askForKey();
  if (error instanceof Unusable) error.element.focus();
  if (error instanceof Dropped) complain("The connection to the server was lost. What came so far is kept.");
  else complain(error.message.charAt(0).toUpperCase() + error.message.slice(1));
}

function askForKey() {
  byId("key-row").hidden = false;
  byId("key").focus();
}

async function submit() {
  const content = prompt.value;
  if (mode() === "race") {
    await run((signal) => race(content, signal));
    return;
  }
  prompt.value = "";
  const ended = await run((signal) => chat.say(content, signal));
  if (!ended && !prompt.value) prompt.value = content; // to be sent again
}

async function showModel() {
  try {
    const model = await servedModel(key());
    byId("model").textContent = `${model.id}, up to ${model.max_model_len} tokens`;
    return;
  } catch (error) {
    byId("model").textContent = error.status === 401 ? "The server asks for an API key." : "The server does not answer.";
    if (error.status === 401) askForKey();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) submit();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
// What is wrong cannot be shown in a part that is closed. The event does not bubble.
document.addEventListener("invalid", () => (byId("fields").open = true), true);
byId("stop").addEventListener("click", () => running?.abort());
byId("clear").addEventListener("click", () => {
  chat.clear();
  prompt.focus();
});
byId("replay").addEventListener("click", () => run(replay));
byId("length").addEventListener("change", () => arrange(mode()));
byId("key").addEventListener("change", showModel);
for (const choice of form.elements.mode) choice.addEventListener("change", () => arrange(mode()));

// On a phone the settings come before everything else, so they begin closed there.
byId("fields").open = matchMedia("(min-width: 60rem)").matches;
arrange(mode());
showLegend();
showModel();
