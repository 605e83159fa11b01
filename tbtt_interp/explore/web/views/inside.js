/** Inside a model: the digits' embeddings, neurons over the operands, logit lens, attribution. */

import { argmax, product } from "../engine/numbers.js";
import { principalPlane } from "../engine/geometry.js";
import { cellMap } from "../ui/cells.js";
import { tooLarge } from "../scene.js";
import { figure, savedAs } from "../ui/saving.js";
import { button, h, painted, s, signed, visible } from "../ui/dom.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").Pane} Pane */

const SIDE = 4; // pixels of a cell in a neuron's picture

/** @param {Scene} scene @param {Pane} pane @param {number} number @param {number} width */
export function inside(scene, pane, number, width) {
  return [
    h("div", { class: "pair" }, digits(scene, Math.min(280, width)), lens(scene, number, Math.min(width, 420))),
    neurons(scene, pane, number),
  ];
}

/** The digits' embeddings on their first two principal components, joined 0 to 9. @param {Scene} scene @param {number} width */
function digits(scene, width) {
  const { task, model } = scene.opened;
  const d = model.shape.d_model;
  const known = [..."0123456789"].filter((c) => task.index.has(c));
  if (known.length < 10) return h("p", { class: "quiet" }, "This task has no digits.");
  const rows = known.map((c) => model.embed.subarray((task.index.get(c) ?? 0) * d, ((task.index.get(c) ?? 0) + 1) * d));
  const { points, shares } = principalPlane(rows);
  const reach = Math.max(...points.flat().map(Math.abs), 1e-9);
  const [size, edge] = [width, 18];
  const x = (/** @type {number} */ v) => size / 2 + (v / reach) * (size / 2 - edge);
  const at = points.map(([a, b]) => [x(a), x(-b)]);
  const drawing = s(
    "svg",
    { width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "Digits on two principal components" },
    s("line", { x1: 0, x2: size, y1: size / 2, y2: size / 2, class: "rule" }),
    s("line", { y1: 0, y2: size, x1: size / 2, x2: size / 2, class: "rule" }),
    s("polyline", { points: at.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" "), class: "curve" }),
    ...at.flatMap(([px, py], k) => [
      s("circle", {
        cx: px,
        cy: py,
        r: 9,
        class: "dot",
        "data-tip": `digit ${known[k]}: ${signed(points[k][0])}, ${signed(points[k][1])}`,
      }),
      s("text", { x: px, y: py + 4, class: "middle name" }, known[k]),
    ]),
  );
  return figure(
    {},
    h("h3", {}, "Digits' embeddings"),
    drawing,
    h(
      "figcaption",
      {},
      `Two principal components, ${(100 * shares[0]).toFixed(0)} % and ${(100 * shares[1]).toFixed(0)} % of the variance.`,
    ),
  );
}

