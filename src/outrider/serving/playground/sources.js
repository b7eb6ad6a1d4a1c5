/** How sources look and what they are called. Each drafter has a look of its own, in the order they turn up. */

import { byId, make } from "./dom.js";

const LOOKS = 4; // of drafters; a fifth looks like the first
const drafters = [];

const NAMES = {
  draft: "accepted draft",
  correction: "correction: the target's token where the draft was wrong",
  bonus: "bonus: the target's token after a draft that stood as a whole",
  target: "target alone: nothing was drafted",
};
const SHORT = { draft: "accepted draft", correction: "correction", bonus: "bonus", target: "target alone" };

export const nameOf = (token) => (token.drafter === null ? SHORT[token.source] : `accepted draft of ${token.drafter}`);

/** The class of a token, or of drafted tokens where only the drafter is given. */
export function lookOf({ source, drafter }) {
  return source === "draft" ? `from-draft-${rank(drafter) % LOOKS}` : `from-${source}`;
}

function rank(drafter) {
  if (!drafters.includes(drafter)) {
    drafters.push(drafter);
    showLegend();
  }
  return drafters.indexOf(drafter);
}

export function showLegend() {
  const drafted = drafters.length ? drafters.map((d, i) => [`from-draft-${i % LOOKS}`, `${NAMES.draft} of ${d}`])
    : [["from-draft-0", NAMES.draft]];
  const others = ["correction", "bonus", "target"].map((source) => [`from-${source}`, NAMES[source]]);
  const discarded = ["discarded", "discarded: drafted, but not what the target says"];
  byId("legend").replaceChildren(
    ...[...drafted, ...others, discarded].map(([look, name]) =>
      make("li", {}, make("span", { className: `token ${look}`, ariaHidden: "true" }, "text"), ` ${name}`),
    ),
  );
}
