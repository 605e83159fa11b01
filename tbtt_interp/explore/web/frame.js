/** What of the page stays, whatever is on screen: its controls, and places for the rest. */

import { button, h } from "./ui/dom.js";
import { VIEWS } from "./state.js";

/** @type {Record<string, string>} */
const WORDS = {
  story: "Story",
  flow: "Data flow",
  attention: "Attention",
  patching: "Patching",
  inside: "Inside",
  order: "Line order",
  examples: "Examples",
  probes: "Probes",
  ladder: "Ladder",
  train: "Train here",
};

/**
 * @param {{title: string}[]} stories whose runs are here
 * @returns {import("./ui/dom.js").Child[]}
 */
export function frame(stories) {
  const input = (/** @type {string} */ id, /** @type {string} */ words) =>
    h(
      "label",
      { class: "prompt", id: `${id}-label` },
      h("span", {}, words),
      h("input", { id, type: "text", spellcheck: "false", autocomplete: "off", autocapitalize: "off" }),
    );
  return [
    h(
      "header",
      {},
      h("h1", {}, "tbtt explorer"),
      input("prompt", "Prompt"),
      input("corrupt", "Corrupted prompt"),
      h("nav", { "aria-label": "Views" }, ...VIEWS.filter((v) => v in WORDS).map((view) => button(`view ${view}`, WORDS[view]))),
      h("span", { class: "end" }, button("copy", "Copy link", { class: "quiet" })),
    ),
    h("div", { class: "stories", role: "group", "aria-label": "Stories" }, ...stories.map(({ title }, k) => button(`story ${k}`, title))),
    h("p", { id: "story", "aria-live": "polite" }),
    h("p", { id: "dropped", class: "quiet", role: "status" }),
    h("div", { id: "problems", role: "alert" }),
    h(
      "div",
      { class: "time" },
      button("play", "▶ play training", { id: "play" }),
      h(
        "label",
        {},
        h("span", { class: "unseen" }, "Training step of both models"),
        h("input", { id: "step", type: "range", min: 0, max: 1, step: 1 }),
      ),
      h("output", { id: "step-words", for: "step" }),
    ),
    h("div", { id: "shared" }),
    h("main", {}, ...[0, 1].map((k) => h("section", { id: `pane-${k}`, "data-pane": k, "aria-label": `Model ${"AB"[k]}` }))),
    h(
      "footer",
      { class: "quiet" },
      h(
        "details",
        {},
        h("summary", {}, "About this page"),
        h(
          "p",
          {},
          "Everything here is computed in this browser, in float64, from the models' float32 weights; nothing is sent anywhere. A margin is the logit of the right character minus the best wrong one's, at its smallest over the answer, in nats.",
        ),
        h(
          "p",
          {},
          "Checked: over the 270 checkpoints that ship with the package, the logits differ from TransformerLens' by at most 0.000003 of the largest logit, and every activation by at most 0.00002 of it; gradients agree with torch's to 0.00000005 of each tensor's largest.",
        ),
      ),
    ),
  ];
}
