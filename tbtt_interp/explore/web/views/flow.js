/** The whole computation of a layer on this prompt, number by number, as one drawing. */

import { dot } from "../engine/numbers.js";
import { figure, savedAs } from "../ui/saving.js";
import { hideTip, showTip } from "../ui/tips.js";
import { button, h, painted, s, signed, visible } from "../ui/dom.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Pane} Pane */
/** @typedef {{name: string, site: string, units: number, data: Float64Array, why: (pos: number, unit: number) => string}} Strip */

const [TALL, GAP, LEFT, TOP] = [15, 12, 88, 22];

/** @param {Scene} scene @param {State} state @param {Pane} pane @param {number} number @param {number} width */
export function flow(scene, state, pane, number, width) {
  if (!scene.said) return [];
  const layer = Math.min(pane.layer, scene.opened.model.shape.layers - 1);
  const strips = stripsOf(scene, layer);
  const pinned = state.pins.map((p) => p - scene.start).filter((p) => p >= 0 && p < scene.names.length);
  const asked = Math.min(scene.said.asked - scene.start, scene.names.length) - 1;
  const query = pinned.length ? pinned[pinned.length - 1] : asked;
  const canvas = painted(
    {
      class: "flow",
      tabindex: 0,
      role: "application",
      "aria-label": "Data flow of the layer. Arrow keys move from number to number.",
    },
    {
      of: [scene.cache, layer, query, width],
      draw: (element) => {
        const place = draw(element, scene, strips, layer, query, width);
        watch(element, strips, place, scene.names.length);
        savedAs(element, () => asSvg(scene.names, strips, place, width));
      },
    },
  );
  const layers = scene.opened.model.shape.layers;
  const choices =
    layers > 1
      ? h(
          "div",
          { class: "group" },
          h("span", { class: "quiet" }, "Layer"),
          ...Array.from({ length: layers }, (_, k) =>
            button(`head ${k}.0`, String(k), { "data-pane": number, "aria-pressed": String(k === layer) }),
          ),
        )
      : null;
  const tokens = h(
    "div",
    { class: "strip" },
    h("span", { class: "quiet" }, "Attention drawn from:"),
    ...scene.names.map((name, k) =>
      button(`pin ${k + scene.start}`, visible(name), {
        class: "token",
        "aria-pressed": String(k === query),
        "aria-label": `draw attention from ${visible(name)}, token ${k + 1}`,
      }),
    ),
  );
  return [
    choices,
    tokens,
    figure(
      {},
      h("h3", { class: "unseen" }, `Data flow of layer ${layer} on ${scene.text}`),
      canvas,
      h(
        "figcaption",
        {},
        "Each cell is one number: blue above 0, orange below, shaded by row. Point at a cell, or move by arrow keys, to see how it is computed. Lines carry values from keys to the query, as wide as its attention.",
      ),
    ),
  ];
}

