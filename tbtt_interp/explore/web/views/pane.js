/** The head of a pane: which model it shows, and what that model answers. */

import { countWeights } from "../engine/model.js";
import { marginHere } from "../scene.js";
import { ablationText, edgeText } from "../state.js";
import { button, count, h, signed, visible } from "../ui/dom.js";
import { countsLine } from "./grids.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Pane} Pane */
/** @typedef {import("../source.js").Listed} Listed */

const SIZES = ["small", "medium", "large", "mlt"];
const FRAMINGS = { file: "file", shuffled: "shuffled", line: "whole lines" };

/** @param {string} name @param {string} label @param {[string, string][]} options @param {string} value @param {number} pane */
function select(name, label, options, value, pane) {
  const control = h(
    "select",
    { "data-choose": name, "data-pane": pane, "data-key": `${pane}/${name}` },
    ...options.map(([key, words]) => h("option", { value: key, selected: key === value }, words)),
  );
  return h("label", { class: "choice" }, h("span", {}, label), control);
}

/**
 * Controls of a pane: task, size, framing, seed, each a few values.
 * @param {Listed[]} runs @param {Pane} pane @param {number} number @param {number} seed
 */
export function controls(runs, pane, number, seed) {
  const now = runs.find((row) => row.name === pane.run);
  const parts = [];
  const inOrder = (/** @type {string[]} */ values) =>
    [...new Set(values)].sort((a, b) => ((SIZES.indexOf(a) + 99) % 99) - ((SIZES.indexOf(b) + 99) % 99));
  const regular = now && runs.filter((r) => r.task === now.task && r.size === now.size && r.framing === now.framing).length === 1;
  if (now && regular && runs.length > 3) {
    const tasks = inOrder(runs.map((r) => r.task));
    const sizes = inOrder(runs.filter((r) => r.task === now.task).map((r) => r.size));
    const framings = runs.filter((r) => r.task === now.task && r.size === now.size).map((r) => r.framing);
    if (tasks.length > 1)
      parts.push(
        select(
          "task",
          "task",
          tasks.map((t) => [t, t]),
          now.task,
          number,
        ),
      );
    parts.push(
      select(
        "size",
        "size",
        sizes.map((t) => [t, t]),
        now.size,
        number,
      ),
    );
    parts.push(
      select(
        "framing",
        "trained on",
        [...new Set(framings)].map((f) => [f, /** @type {any} */ (FRAMINGS)[f] ?? f]),
        now.framing,
        number,
      ),
    );
  } else {
    parts.push(
      select(
        "run",
        "run",
        runs.map((r) => [r.name, r.name]),
        pane.run,
        number,
      ),
    );
  }
  parts.push(
    select(
      "seed",
      "seed",
      (now?.seeds ?? []).map((k) => [String(k), String(k)]),
      String(seed),
      number,
    ),
  );
  return h("div", { class: "model" }, ...parts);
}

/** What the model says to the prompt, and how sure it is. @param {Scene} scene @param {State} state */
export function answerLine(scene, state) {
  const { task } = scene.opened;
  if (scene.strange.length) {
    const marked = [...scene.text].map((c) => (task.index.has(c) ? c : h("mark", {}, visible(c))));
    return h(
      "div",
      { class: "answer" },
      h("p", { class: "typed" }, ...marked),
      h(
        "p",
        { class: "message" },
        `This model has no token for ${scene.strange.map((c) => `“${c}”`).join(", ")}. Its characters are ${[...task.run.vocabulary].map(visible).join("")}`,
      ),
    );
  }
  if (!scene.said)
    return h("div", { class: "answer" }, h("p", { class: "message note", role: "status" }, scene.far?.words ?? scene.advice));
  const { said } = scene;
  const answer = said.tokens.slice(said.asked);
  const tokens = answer.map((token, k) => {
    const logits = said.logits[k];
    const top = Math.max(...logits);
    const total = logits.reduce((sum, x) => sum + Math.exp(x - top), 0);
    const probability = Math.exp(logits[token] - top) / total;
    return h(
      "span",
      { class: "token said", title: `probability ${probability.toFixed(3)}` },
      visible(task.characters[token]),
      h("small", {}, probability.toFixed(2)),
    );
  });
  const parts = [
    h("div", { class: "strip" }, h("span", { class: "asked" }, [...scene.text].map(visible).join("")), ...tokens, ...verdict(scene)),
  ];
  if (scene.before) {
    const was = task.decode(scene.before.tokens.slice(scene.before.asked));
    parts.push(h("p", { class: "quiet" }, `Without these changes it says ${[...was].map(visible).join("")}`));
  }
  if (scene.advice) parts.push(h("p", { class: "message note" }, scene.advice));
  if (scene.start)
    parts.push(
      h(
        "p",
        { class: "quiet" },
        `The context is ${scene.opened.model.shape.n_ctx} characters: the first ${scene.start} of the prompt are not read.`,
      ),
    );
  void state;
  return h("div", { class: "answer" }, ...parts);
}

/** @param {Scene} scene */
function verdict(scene) {
  const { task } = scene.opened;
  const margin = marginHere(scene);
  if (margin === null || scene.example < 0) {
    return [h("span", { class: "verdict" }, `no known answer; the likeliest character leads by ${signed(scene.said?.margin ?? 0)} nats`)];
  }
  const example = task.examples[scene.example];
  const out = task.heldOut.has(scene.example) ? "held out" : "seen in training";
  const right = margin > 0;
  return [
    h(
      "span",
      { class: `verdict ${right ? "right" : "wrong"}` },
      right ? "✓ right" : `✗ wrong, it is ${example.answer.replace(/[>\s]+$/, "")}`,
    ),
    h("span", { class: "quiet" }, `${out}; margin `, h("b", {}, signed(margin)), " nats"),
  ];
}

/** The changes in force, each with a button that undoes it. @param {Scene} scene @param {Pane} pane @param {number} number */
export function changes(scene, pane, number) {
  const at = (/** @type {number} */ k) =>
    `${visible(scene.text[k] ?? scene.opened.task.characters[scene.said?.tokens[k] ?? 0])} at ${k + 1}`;
  const chips = [
    ...pane.cuts.map((e) =>
      button(`cut ${edgeText(e)}`, `✕ edge ${e.layer}.${e.head}: ${at(e.query)} → ${at(e.key)}`, {
        "data-pane": number,
        title: "undo this knock-out",
      }),
    ),
    ...pane.off.map((o) =>
      button(`off ${ablationText(o)}`, `✕ ${o.kind} ${o.layer}${o.kind === "mlp" ? "" : `.${o.unit}`} set to 0`, {
        "data-pane": number,
        title: "undo this ablation",
      }),
    ),
  ];
  if (!chips.length) return null;
  return h(
    "div",
    { class: "chips" },
    h("span", {}, "Changed:"),
    ...chips,
    button("undo", "undo all", { "data-pane": number, class: "quiet" }),
  );
}

/** A pane's name, step and counts. @param {Scene} scene @param {Pane} pane */
export function status(scene, pane) {
  const { step, steps, run } = scene.opened;
  const kept = steps.length > 1 ? `${steps.indexOf(step) + 1} of ${steps.length} kept` : "the only one kept of this seed";
  return h(
    "div",
    { class: "status" },
    countsLine(scene, pane.cuts.length),
    scene.far && scene.far.done < scene.margins.length
      ? h("p", { role: "status" }, `${scene.far.done} of ${scene.margins.length} examples asked so far…`)
      : null,
    h("p", { class: "quiet" }, `step ${count(step)} of ${count(run.steps)}, ${kept}; ${count(countWeights(run.shape))} weights`),
  );
}
