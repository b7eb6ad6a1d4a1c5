/** The strip: each step's draft, what of it stood, what was discarded, and the target's own token. */

import { make, visible } from "./dom.js";
import { lookOf } from "./sources.js";

/** An empty strip. */
export function emptyStrip() {
  return make("ol", { className: "strip", tabIndex: 0, ariaLabel: "Drafts, step by step" });
}

/** Show the steps from `from` on, of which the first may be there already in part. */
export function showSteps(strip, steps, from) {
  while (strip.children.length > from) strip.lastElementChild.remove();
  strip.append(...steps.slice(from).map((step, i) => (step.draft ? drafted(step, from + i) : plain(step))));
  strip.scrollTop = strip.scrollHeight;
}

function drafted({ draft, own }, number) {
  const { tokens, accepted, drafter } = draft;
  const stood = tokens.slice(0, accepted);
  const said = `Step ${number + 1}, ${drafter}: ${accepted} of ${tokens.length} accepted`;
  const item = make("li", { className: "step", title: said }, make("span", { className: "unseen" }, `${said}. `));
  const part = (name, texts, look) => {
    if (!texts.length) return;
    const chips = texts.map((text) => make("span", { className: `token ${look}` }, visible(text)));
    item.append(make("span", { className: `part-${name}` }, make("span", { className: "unseen" }, `${name}: `), ...chips));
  };
  part("accepted", stood, lookOf({ source: "draft", drafter }));
  part("discarded", tokens.slice(accepted), "discarded");
  if (own) part(own.source, [own.text], lookOf(own));
  return item;
}

function plain({ own }) {
  const said = make("span", { className: "unseen" }, "no draft: ");
  return make("li", { className: "step" }, said, make("span", { className: "token from-target" }, visible(own.text)));
}
