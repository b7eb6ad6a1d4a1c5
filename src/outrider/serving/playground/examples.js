/** What the page begins with: an example of the method, prompts to try, and races. */

import { byId, make } from "./dom.js";
import { Player } from "./player.js";
import { Sequence } from "./sequence.js";

/** An invented answer: "A fox jumps over the lazy dog. It sleeps on." */
const step = (at, tokens, accepted, own, source) => ({
  at,
  draft: tokens.length ? { drafter: null, tokens, accepted } : null,
  own: { text: own, source, drafter: null },
});
const METHOD = [
  step(0, [], 0, "A", "target"),
  step(300, [" fox", " jumps", " over", " a"], 3, " the", "correction"),
  step(600, [" lazy", " dog", "."], 3, " It", "bonus"),
  step(900, [" was", " very"], 0, " sleeps", "correction"),
  step(1200, [" on", "."], 2, " Soon", "bonus"),
];

const PROMPTS = {
  "Explain it": "Explain in three sentences why the sky is blue.",
  "List some": "List five facts about foxes, as a Markdown list with the key word of each in bold.",
  "Write code": "Write a Python function that tells whether a number is prime. Show it in a code block, then an example.",
  "Continue a song": "Write a short song of two verses about the sea. Repeat the same chorus after each verse.",
};

const CODE = `class Basket:
    def __init__(self, items):
        self.items = items

    def total(self):
        result = 0
        for item in self.items:
            result += item.price * item.count
        return result

    def count(self):
        result = 0
        for item in self.items:
            result += item.count
        return result
`;

const CITY = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 30 },
    country: { type: "string", maxLength: 30 },
    population: { type: "integer" },
    famous_for: { type: "string", maxLength: 80 },
  },
  required: ["name", "country", "population", "famous_for"],
  additionalProperties: false,
};
const CITIES = {
  type: "object",
  properties: { cities: { type: "array", items: CITY, minItems: 3, maxItems: 3 } },
  required: ["cities"],
  additionalProperties: false,
};

/** name: what it is, why it is a race worth seeing, the prompt, and fields of the request. */
const RACES = {
  "Code edit": {
    why: "Most of the answer is in the prompt, so most drafts stand.",
    prompt: `Here is a Python class:\n\n\`\`\`python\n${CODE}\`\`\`\n\nRename the class to Cart. Change nothing else, and answer with the whole code.`,
  },
  JSON: {
    why: "The schema leaves little to choose: its names are drafted for free.",
    prompt: "Describe three capital cities of Europe as JSON.",
    fields: { response_format: { type: "json_schema", json_schema: { name: "cities", schema: CITIES } } },
  },
  Story: {
    why: "The hard case: hardly anybody can guess what comes next.",
    prompt: "Tell a short story about a lighthouse keeper who finds a map.",
  },
};

/** Build them. ask: called with a prompt; race: with a prompt and fields of the request. */
export function showExamples(ask, race) {
  byId("prompts").append(
    ...Object.entries(PROMPTS).map(([name, prompt]) => card(name, prompt, () => ask(prompt))),
  );
  for (const box of document.querySelectorAll(".races")) {
    box.append(...Object.entries(RACES).map(([name, { why, prompt, fields }]) => card(name, why, () => race(prompt, fields))));
  }
  const sequence = new Sequence(METHOD);
  sequence.draw();
  const player = new Player(sequence, METHOD);
  player.ready();
  byId("method").append(sequence.element, player.element);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) player.play();
  return player;
}

function card(name, text, act) {
  const button = make("button", { type: "button", className: "card starts" }, make("b", {}, name), make("span", {}, text));
  button.addEventListener("click", act);
  return button;
}
