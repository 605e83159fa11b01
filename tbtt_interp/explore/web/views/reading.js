/** What a probe says of this prompt, token by token, without having been fitted on it. */

import { makeBatch } from "../engine/batch.js";
import { forward } from "../engine/model.js";
import { probabilities } from "../engine/probe.js";
import { kept } from "../kept.js";
import { cellMap } from "../ui/cells.js";
import { h, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {string | number | boolean} Label */
/** @typedef {{rows: Float64Array[][], size: number}} Activations by example and position */

const WIDEST = 600; // channels that a probe is fitted on while one waits
/** @type {Map<string, Activations>} */
const known = new Map();

/** A hook's name, and the head where one is named, as in blocks.0.attn.hook_z.1. @param {string} site @returns {[string, number]} */
function splitHead(site) {
  const match = /^(.*hook_z)\.(\d+)$/.exec(site);
  return match ? [match[1], Number(match[2])] : [site, -1];
}

/** A node's activation at a site. @param {import("../engine/model.js").Activation} activation @param {number} node @param {number} head */
function at({ data, width, heads }, node, head) {
  const size = head < 0 ? width : width / heads;
  const start = node * width + Math.max(head, 0) * size;
  return data.slice(start, start + size);
}

/** The activations of every example's prompt at a site. @param {Scene} scene @param {string} site @returns {Activations} */
function ofExamples(scene, site) {
  return kept(known, `${scene.opened.key} ${site}`, 20, () => {
    const { model, task } = scene.opened;
    const [hook, head] = splitHead(site);
    const batch = makeBatch(task.tokens.map(({ prompt }) => prompt.slice(-model.shape.n_ctx)));
    const activation = forward(model, batch, { keep: (name) => name === hook }).cache.get(hook);
    if (!activation) throw new Error(`this model has no ${site}`);
    const rows = batch.nodes.map((nodes) => Array.from(nodes, (node) => at(activation, node, head)));
    return { rows, size: rows[0][0].length };
  });
}

/** Which examples a probe is fitted on: seen, with the feature, and not with this prompt's operands. @param {Scene} scene @param {(Label | null)[]} labels */
function fitted(scene, labels) {
  const { task } = scene.opened;
  const own = scene.example < 0 ? null : task.examples[scene.example].labels;
  const pair = (/** @type {Record<string, any>} */ { a, b }) => [a, b].sort().join();
  return task.examples.map((example, k) => {
    if (labels[k] === null || task.heldOut.has(k) || k === scene.example) return false;
    return own?.a === undefined || pair(example.labels) !== pair(own);
  });
}

/**
 * The probabilities of a feature's classes at each token of the prompt.
 * @param {Scene} scene @param {{feature: string, site: string}} probe @param {number} number @param {number} width
 */
export function reading(scene, { feature, site }, number, width) {
  const { task, run } = scene.opened;
  const labels = run.features[feature];
  if (!scene.said || !labels) return null;
  const examples = ofExamples(scene, site);
  if (examples.size > WIDEST)
    return h("p", { class: "quiet" }, `${examples.size} channels are more than this page fits a probe on: choose a narrower site.`);
  const classes = [...new Set(labels.filter((label) => label !== null))].sort((x, y) =>
    typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)),
  );
  const chosen = fitted(scene, labels);
  const numbers = [...labels.keys()].filter((k) => chosen[k]);
  const [hook, head] = splitHead(site);
  const activation = scene.cache.get(hook);
  const asked = scene.said.asked - scene.start;
  const shortest = Math.min(...examples.rows.map((row) => row.length));
  const places = Array.from({ length: Math.min(asked, shortest) }, (_, k) => k - Math.min(asked, shortest));
  if (!activation || !numbers.length) return null;
  const read = places.map((pos) => {
    const rows = numbers.map((k) => /** @type {Float64Array} */ (examples.rows[k].at(pos)));
    const fit = numbers.map((k) => classes.indexOf(/** @type {Label} */ (labels[k])));
    return probabilities(rows, fit, [at(activation, asked + pos, head)], classes.length)[0];
  });
  const truth = scene.example < 0 ? null : labels[scene.example];
  const map = cellMap({
    key: `${number}/reading`,
    label: `${feature} read token by token`,
    size: Math.max(24, Math.min(44, Math.floor((width - 70) / places.length))),
    height: classes.length > 12 ? 17 : 24,
    shade: (value) => value,
    rows: classes.map((label) => `${label}${label === truth ? " ✓" : ""}`),
    columns: places.map((pos) => visible(scene.names[asked + pos])),
    columnTitle: "token read",
    at: (row, column) => ({
      value: read[column][row],
      text: read[column][row] >= 0.005 ? read[column][row].toFixed(2) : "",
      tip: `${feature} ${classes[row]} at ${visible(scene.names[asked + places[column]])}: probability ${read[column][row].toFixed(3)}`,
    }),
  });
  const with_ = task.examples[scene.example]?.labels.a === undefined ? "not this prompt" : "none with these operands";
  return figure(
    {},
    h("h3", {}, `${feature} as a probe reads it from this prompt`),
    h("div", { class: "wide" }, map),
    h(
      "figcaption",
      {},
      `Probabilities by a probe of each token, fitted on ${numbers.length} prompts that this model has seen, ${with_}.${
        truth === null ? "" : " ✓ is true of this prompt."
      }${scene.changed ? " The prompt is read with what is knocked out." : ""}`,
    ),
  );
}