/** The rows of the drawing, from the embedding down to the logits. @param {Scene} scene @param {number} layer @returns {Strip[]} */
function stripsOf(scene, layer) {
  const { model, task } = scene.opened;
  const { d_model: d, d_mlp: m, d_vocab, layers } = model.shape;
  const at = `blocks.${layer}`;
  const block = model.blocks[layer];
  const get = (/** @type {string} */ site) => scene.cache.get(site)?.data ?? new Float64Array(0);
  const number = (/** @type {string} */ site, /** @type {number} */ pos, /** @type {number} */ unit) =>
    get(site)[pos * (get(site).length / scene.names.length) + unit];
  const normalized = (/** @type {string} */ name, /** @type {number} */ pos) => {
    const weight = model.tensor(`${name}.w`).data;
    return get(`${name}.hook_normalized`)
      .subarray(pos * d, (pos + 1) * d)
      .map((x, c) => x * weight[c]);
  };
  const product = (
    /** @type {ArrayLike<number>} */ x,
    /** @type {Float64Array} */ w,
    /** @type {number} */ row,
    /** @type {string} */ of,
    /** @type {string} */ channel,
  ) => {
    const terms = Array.from({ length: x.length }, (_, c) => [c, x[c] * w[row * x.length + c]]).sort(
      (a, b) => Math.abs(b[1]) - Math.abs(a[1]),
    );
    const shown = terms
      .slice(0, 3)
      .map(([c, v]) => `${signed(v)} (${channel} ${c})`)
      .join(" ");
    return `= sum of ${x.length} products of ${of} and weights: ${shown} and ${x.length - 3} smaller`;
  };
  const sums = (/** @type {[string, string][]} */ parts) => (/** @type {number} */ pos, /** @type {number} */ unit) =>
    `= ${parts.map(([name, site]) => `${name} ${signed(number(site, pos, unit))}`).join(" ")}`;
  const strip = (
    /** @type {string} */ name,
    /** @type {string} */ site,
    /** @type {number} */ units,
    /** @type {(pos: number, unit: number) => string} */ why,
  ) => ({ name, site, units, data: get(site), why });
  const role = (/** @type {string} */ name, /** @type {number} */ r) =>
    strip(name, `${at}.attn.hook_${name}`, d, (pos, unit) =>
      product(normalized(`${at}.ln1`, pos), block.qkv.subarray(r * d * d, (r + 1) * d * d), unit, "the normalized stream", "channel"),
    );
  const found = [
    layer
      ? strip("stream", `${at}.hook_resid_pre`, d, sums([["from the layer before", `blocks.${layer - 1}.hook_resid_post`]]))
      : strip(
          "embedding",
          `${at}.hook_resid_pre`,
          d,
          sums([
            ["token", "hook_embed"],
            ["position", "hook_pos_embed"],
          ]),
        ),
    role("q", 0),
    role("k", 1),
    role("v", 2),
    strip("z", `${at}.attn.hook_z`, d, (pos, unit) => {
      const head = Math.floor(unit / model.size);
      const pattern = scene.cache.get(`${at}.attn.hook_pattern`);
      const terms = Array.from({ length: pos + 1 }, (_, key) => {
        const weight = pattern ? pattern.data[pos * pattern.width + head * pattern.batch.width + key] : 0;
        return `${weight.toFixed(2)} × ${signed(number(`${at}.attn.hook_v`, key, unit))} (${visible(scene.names[key])})`;
      });
      return `= ${terms.join(" + ")}`;
    }),
    strip(
      "+ attention",
      `${at}.hook_resid_mid`,
      d,
      sums([
        ["stream", `${at}.hook_resid_pre`],
        ["attention", `${at}.hook_attn_out`],
      ]),
    ),
    strip(
      "neurons",
      `${at}.mlp.hook_post`,
      m,
      (pos, unit) =>
        `= GELU(${signed(number(`${at}.mlp.hook_pre`, pos, unit))}), which ${product(normalized(`${at}.ln2`, pos), block.readMlp, unit, "the normalized stream", "channel").replace("= ", "is the ")}`,
    ),
    strip(
      "+ MLP",
      `${at}.hook_resid_post`,
      d,
      sums([
        ["stream", `${at}.hook_resid_mid`],
        ["MLP", `${at}.hook_mlp_out`],
      ]),
    ),
  ];
  if (layer === layers - 1) {
    const logits = new Float64Array(scene.names.length * d_vocab);
    const inputs = get("unembed.hook_in");
    for (let pos = 0; pos < scene.names.length; pos++) {
      for (let t = 0; t < d_vocab; t++) logits[pos * d_vocab + t] = dot(inputs, pos * d, model.unembed, t * d, d);
    }
    found.push({
      name: "logits",
      site: "logits",
      units: d_vocab,
      data: logits,
      why: (pos, unit) =>
        `of ${visible(task.characters[unit])} ${product(inputs.subarray(pos * d, (pos + 1) * d), model.unembed, unit, "the normalized stream", "channel")}`,
    });
  }
  return found;
}

