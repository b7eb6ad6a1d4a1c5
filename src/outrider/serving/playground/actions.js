/** What can be done with an answer: its buttons. */

import { copy, save } from "./clipboard.js";
import { complain, make, tell } from "./dom.js";
import { asJSON, linkTo } from "./share.js";
import { picture } from "./picture.js";

/**
 * A toolbar. record: what was asked and answered, as share.js describes it; box: shows the answer, where there is
 * one alone, which can be copied, asked for again, and seen with the characters that mark its form.
 */
export function actions(record, box = null) {
  const bar = make("div", { className: "actions", role: "toolbar", ariaLabel: "Actions" });
  if (box) {
    const [{ reading }] = record.answers;
    bar.append(
      button("Copy", () => copy(reading.text), "The answer is copied."),
      again(),
      marks(box),
    );
  }
  bar.append(
    button("Copy link", () => copy(linkTo(record)), "The link is copied: prompt, seed and settings. The key is not in it."),
    button("Save JSON", () => save(new Blob([asJSON(record)], { type: "application/json" }), "outrider.json"), "Saved as JSON."),
    button("Save picture", async () => save(await picture(record), "outrider.png"), "Saved as a picture."),
  );
  return bar;
}

function button(label, act, done) {
  const element = make("button", { type: "button", className: "quiet" }, label);
  element.addEventListener("click", async () => {
    try {
      await act();
      tell(done);
    } catch (error) {
      complain(`${label} did not work: ${error.message}`);
    }
  });
  return element;
}

/** Only what runs requests can ask again: it hears of it by an event. */
function again() {
  const element = make("button", { type: "button", className: "quiet again starts" }, "Regenerate");
  element.addEventListener("click", () => element.dispatchEvent(new CustomEvent("again", { bubbles: true })));
  return element;
}

function marks(box) {
  const element = make("button", { type: "button", className: "quiet", ariaPressed: "false" }, "Show Markdown");
  element.addEventListener("click", () => {
    element.ariaPressed = String(box.classList.toggle("raw"));
  });
  return element;
}
