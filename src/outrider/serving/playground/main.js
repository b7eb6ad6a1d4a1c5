/** The page: what its buttons and keys do. */

import * as chat from "./chat.js";
import { byId, complain, tell } from "./dom.js";
import { showExamples } from "./examples.js";
import * as races from "./race.js";
import { Unusable, arrange, key, write } from "./settings.js";
import { fromLink } from "./share.js";
import { showLegend } from "./sources.js";
import { servedModel } from "./stream.js";

const WIDE = matchMedia("(min-width: 64rem)"); // as in page.css
const form = byId("form");
const prompt = byId("prompt");
let running = null; // what stops it

const mode = () => form.elements.mode.value;

function setMode(wanted) {
  form.elements.mode.value = wanted;
  showMode();
}

function showMode() {
  arrange(mode());
  byId("intro").hidden = byId("starters").hidden =
    mode() === "race" || running !== null || !chat.isEmpty();
}

/** One thing at a time; whatever ends it is told. */
async function run(work) {
  if (running) return;
  running = new AbortController();
  complain("");
  busy(true);
  showMode();
  method.pause();
  if (!WIDE.matches) showSettings(false);
  try {
    await work(running.signal);
  } catch (error) {
    tellError(error);
  } finally {
    running = null;
    busy(false);
    showMode();
  }
}

function busy(on) {
  const focused = document.activeElement;
  byId("stop").hidden = !on;
  byId("send").hidden = on;
  if (focused === byId("send") || focused === byId("stop")) byId(on ? "stop" : "send").focus({ preventScroll: true });
  for (const button of document.querySelectorAll(".starts")) button.disabled = on;
  byId("turns").ariaBusy = byId("lanes").ariaBusy = String(on);
}

function tellError(error) {
  tell(error.name === "AbortError" ? "Stopped." : "");
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    askForKey();
    return;
  }
  if (error instanceof Unusable) {
    showSettings(true);
    error.element.focus();
  }
  complain(error.message.charAt(0).toUpperCase() + error.message.slice(1));
}

function askForKey() {
  byId("key-row").hidden = false;
  byId("key").select();
  byId("key").focus();
  complain(key() ? "This key is wrong." : "The server asks for an API key.");
}

async function submit() {
  const content = prompt.value;
  if (mode() === "race") {
    await run((signal) => races.race(content, signal));
    return;
  }
  const before = chat.length();
  prompt.value = "";
  await run((signal) => chat.say(content, signal));
  if (chat.length() === before && !prompt.value) prompt.value = content; // nobody answered: to be sent again
}

async function showModel() {
  try {
    const model = await servedModel(key());
    byId("model").textContent = `${model.id}, up to ${model.max_model_len} tokens`;
    if (!byId("key-row").hidden) complain(""); // of the key
    byId("key-row").hidden = true;
  } catch (error) {
    tellError(error);
  }
}

function showSettings(on) {
  byId("settings").hidden = !on;
  byId("settings-button").ariaExpanded = String(on);
}

/** What a link asks for is shown, and not sent: that is for the reader to do. */
function openLink() {
  try {
    const linked = fromLink();
    if (!linked) return;
    write(linked.settings);
    chat.resume(linked.before);
    setMode(linked.mode);
    prompt.value = linked.prompt;
    prompt.focus();
    tell("From a link: the prompt, its seed and its settings are filled in, and nothing is sent yet.");
  } catch (error) {
    tellError(error);
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
  if (event.key !== "Escape") return;
  if (running) running.abort();
  else if (!WIDE.matches && !byId("settings").hidden) {
    showSettings(false);
    byId("settings-button").focus();
  }
});
// What is wrong cannot be shown in a part that is closed. The event does not bubble.
document.addEventListener("invalid", () => showSettings(true), true);
byId("settings-button").addEventListener("click", () => showSettings(byId("settings").hidden));
byId("stop").addEventListener("click", () => running?.abort());
byId("clear").addEventListener("click", () => {
  chat.clear();
  races.clear();
  complain("");
  tell(mode() === "race" ? "No race yet." : "A new conversation.");
  showMode();
  prompt.focus();
});
byId("turns").addEventListener("again", () => run(chat.again));
byId("replay").addEventListener("click", () => run(races.replay));
byId("length").addEventListener("change", showMode);
byId("key").addEventListener("change", showModel);
addEventListener("hashchange", openLink);
for (const choice of form.elements.mode) choice.addEventListener("change", showMode);

showSettings(WIDE.matches);
showLegend();
const method = showExamples(
  (content) => run((signal) => chat.say(content, signal)),
  (content, fields) => {
    setMode("race");
    prompt.value = content;
    run((signal) => races.race(content, signal, fields));
  },
);
showMode();
openLink();
showModel();