/** @param {HTMLCanvasElement} canvas @param {Scene} scene @param {Strip[]} strips @param {number} layer @param {number} query @param {number} width */
function draw(canvas, scene, strips, layer, query, width) {
  const n = scene.names.length;
  const column = Math.floor((width - LEFT) / n);
  const extra = (/** @type {number} */ k) => (strips[k].name === "z" ? 46 : 0) + (k ? GAP : 0);
  let top = TOP;
  const tops = strips.map((_, k) => {
    top += extra(k);
    const y = top;
    top += TALL;
    return y;
  });
  const height = top + 8;
  const ratio = Math.min(2, devicePixelRatio || 1);
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const place = { column, tops };
  const context = canvas.getContext("2d");
  if (!context) return place;
  context.scale(ratio, ratio);
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`);
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = colour("ink");
  context.textAlign = "center";
  scene.names.forEach((name, k) => context.fillText(visible(name), LEFT + (k + 0.5) * column - 3, 14));
  context.textAlign = "right";
  strips.forEach(({ name }, k) => context.fillText(name, LEFT - 8, tops[k] + 12));
  const pattern = scene.cache.get(`blocks.${layer}.attn.hook_pattern`);
  const v = strips.findIndex((one) => one.name === "v");
  context.strokeStyle = colour("accent");
  for (let key = 0; pattern && key <= query; key++) {
    let weight = 0;
    for (let head = 0; head < pattern.heads; head++)
      weight += pattern.data[query * pattern.width + head * pattern.batch.width + key] / pattern.heads;
    const [x0, y0, x1, y1] = [LEFT + (key + 0.5) * column - 3, tops[v] + TALL + 1, LEFT + (query + 0.5) * column - 3, tops[v + 1] - 1];
    context.globalAlpha = 0.25 + 0.6 * weight;
    context.lineWidth = 0.4 + 9 * weight;
    context.beginPath();
    context.moveTo(x0, y0);
    context.bezierCurveTo(x0, y0 + 30, x1, y1 - 30, x1, y1);
    context.stroke();
  }
  strips.forEach(({ units, data }, k) => {
    const most = data.reduce((a, x) => Math.max(a, Math.abs(x)), 1e-9);
    const size = (column - 6) / units;
    for (let pos = 0; pos < n; pos++) {
      for (let unit = 0; unit < units; unit++) {
        const value = data[pos * units + unit];
        context.fillStyle = colour(value < 0 ? "neg" : "pos");
        context.globalAlpha = Math.min(1, Math.sqrt(Math.abs(value) / most));
        context.fillRect(LEFT + pos * column + unit * size, tops[k], Math.max(size, 0.8), TALL);
      }
      context.globalAlpha = pos === query ? 1 : 0.35;
      context.lineWidth = 1;
      context.strokeStyle = colour("ink");
      context.strokeRect(LEFT + pos * column - 0.5, tops[k] - 0.5, column - 5, TALL + 1);
    }
  });
  return place;
}

/** The numbers as a drawing to be saved. @param {string[]} names @param {Strip[]} strips @param {{column: number, tops: number[]}} place @param {number} width */
function asSvg(names, strips, { column, tops }, width) {
  const height = tops[tops.length - 1] + TALL + 8;
  const parts = names.map((name, k) => s("text", { x: LEFT + (k + 0.5) * column - 3, y: 14, class: "name middle" }, visible(name)));
  strips.forEach(({ name, units, data }, k) => {
    parts.push(s("text", { x: LEFT - 8, y: tops[k] + 12, class: "end" }, name));
    const most = data.reduce((a, x) => Math.max(a, Math.abs(x)), 1e-9);
    const size = (column - 6) / units;
    data.forEach((value, at) => {
      const [pos, unit] = [Math.floor(at / units), at % units];
      const where = { x: LEFT + pos * column + unit * size, y: tops[k], width: size, height: TALL };
      const shade = Math.sqrt(Math.abs(value) / most).toFixed(3);
      const tip = `${name} ${unit} at token ${pos + 1}, ${visible(names[pos])}: ${signed(value, 4)}`;
      parts.push(
        s("rect", { ...where, class: `cell ${value < 0 ? "neg" : "pos"}`, "fill-opacity": shade, "data-value": value, "data-tip": tip }),
      );
    });
  });
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, ...parts);
}

/** Shows the number under the pointer, or under the cursor that arrow keys move. @param {HTMLCanvasElement} canvas @param {Strip[]} strips @param {{column: number, tops: number[]}} place @param {number} n */
function watch(canvas, strips, { column, tops }, n) {
  let [row, pos, unit] = [0, 0, 0];
  const tell = () => {
    const { name, units, data, why } = strips[row];
    const box = canvas.getBoundingClientRect();
    const size = (column - 6) / units;
    const x = box.left + LEFT + pos * column + (unit + 0.5) * size;
    const text = `${name} ${unit} at token ${pos + 1}: ${signed(data[pos * units + unit], 3)} ${why(pos, unit)}`;
    canvas.setAttribute("aria-description", text);
    showTip({ left: x, right: x, top: box.top + tops[row], bottom: box.top + tops[row] + TALL }, text);
  };
  canvas.onpointermove = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - LEFT, event.clientY - box.top];
    const found = tops.findIndex((top) => y >= top - 2 && y <= top + TALL + 2);
    if (found < 0 || x < 0 || x >= n * column) return hideTip();
    [row, pos] = [found, Math.floor(x / column)];
    unit = Math.min(strips[row].units - 1, Math.floor((x - pos * column) / ((column - 6) / strips[row].units)));
    tell();
  };
  canvas.onpointerleave = hideTip;
  canvas.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const found = /** @type {Record<string, number[]>} */ (step)[event.key];
    if (!found) return;
    event.preventDefault();
    row = Math.max(0, Math.min(strips.length - 1, row + found[0]));
    const { units } = strips[row];
    const next = Math.max(0, Math.min(n * units - 1, pos * units + Math.min(unit, units - 1) + found[1]));
    [pos, unit] = [Math.floor(next / units), next % units];
    tell();
  };
}
