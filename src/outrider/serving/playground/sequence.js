/**
 * The sequence diagram: time goes to the right, a tick a pass of the target. In the draft's lane stands what was
 * guessed, in the target's what it says, below the guess that it was asked about.
 */

import { make, visible } from "./dom.js";
import { drafterOf } from "./reading.js";
import { lookOf } from "./sources.js";

export class Sequence {
  #steps;
  #shown = 0;

  /** steps: of a Reading, as they grow. */
  constructor(steps) {
    this.#steps = steps;
    this.passes = make("ol", { className: "passes", tabIndex: 0, ariaLabel: "Drafts, step by step" });
    const lane = (name, does) => make("span", {}, make("b", {}, name), make("span", {}, does));
    const lanes = make("div", { className: "lane-names", ariaHidden: "true" }, lane("Draft", "guesses"),
      lane("Target", "checks"), lane("Pass", ""));
    this.element = make("div", { className: "sequence" }, lanes, this.passes);
  }

  /** Draw what the steps have grown by; the last of those before may have got the target's own token. */
  draw() {
    const from = Math.max(0, this.#shown - 1);
    while (this.passes.children.length > from) this.passes.lastElementChild.remove();
    this.passes.append(...this.#steps.slice(from).map((step, i) => pass(step, from + i)));
    this.#shown = this.#steps.length;
    this.passes.scrollLeft = Number.MAX_SAFE_INTEGER;
  }

  /** Show the first `count` passes, the last of them as it happens: drafted, checked, kept. */
  show(count, { acted = false } = {}) {
    const all = [...this.passes.children];
    all.forEach((element, i) => {
      element.classList.toggle("later", i >= count);
      element.classList.toggle("now", i === count - 1 && count < all.length);
      element.classList.remove("acted");
    });
    const last = all[count - 1];
    if (!last) {
      this.passes.scrollLeft = 0;
      return;
    }
    if (acted) {
      void last.offsetWidth; // or an animation that has run would not run again
      last.classList.add("acted");
    }
    this.passes.scrollLeft = last.offsetLeft + last.offsetWidth - this.passes.clientWidth * 0.8;
  }
}

function pass({ draft, own }, number) {
  const guesses = draft?.tokens ?? [];
  const accepted = draft?.accepted ?? 0;
  const drafters = [...new Set(guesses.map((_, i) => drafterOf(draft, i)))].join(" and ");
  const said = draft ? `Step ${number + 1}, ${drafters}: ${accepted} of ${guesses.length} accepted` : `Step ${number + 1}, no draft`;
  const slots = guesses.map((text, i) => {
    const stood = i < accepted;
    const look = lookOf({ source: "draft", drafter: drafterOf(draft, i) });
    if (stood) return slot(i, chip(text, `guess ${look}`, "accepted"), chip(text, `said ${look}`));
    const wrong = i === accepted && own !== null;
    return slot(i, chip(text, "guess discarded", "discarded"), wrong ? chip(own.text, `said ${lookOf(own)}`, own.source) : null);
  });
  const bonus = own && accepted === guesses.length ? slot(guesses.length, null, chip(own.text, `said ${lookOf(own)}`, own.source)) : "";
  const element = make(
    "li", { className: "pass", title: said },
    make("span", { className: "unseen" }, `${said}. `),
    make("span", { className: "drafted" }, ...slots),
    bonus,
    make("span", { className: "tick", ariaHidden: "true" }, String(number + 1)),
  );
  element.style.setProperty("--guesses", guesses.length);
  return element;
}

function slot(place, guess, said) {
  const element = make("span", { className: "slot" }, guess ?? make("span", {}), said ?? make("span", {}));
  element.style.setProperty("--place", place);
  return element;
}

/** A token, without the space between words; what: told to those who do not see its look. */
function chip(text, look, what) {
  const element = make("span", { className: `token ${look}` }, visible(text.replace(/^ (?=\S)/, "")));
  if (!what) element.ariaHidden = "true"; // the same token, said again
  else element.prepend(make("span", { className: "unseen" }, `${what}: `));
  return element;
}
