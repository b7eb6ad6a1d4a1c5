/** Making elements. Texts are only ever set as text, never as markup: they come from a model. */

/** An element. properties: of the object, such as className; children: elements and texts. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Tells a screen reader what changed, and shows it to everybody. */
export function tell(text) {
  byId("status").textContent = text;
}

export function complain(text) {
  byId("alert").textContent = text;
}

export const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
export const rounded = (value, digits = 1) => (value === null ? "–" : value.toFixed(digits));
export const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);

/** White space that can be seen: a token is often nothing else. */
export const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
