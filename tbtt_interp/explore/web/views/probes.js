/** What linear probes read: accuracy of every feature at every site, each compared with its nulls. */

import { readProbe } from "../state.js";
import { canCompute, readProbes } from "../source.js";
import { button, h, s, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";
import { reading } from "./reading.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {import("../models.js").Opened} Opened */
/** @typedef {import("../source.js").ProbeTable} ProbeTable */
/** @typedef {{feature: number, site: number, pos: number}} Place indices into a table */
/** @typedef {{name: string, value: number}} Baseline */

const WHY = [
  "",
  "every prompt has the same activation here",
  "before the first layer there is only the token and its position",
  "a probe of the text alone is always right",
];
const WAIT = "Computing: seconds for a small model, minutes for a large one. You can use the page meanwhile.";

/** @type {Map<string, ProbeTable | Error | "asked">} */
const tables = new Map();
const keyOf = (/** @type {Opened} */ opened) => `${opened.number}/${opened.place}`;

/** Asks for a model's table and draws again when it is there. @param {Opened | null} opened */
export function askForProbes(opened) {
  if (!opened || opened.key.startsWith("page/")) return;
  const key = keyOf(opened);
  tables.set(key, "asked");
  readProbes(opened.number, opened.place)
    .then(
      (table) => tables.set(key, table),
      (error) => tables.set(key, error),
    )
    .then(() => document.dispatchEvent(new CustomEvent("redraw")));
}

/** How to read the dots, for both panes. */
export function probesLegend() {
  const dot = (/** @type {string} */ kind) =>
    s(
      "svg",
      { width: 14, height: 12, viewBox: "0 0 14 12" },
      s("circle", { cx: 7, cy: 6, r: kind === "null" ? 2.8 : 4, class: `probe ${kind}` }),
    );
  const key = (/** @type {import("../ui/dom.js").Drawn} */ mark, /** @type {string} */ words) =>
    h("span", { class: "swatch" }, mark, words);
  return h(
    "div",
    { class: "legend" },
    key(dot("above"), "accuracy, with its 95 % interval above every null"),
    key(dot("beside"), "accuracy not above its highest null"),
    key(dot("null"), "a null"),
    key(h("span", { class: "trivial-key" }), "nothing to find: hover to see why"),
  );
}

/** One model's probes. @param {Scene} scene @param {State} state @param {number} number @param {number} width */
export function probes(scene, state, number, width) {
  const { opened } = scene;
  if (!tables.has(keyOf(opened)) && opened.run.checkpoints[opened.place].probes) askForProbes(opened);
  const table = tables.get(keyOf(opened));
  if (table === undefined || table instanceof Error) return [absent(table, number)];
  if (table === "asked")
    return [h("p", { class: "message note", role: "status" }, opened.run.checkpoints[opened.place].probes ? "Loading the probes." : WAIT)];
  const place = chosen(table, state);
  const half = width < 560 ? width : Math.floor((width - 24) / 2);
  const name = `${table.features[place.feature]}@${table.sites[place.site]}@${table.positions[place.pos]}`;
  return [
    positions(scene, table, place, number),
    strips(scene, table, place, number, width),
    h("div", { class: "pair probe-pair" }, detail(scene, table, place, half), reading(scene, readProbe(name), number, half)),
  ];
}

/** What stands where there is no table. @param {Error | undefined} error @param {number} number */
function absent(error, number) {
  if (error) return h("div", { class: "message" }, error.message, " ", button("compute", "Try again", { "data-pane": number }));
  if (!canCompute())
    return h(
      "p",
      { class: "message note" },
      "The probes of this checkpoint are not in this page: open the run by tbtt explore RUN and compute them there, or write the page with --probes.",
    );
  return h(
    "div",
    { class: "message note" },
    "The probes of this checkpoint have not been computed yet. ",
    button("compute", "Compute them", { "data-pane": number }),
  );
}

/** The cell that the address names, or the first that can tell something. @param {ProbeTable} table @param {State} state @returns {Place} */
function chosen(table, state) {
  const last = { site: table.sites.length - 1, pos: table.positions.length - 1 };
  const wanted = state.probe ? readProbe(state.probe) : { feature: "carry", site: "", pos: -1 };
  const feature = table.features.indexOf(wanted.feature);
  const site = table.sites.indexOf(wanted.site);
  const pos = table.positions.indexOf(wanted.pos);
  return { feature: Math.max(feature, 0), site: site < 0 ? last.site : site, pos: pos < 0 ? last.pos : pos };
}

/** A site without the words that all have. @param {string} site @param {string[]} sites all of them */
function shortSite(site, sites) {
  const heads = sites.filter((one) => one.includes("hook_z")).length;
  const layers = sites.filter((one) => one.endsWith("hook_resid_post")).length;
  const name = site.replace(
    /^blocks\.(\d+)\.(?:attn\.)?(mlp\.)?hook_/,
    (_, layer, mlp) => `${layers > 1 ? `${layer} ` : ""}${mlp ? "mlp " : ""}`,
  );
  return heads > layers ? name : name.replace(/z\.0$/, "z");
}

/** A site's name over a column, without what there is no room for. @param {string} site @param {string[]} sites @param {number} wide */
const siteLabel = (site, sites, wide) => shortSite(site, sites).replace(wide < 56 ? /resid_|_out| post$/ : "", "");

/** The prompt's token at a position that is counted from its last; "" where it has none. @param {Scene} scene @param {number} pos */
export function tokenAt(scene, pos) {
  const asked = scene.said ? scene.said.asked - scene.start : 0;
  return visible(scene.names[asked + pos] ?? "");
}

/** The tokens whose activations can be probed. @param {Scene} scene @param {ProbeTable} table @param {Place} place @param {number} number */
function positions(scene, table, place, number) {
  return h(
    "div",
    { class: "group", role: "group", "aria-label": "Probes read at" },
    h("span", { class: "quiet" }, "Probes read at token"),
    ...table.positions.map((pos, k) =>
      button(
        `probe ${table.features[place.feature]}@${table.sites[place.site]}@${pos}`,
        [h("span", { class: "name" }, tokenAt(scene, pos) || "·"), ` ${pos}`.replace("-", "−")],
        {
          "data-pane": number,
          "aria-pressed": String(k === place.pos),
          "aria-label": `position ${pos}`,
          "data-key": `${number}/position/${pos}`,
        },
      ),
    ),
    table.positions.length > 1 ? null : h("span", { class: "quiet" }, "(more at the last step)"),
  );
}

/** The nulls of a cell, by name, highest last. @param {ProbeTable} table @param {Place} place @returns {Baseline[]} */
function nullsOf(table, { feature, site, pos }) {
  const found = [
    { name: "control tasks", value: table.control[feature]?.[site][pos] },
    { name: "other thresholds", value: table.thresholds[feature]?.[site][pos] },
    { name: "operands as numbers", value: table.operands?.[feature][site] },
    { name: "one-hot text", value: table.one_hot[feature] },
    { name: "untrained model", value: table.untrained[feature][site][pos] },
    { name: "commonest class", value: table.majority[feature] },
  ];
  const known = /** @type {Baseline[]} */ (found.filter(({ value }) => value !== null && value !== undefined));
  return known.toSorted((a, b) => a.value - b.value);
}

/** What is known of one cell, in shares. @param {ProbeTable} table @param {Place} place */
function cellOf(table, place) {
  const { feature, site, pos } = place;
  const share = (/** @type {number | null | undefined} */ x) => (x === null || x === undefined ? null : x / 1000);
  const accuracy = table.accuracy[feature][site][pos] / 1000;
  const [low, high] = [share(table.low[feature]?.[site][pos]), share(table.high[feature]?.[site][pos])];
  const nulls = nullsOf(table, place).map(({ name, value }) => ({ name, value: value / 1000 }));
  const highest = nulls[nulls.length - 1];
  const n = table.seeds.length;
  const above = n > 2 && low !== null && low > highest.value;
  const interval = low === null || high === null ? "" : ` [${low.toFixed(2)}, ${high.toFixed(2)}]`;
  const words = `${accuracy.toFixed(2)}${interval}, n = ${n} model${n > 1 ? "s" : ""}`;
  return { accuracy, low, high, nulls, highest, above, words, why: WHY[table.trivial[feature][site][pos]] };
}

/** @param {ProbeTable} table @param {Place} place */
function heldOut(table, { feature, site, pos }) {
  const of = table.held_out_of[feature];
  return of ? `${table.held_out[feature][site][pos]} of ${of} held-out labels decoded by a probe fitted on seen examples` : "";
}

/** Every feature at every site, each a strip from 0 to 1. @param {Scene} scene @param {ProbeTable} table @param {Place} now @param {number} number @param {number} width */
function strips(scene, table, now, number, width) {
  const [left, top, tall] = [72, 20, 25];
  const wide = Math.max(45, Math.floor((width - left - 2) / table.sites.length));
  const [all, height] = [left + wide * table.sites.length + 2, top + tall * table.features.length + 16];
  const parts = table.sites.map((site, k) =>
    s("text", { x: left + (k + 0.5) * wide, y: 13, class: `axis middle${wide < 70 ? " small" : ""}` }, siteLabel(site, table.sites, wide)),
  );
  table.features.forEach((name, r) => {
    parts.push(s("text", { x: left - 6, y: top + (r + 0.5) * tall + 4, class: "name end" }, name));
    table.sites.forEach((site, c) => {
      const place = { feature: r, site: c, pos: now.pos };
      const cell = cellOf(table, place);
      const [x0, y0] = [left + c * wide, top + r * tall];
      const x = (/** @type {number} */ share) => x0 + 7 + share * (wide - 14);
      const y = y0 + tall / 2;
      const nulls = cell.nulls.map((one) => `${one.name} ${one.value.toFixed(2)}`).reverse();
      const tip = [
        `${name} at ${shortSite(site, table.sites)}, read at ${tokenAt(scene, table.positions[now.pos])}: ${cell.words}`,
        ...nulls,
        heldOut(table, place),
        cell.why && `greyed: ${cell.why}`,
      ];
      parts.push(
        s("rect", {
          x: x0 + 0.5,
          y: y0 + 0.5,
          width: wide - 1,
          height: tall - 1,
          rx: 2,
          class: `cell strip${cell.why ? " trivial" : ""}${r === now.feature && c === now.site ? " lit" : ""}`,
          role: "button",
          tabindex: r === now.feature && c === now.site ? 0 : -1,
          "aria-pressed": String(r === now.feature && c === now.site),
          "aria-label": tip.filter(Boolean).join("; "),
          "data-value": cell.accuracy,
          "data-act": `probe ${name}@${site}@${table.positions[now.pos]}`,
          "data-key": `${number}/probes/${r}/${c}`,
        }),
        dots(cell, x, y),
      );
    });
  });
  const ends = table.sites.flatMap((_, k) => [
    s("text", { x: left + k * wide + 7, y: height - 4, class: "axis middle" }, "0"),
    s("text", { x: left + (k + 1) * wide - 7, y: height - 4, class: "axis middle" }, "1"),
  ]);
  return figure(
    {},
    h("h3", {}, "Accuracy of each feature at each site, compared with its nulls"),
    h(
      "div",
      { class: "wide" },
      s(
        "svg",
        {
          class: "cells",
          width: all,
          height,
          viewBox: `0 0 ${all} ${height}`,
          role: "group",
          "data-map": `${number}/probes`,
          "aria-label": "Probes. Arrow keys move from cell to cell.",
        },
        ...parts,
        ...ends,
      ),
    ),
    h(
      "figcaption",
      {},
      `Cross-validated; folds keep 3+4, 4+3, 3−4 and 4−3 together. ${table.seeds.length > 1 ? `Mean over ${table.seeds.length} models` : "One model, so no interval"}, ${table.controls} control tasks per feature. Click a cell for its nulls by name.`,
    ),
  );
}

/** The dots of one strip. @param {ReturnType<typeof cellOf>} cell @param {(share: number) => number} x @param {number} y */
function dots(cell, x, y) {
  return s(
    "g",
    { class: `dots${cell.why ? " trivial" : ""}` },
    ...cell.nulls.map((one) => s("circle", { cx: x(one.value), cy: y, r: 2.8, class: "probe null" })),
    cell.low === null || cell.high === null ? null : s("line", { x1: x(cell.low), x2: x(cell.high), y1: y, y2: y, class: "interval" }),
    s("circle", { cx: x(cell.accuracy), cy: y, r: 4, class: `probe ${cell.above ? "above" : "beside"}` }),
  );
}

/** One cell with its nulls by name. @param {Scene} scene @param {ProbeTable} table @param {Place} place @param {number} width */
function detail(scene, table, place, width) {
  const cell = cellOf(table, place);
  const [left, right, tall] = [128, 34, 22];
  const x = (/** @type {number} */ share) => left + 6 + share * (width - left - right - 12);
  const rows = [...cell.nulls.toReversed()];
  const height = 20 + (rows.length + 1) * tall + 4;
  const row = (
    /** @type {string} */ name,
    /** @type {number} */ value,
    /** @type {number} */ k,
    /** @type {import("../ui/dom.js").Drawn[]} */ marks,
  ) => [
    s("text", { x: left - 6, y: 20 + k * tall + 15, class: k ? "end axis" : "end" }, name),
    s("line", { x1: x(0), x2: x(1), y1: 20 + k * tall + 11, y2: 20 + k * tall + 11, class: "rule" }),
    ...marks,
    s(
      "text",
      {
        x: width - 2,
        y: 20 + k * tall + 15,
        class: k ? "end axis" : "end",
        "data-tip": `${name} ${value.toFixed(3)}`,
        "data-value": value,
      },
      value.toFixed(2),
    ),
  ];
  const drawing = s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "The chosen probe and its nulls" },
    ...[0, 0.5, 1].map((share) => s("text", { x: x(share), y: 12, class: "axis middle" }, String(share))),
    ...row("accuracy", cell.accuracy, 0, [dots({ ...cell, nulls: [] }, x, 31)]),
    ...rows.flatMap((one, k) =>
      row(one.name, one.value, k + 1, [s("circle", { cx: x(one.value), cy: 31 + (k + 1) * tall, r: 4, class: "probe null" })]),
    ),
  );
  const { name, value } = cell.highest;
  const verdict = cell.why
    ? `Nothing to find here: ${cell.why}.`
    : cell.above
      ? `Above its highest null, ${name}, ${value.toFixed(2)}.`
      : `${table.seeds.length > 2 ? "Not above" : "One or two models are too few for a verdict; compare"} its highest null, ${name}, ${value.toFixed(2)}.`;
  const title = `${table.features[place.feature]} at ${shortSite(table.sites[place.site], table.sites)}, read at ${tokenAt(scene, table.positions[place.pos])}`;
  return figure(
    { class: "probe-detail" },
    h("h3", {}, title),
    drawing,
    h("figcaption", {}, `Accuracy ${cell.words}. ${verdict} ${heldOut(table, place)}${table.held_out_of[place.feature] ? "." : ""}`),
  );
}