/** The likeliest next token read from the stream after each part. @param {Scene} scene @param {number} number @param {number} width */
function lens(scene, number, width) {
  const { task, model } = scene.opened;
  if (!scene.said) return null;
  const { layers, d_model: d, d_vocab } = model.shape;
  const sites = ["blocks.0.hook_resid_pre"];
  for (let layer = 0; layer < layers; layer++) sites.push(`blocks.${layer}.hook_resid_mid`, `blocks.${layer}.hook_resid_post`);
  const gain = model.tensor("ln_final.w").data;
  const bias = model.parameters.get("ln_final.b")?.data;
  const read = sites.map((site) => {
    const stream = scene.cache.get(site)?.data ?? new Float64Array(0);
    return scene.names.map((_, k) => {
      const x = Float64Array.from(stream.subarray(k * d, (k + 1) * d));
      const mean = x.reduce((a, b) => a + b, 0) / d;
      const scale = Math.sqrt(x.reduce((a, b) => a + (b - mean) ** 2, 0) / d + 1e-5);
      const logits = product(
        x.map((v, c) => ((v - mean) / scale) * gain[c] + (bias ? bias[c] : 0)),
        model.unembed,
        1,
        d_vocab,
        d,
      );
      const best = argmax(logits, 0, d_vocab);
      const top = logits[best];
      const total = logits.reduce((sum, v) => sum + Math.exp(v - top), 0);
      const five = [...logits.keys()]
        .sort((a, b) => logits[b] - logits[a])
        .slice(0, 5)
        .map((t) => `${visible(task.characters[t])} ${(Math.exp(logits[t] - top) / total).toFixed(3)}`)
        .join(", ");
      return { best, probability: 1 / total, five };
    });
  });
  const size = Math.max(26, Math.min(44, Math.floor((width - 120) / scene.names.length)));
  const map = cellMap({
    key: `${number}/lens`,
    label: "Logit lens",
    size,
    height: 26,
    shade: (v) => v,
    rows: sites.map((site) => site.replace("blocks.", "").replace(".hook_", " ")),
    columns: scene.names.map(visible),
    columnTitle: "token read",
    at: (row, column) => {
      const { best, probability, five } = read[row][column];
      return {
        value: probability,
        text: visible(task.characters[best]),
        tip: `after ${visible(scene.names[column])}, read at ${sites[row]}: ${five}`,
      };
    },
  });
  return figure(
    {},
    h("h3", {}, "Logit lens: the next character as each stream predicts it"),
    h("div", { class: "wide" }, map),
    h(
      "figcaption",
      {},
      "The stream after each part, through the last LayerNorm and the unembedding. Only the last row was trained to be read in this way; early rows may mislead. Point at a cell for the five likeliest.",
    ),
  );
}

/** Each neuron's activation at “=” over all operands; a click sets the neuron to 0. @param {Scene} scene @param {Pane} pane @param {number} number */
export function neurons(scene, pane, number) {
  const { task, model, answers } = scene.opened;
  if (!task.grids.length) return null;
  if (scene.far) return h("p", { class: "message note" }, tooLarge(scene, "Every neuron over every equation"));
  const layer = Math.min(pane.layer, model.shape.layers - 1);
  const site = `blocks.${layer}.mlp.hook_post`;
  const found = scene.fed().get(site);
  if (!found) return null;
  /** @type {Map<number, number>} */
  const nodeOf = new Map();
  answers.example.forEach((example, k) => {
    if (!nodeOf.has(example)) nodeOf.set(example, answers.node[k]);
  });
  const m = model.shape.d_mlp;
  const value = (/** @type {number} */ example, /** @type {number} */ unit) => found.data[(nodeOf.get(example) ?? 0) * m + unit];
  const apart = 2 + SIDE * Math.max(...task.grids.map(({ columns }) => columns.length));
  const maps = Array.from({ length: m }, (_, unit) => {
    const off = pane.off.some((one) => one.kind === "neuron" && one.layer === layer && one.unit === unit);
    const most = Math.max(1e-6, ...task.grids.flatMap((grid) => grid.cells.flat().map((k) => Math.abs(value(k, unit)))));
    const paint = (/** @type {HTMLCanvasElement} */ canvas) => {
      paintGrids(
        canvas,
        task.grids.map((grid) => grid.cells.map((row) => row.map((k) => value(k, unit) / most))),
        apart,
      );
      if (unit === 0) savedAs(canvas, () => neuronsSvg(task.grids, m, value, apart));
    };
    const size = { width: task.grids.length * apart - 2, height: SIDE * Math.max(...task.grids.map(({ rows }) => rows.length)) };
    const picture = painted(size, { of: [found], draw: paint });
    return button(`off neuron.${layer}.${unit}`, [picture, h("small", {}, off ? `✕ ${unit}` : String(unit))], {
      class: "neuron",
      "data-pane": number,
      "aria-pressed": String(off),
      "aria-label": `neuron ${unit}, ${off ? "set to 0" : "click to set it to 0"}`,
      "data-tip": `neuron ${unit}: writes most to ${strongest(scene, layer, unit)}; largest activation ${most.toFixed(2)}`,
    });
  });
  const heads = Array.from({ length: model.shape.heads }, (_, head) => {
    const off = pane.off.some((one) => one.kind === "head" && one.layer === layer && one.unit === head);
    return button(`off head.${layer}.${head}`, `head ${layer}.${head}${off ? " is 0" : ""}`, {
      "data-pane": number,
      "aria-pressed": String(off),
    });
  });
  const mlp = pane.off.some((one) => one.kind === "mlp" && one.layer === layer);
  return figure(
    {},
    h("h3", {}, `Neurons of layer ${layer} at “=”, over all operands`),
    h(
      "div",
      { class: "group" },
      h("span", { class: "quiet" }, "Set to 0:"),
      ...heads,
      button(`off mlp.${layer}.0`, `MLP ${layer}${mlp ? " is 0" : ""}`, { "data-pane": number, "aria-pressed": String(mlp) }),
      h("span", { class: "quiet" }, "or click a neuron"),
    ),
    h("div", { class: "neurons" }, ...maps),
    h(
      "figcaption",
      {},
      "Left a + b, right a − b, rows a, columns b; each neuron has its own scale, blue positive, orange negative. The grids below show the answers with these set to 0.",
    ),
  );
}

