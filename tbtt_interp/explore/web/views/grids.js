/** The grids of operands: which equations a model answers, and by how much. */

import { counts } from "../scene.js";
import { shortForm } from "../task.js";
import { cellMap, slow } from "../ui/cells.js";
import { h, s, signed, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../scene.js").Scene} Scene */

export const HALF = 6; // nats of margin at which a cell has half its shade

/**
 * Both grids of a model, or the share of other tasks' examples that it answers.
 * @param {Scene} scene @param {string} pane @param {number} size of a cell
 */
export function operandGrids(scene, pane, size) {
  const { task } = scene.opened;
  if (!task.grids.length) return [exampleGrid(scene, pane, size)];
  return task.grids.map((grid) => {
    const sign = grid.operator === "-" ? "−" : grid.operator;
    const map = cellMap({
      key: `${pane}/grid${grid.operator}`,
      size,
      shade: slow(HALF),
      label: `a ${sign} b: margin of each equation`,
      rows: grid.rows.map(String),
      columns: grid.columns.map(String),
      rowTitle: "a",
      columnTitle: `a ${sign} b, by b`,
      at: (row, column) => cellOf(scene, grid.cells[row][column], size),
    });
    return figure({ class: "grid" }, h("h3", { class: "unseen" }, `Margins of a ${sign} b, nats`), map);
  });
}

/** @param {Scene} scene @param {number} k @param {number} size */
function cellOf(scene, k, size) {
  const { task } = scene.opened;
  const example = task.examples[k];
  const margin = scene.margins[k];
  const out = task.heldOut.has(k);
  const answer = scene.wrong.get(k);
  const right = example.answer.replace(/[>\s]+$/, "");
  const own = answer?.replace(/[>\s]+$/, "") ?? right;
  const off = answer && /^-?\d+$/.test(own) ? `, off by ${signed(Number(own) - Number(right), 0)}` : "";
  return {
    value: margin,
    ring: out,
    pressed: undefined,
    text: answer !== undefined && size >= 22 ? [...own].map(visible).join("").slice(0, 4) || "?" : "",
    tip: `${shortForm(example.prompt)} = ${right}: ${
      Number.isNaN(margin) ? "not computed yet" : answer === undefined ? "right" : `wrong, says ${[...answer].map(visible).join("")}${off}`
    }, margin ${signed(margin)} nats${out ? ", held out" : ""}`,
    act: `prompt ${shortForm(example.prompt)}`,
    lit: k === scene.example,
  };
}

/** Examples without operands, as one strip of cells. @param {Scene} scene @param {string} pane @param {number} size */
function exampleGrid(scene, pane, size) {
  const { task } = scene.opened;
  const across = 10;
  const rows = Math.ceil(task.examples.length / across);
  return figure(
    { class: "grid" },
    h("h3", { class: "unseen" }, "Margins of all examples, nats"),
    cellMap({
      key: `${pane}/examples`,
      size,
      shade: slow(HALF),
      label: "Margin of each example",
      rows: Array(rows).fill(""),
      columns: Array(across).fill(""),
      columnTitle: `${task.examples.length} examples`,
      at: (row, column) => {
        const k = row * across + column;
        return k < task.examples.length ? { ...cellOf(scene, k, 0), text: "" } : null;
      },
    }),
  );
}

/** What the shades mean. */
export function legend() {
  const swatch = (/** @type {number} */ value, /** @type {string} */ words) => {
    const shade = 0.05 + slow(HALF)(Math.abs(value)) * 0.65;
    const kind = value < 0 ? "neg" : "pos";
    return h(
      "span",
      { class: "swatch" },
      s(
        "svg",
        { width: 14, height: 14, "aria-hidden": "true" },
        s("rect", { width: 14, height: 14, rx: 2, class: `cell ${kind}`, "fill-opacity": shade.toFixed(2) }),
      ),
      words,
    );
  };
  const ring = h(
    "span",
    { class: "swatch" },
    s("svg", { width: 14, height: 14, "aria-hidden": "true" }, s("rect", { x: 1.5, y: 1.5, width: 11, height: 11, rx: 2, class: "ring" })),
    "held out of training",
  );
  return h(
    "p",
    { class: "legend" },
    swatch(30, "right, margin 30 nats"),
    swatch(2, "2"),
    swatch(-2, "wrong, −2"),
    swatch(-30, "−30"),
    ring,
  );
}

/** How many examples are right, beside how many before changes. @param {Scene} scene @param {number} cuts edges that are knocked out */
export function countsLine(scene, cuts) {
  const now = counts(scene);
  const before = scene.marginsBefore ? counts(scene, scene.marginsBefore) : null;
  const part = (
    /** @type {string} */ name,
    /** @type {number} */ right,
    /** @type {number} */ of,
    /** @type {number | undefined} */ was,
  ) => (of ? h("span", {}, `${name} `, h("b", {}, `${right}/${of}`), was !== undefined && was !== right ? ` (before: ${was})` : "") : null);
  return h(
    "p",
    { class: "counts" },
    part("seen in training", now.seen, now.seenOf, before?.seen),
    part("held out", now.heldOut, now.heldOutOf, before?.heldOut),
    cuts && !scene.opened.answers.fits
      ? "These are without the knock-outs: some prompts are longer than the context, so an edge is not at the same place in all of them."
      : null,
  );
}
