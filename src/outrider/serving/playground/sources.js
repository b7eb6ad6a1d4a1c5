/** How sources look and what they are called. Each drafter has a look of its own, in the order they turn up. */

import { byId, make } from "./dom.js";

const LOOKS = 4; // of drafters; a fifth looks like the first
const drafters = [];

const NAMES = { draft: "accepted draft", correction: "correction", bonus: "bonus", target: "target alone" };
const MEANINGS = {
  draft: "",
  correction: ": the target's token where the draft was wrong",
  bonus: ": the target's token after a draft that stood as a whole",
  target: ": nothing was drafted",
};
const DISCARDED = "discarded draft";

export const nameOf = (token) => (token.drafter === null ? NAMES[token.source] : `accepted draft of ${token.drafter}`);
export const meaningOf = (token) => nameOf(token) + MEANINGS[token.source];

/** The class of a token, or of drafted tokens where only the drafter is given; null is a drafter without a name. */
export function lookOf({ source, drafter }) {
  return source === "draft" ? `from-draft-${drafter === null ? 0 : rank(drafter) % LOOKS}` : `from-${source}`;
}

function rank(drafter) {
  if (!drafters.includes(drafter)) {
    drafters.push(drafter);
    showLegend();
  }
  return drafters.indexOf(drafter);
}

export function showLegend() {
  byId("legend").replaceChildren(
    ...looks().map(([look, name]) =>
      make("li", {}, make("span", { className: `token ${look}`, ariaHidden: "true" }, "abc"), ` ${name}`),
    ),
  );
}

/** [class, name] of every look that there is. */
export function looks() {
  const drafted = drafters.length ? drafters.map((d, i) => [`from-draft-${i % LOOKS}`, `${NAMES.draft} of ${d}`])
    : [["from-draft-0", NAMES.draft]];
  const others = ["correction", "bonus", "target"].map((source) => [`from-${source}`, NAMES[source]]);
  return [...drafted, ...others, ["discarded", DISCARDED]];
}