/** Every neuron's grids as a drawing to be saved. @param {import("../task.js").Task["grids"]} grids @param {number} m @param {(example: number, unit: number) => number} value @param {number} apart */
function neuronsSvg(grids, m, value, apart) {
  const [size, wide, tall] = [SIDE, 10 + grids.length * apart, 62];
  const parts = [];
  for (let unit = 0; unit < m; unit++) {
    const [left, top] = [(unit % 7) * wide, Math.floor(unit / 7) * tall];
    const most = Math.max(1e-6, ...grids.flatMap((grid) => grid.cells.flat().map((k) => Math.abs(value(k, unit)))));
    parts.push(s("text", { x: left, y: top + 12, class: "small" }, `neuron ${unit}`));
    grids.forEach((grid, g) =>
      grid.cells.forEach((row, r) =>
        row.forEach((k, c) => {
          const [x, here] = [left + g * apart + c * size, value(k, unit)];
          const tip = `neuron ${unit}, ${grid.rows[r]}${grid.operator}${grid.columns[c]}`;
          const colour = { class: `cell ${here < 0 ? "neg" : "pos"}`, "fill-opacity": (Math.abs(here) / most).toFixed(3) };
          parts.push(s("rect", { x, y: top + 16 + r * size, width: size, height: size, ...colour, "data-value": here, "data-tip": tip }));
        }),
      ),
    );
  }
  const [width, height] = [7 * wide, Math.ceil(m / 7) * tall];
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...parts);
}

/** The characters that a neuron raises and lowers most. @param {Scene} scene @param {number} layer @param {number} unit */
function strongest(scene, layer, unit) {
  const { task, model } = scene.opened;
  const { d_model: d, d_mlp: m, d_vocab } = model.shape;
  const gain = model.tensor("ln_final.w").data;
  const written = Float64Array.from({ length: d }, (_, c) => model.blocks[layer].writeMlp[c * m + unit] * gain[c]);
  const logits = product(written, model.unembed, 1, d_vocab, d);
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  const names = (/** @type {number[]} */ list) => list.map((t) => visible(task.characters[t])).join(" ");
  return `${names(order.slice(0, 3))}, least to ${names(order.slice(-3))}`;
}

/** Draws values from −1 to 1 as grids side by side. @param {HTMLCanvasElement} canvas @param {number[][][]} grids @param {number} apart */
function paintGrids(canvas, grids, apart) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const style = getComputedStyle(document.documentElement);
  const [neg, pos] = ["--neg", "--pos"].map((name) => style.getPropertyValue(name));
  context.clearRect(0, 0, canvas.width, canvas.height);
  grids.forEach((rows, g) =>
    rows.forEach((row, r) =>
      row.forEach((value, c) => {
        context.fillStyle = value < 0 ? neg : pos;
        context.globalAlpha = Math.min(1, Math.abs(value));
        context.fillRect(g * apart + c * SIDE, r * SIDE, SIDE, SIDE);
      }),
    ),
  );
}
