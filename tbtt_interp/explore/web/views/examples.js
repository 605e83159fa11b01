/** Every example in a table: its answer, what each model says, and by what margin. */

import { FILTERS } from "../state.js";
import { shortForm } from "../task.js";
import { button, h, signed, visible } from "../ui/dom.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */

/** @param {State} state */
export function examplesChoices(state) {
  return h(
    "div",
    { class: "choices" },
    h(
      "span",
      { class: "group", role: "group", "aria-label": "Examples shown" },
      h("span", { class: "quiet" }, "Show"),
      ...FILTERS.map((name) => button(`filter ${name}`, name, { "aria-pressed": String(state.filter === name) })),
    ),
  );
}

/** @param {Scene} scene @param {State} state */
export function examples(scene, state) {
  const { task } = scene.opened;
  const kept = task.examples
    .map((_, k) => k)
    .filter(
      (k) =>
        ({
          all: true,
          wrong: scene.margins[k] <= 0,
          "held-out": task.heldOut.has(k),
          carry: task.examples[k].labels.carry === true,
          borrow: task.examples[k].labels.borrow === true,
        })[state.filter],
    );
  const text = (/** @type {string} */ answer) => [...answer].map(visible).join("");
  const rows = kept.map((k) => {
    const example = task.examples[k];
    const right = scene.margins[k] > 0;
    return h(
      "tr",
      { class: k === scene.example ? "now" : null },
      h("td", {}, button(`prompt ${shortForm(example.prompt)}`, shortForm(example.prompt), { class: "quiet" })),
      h("td", {}, text(example.answer)),
      h(
        "td",
        { class: right ? "right" : "wrong" },
        Number.isNaN(scene.margins[k]) ? "…" : right ? "✓" : `✗ ${text(scene.wrong.get(k) ?? "")}`,
      ),
      h("td", { class: "number" }, signed(scene.margins[k])),
      h("td", {}, task.heldOut.has(k) ? "held out" : "seen"),
    );
  });
  const right = kept.filter((k) => scene.margins[k] > 0).length;
  return [
    h(
      "p",
      { class: "quiet" },
      `${kept.length} of ${task.examples.length} examples, ${right} of them answered; margins in nats. Click one to make it the prompt.`,
    ),
    h(
      "div",
      { class: "tall", tabindex: 0, role: "region", "aria-label": "Examples" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h("tr", {}, ...["prompt", "answer", "model says", "margin", "training"].map((name) => h("th", { scope: "col" }, name))),
        ),
        h("tbody", {}, ...rows),
      ),
    ),
  ];
}
