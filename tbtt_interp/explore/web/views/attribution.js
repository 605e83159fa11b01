/** What writes the answer in both models: each component's part of one logit difference. */

import { product } from "../engine/numbers.js";
import { tooLarge } from "../scene.js";
import { button, h, s, signed, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {{right: number, wrong: number}} Pair tokens whose logits are compared */

/**
 * Both models' parts side by side, of the same two tokens and in the same order, and A minus B.
 * @param {(Scene | Error)[]} scenes @param {State} state @param {number} width
 */
export function attribution(scenes, state, width) {
  const [a, b] = scenes.map((scene) => (scene instanceof Error ? null : scene));
  const first = a ?? b;
  if (!first?.said || first.example < 0 || first.start)
    return h("p", { class: "quiet" }, "This is shown only for prompts of the task that fit into the context.");
  const large = [a, b].find((scene) => scene?.far);
  if (large) return h("p", { class: "message note" }, tooLarge(large, "What writes the answer"));
  const { task } = first.opened;
  const { answer } = task.tokens[first.example];
  const place = Math.min(state.place, answer.length - 1);
  const shown = [a, b].map((scene) => (scene && scene.example >= 0 && scene.text === first.text ? scene : null));
  const pair = pairOf(shown, answer, place);
  const columns = shown.map((scene) => (scene && pair ? parts(scene, pair, place) : null));
  if (!pair) return h("p", { class: "quiet" }, "The models do not share these tokens.");
  const names = [...new Set(columns.flatMap((column) => [...(column?.keys() ?? [])]))];
  const rows = names.map((name) => ({ name, values: columns.map((column) => column?.get(name) ?? null) }));
  rows.push({ name: "sum", values: columns.map((column) => (column ? [...column.values()].reduce((x, y) => x + y, 0) : null)) });
  const all = rows.map(({ name, values: [x, y] }) => ({ name, values: [x, y, x !== null && y !== null ? x - y : null] }));
  const words = (/** @type {number} */ t) => visible(task.characters[t]);
  const choices = answer.map((token, k) =>
    button(`place ${k}`, words(token), { "aria-pressed": String(k === place), "aria-label": `character ${k + 1} of the answer` }),
  );
  return figure(
    { class: "panel" },
    h("h3", {}, `What writes ${words(pair.right)} and not ${words(pair.wrong)}, in nats of logit difference`),
    h("div", { class: "group" }, h("span", { class: "quiet" }, "Character of the right answer:"), ...choices),
    h("div", { class: "wide" }, bars(all, Math.min(width, 900))),
    h(
      "figcaption",
      {},
      `What each component adds, without the components after it, to the logit of ${words(pair.right)} minus the logit of ${words(pair.wrong)}; “sum” is the whole difference. The answer's earlier characters are given as they should be. ${words(pair.wrong)} is the wrong character with the highest logit, both models' added up.`,
    ),
  );
}

/** The right token, and the wrong one with the highest logits of both models together. @param {(Scene | null)[]} shown @param {number[]} answer @param {number} place @returns {Pair | null} */
function pairOf(shown, answer, place) {
  const all = shown.flatMap((scene) => (scene ? [logitsAt(scene, place)] : []));
  const right = answer[place];
  let [wrong, best] = [-1, -Infinity];
  for (let t = 0; t < all[0].length; t++) {
    const height = all.reduce((sum, logits) => sum + (logits[t] ?? -Infinity), 0);
    if (t !== right && height > best) [wrong, best] = [t, height];
  }
  return wrong < 0 ? null : { right, wrong };
}

/** The activations that predict a character of the right answer. @param {Scene} scene @param {number} place */
function fed(scene, place) {
  const { answers } = scene.opened;
  const node = answers.node[answers.example.indexOf(scene.example) + place];
  return { node, cache: scene.fed() };
}

/** @param {Scene} scene @param {number} place */
function logitsAt(scene, place) {
  const { node, cache } = fed(scene, place);
  const logits = /** @type {import("../engine/model.js").Activation} */ (cache.get("unembed.hook_out"));
  return logits.data.subarray(node * logits.width, (node + 1) * logits.width);
}

/** Each component's part of a logit difference. @param {Scene} scene @param {Pair} pair @param {number} place */
function parts(scene, { right, wrong }, place) {
  const { model } = scene.opened;
  const d = model.shape.d_model;
  const { node, cache } = fed(scene, place);
  const gain = model.tensor("ln_final.w").data;
  const at = (/** @type {string} */ site) => cache.get(site)?.data.subarray(node * d, (node + 1) * d) ?? new Float64Array(d);
  const scale = cache.get("ln_final.hook_scale")?.data[node] ?? 1;
  const direction = Float64Array.from({ length: d }, (_, c) => gain[c] * (model.unembed[right * d + c] - model.unembed[wrong * d + c]));
  const middle = direction.reduce((x, y) => x + y, 0) / d; // LayerNorm takes each component's mean away
  const part = (/** @type {ArrayLike<number>} */ x) => {
    let total = 0;
    for (let c = 0; c < d; c++) total += x[c] * (direction[c] - middle);
    return total / scale;
  };
  /** @type {Map<string, number>} */
  const found = new Map([
    ["token", part(at("hook_embed"))],
    ["position", part(at("hook_pos_embed"))],
  ]);
  for (let layer = 0; layer < model.shape.layers; layer++) {
    const z = at(`blocks.${layer}.attn.hook_z`);
    for (let head = 0; head < model.shape.heads; head++) {
      const only = new Float64Array(d);
      only.set(z.subarray(head * model.size, (head + 1) * model.size), head * model.size);
      found.set(`head ${layer}.${head}`, part(product(only, model.blocks[layer].out, 1, d, d)));
    }
    found.set(`MLP ${layer}`, part(at(`blocks.${layer}.hook_mlp_out`)));
  }
  const biases = part(at(`blocks.${model.shape.layers - 1}.hook_resid_post`)) - [...found.values()].reduce((x, y) => x + y, 0);
  if (Math.abs(biases) > 1e-6) found.set("biases", biases);
  return found;
}

/** Three columns of bars: model A, model B, and A minus B. @param {{name: string, values: (number | null)[]}[]} rows @param {number} width */
function bars(rows, width) {
  const [left, tall, top] = [70, 22, 18];
  const column = (width - left) / 3;
  const most = Math.max(...rows.flatMap(({ values }) => values.map((v) => Math.abs(v ?? 0))), 1e-9);
  const height = top + rows.length * tall + 4;
  const drawn = ["model A", "model B", "A − B"].flatMap((name, k) => {
    const zero = left + (k + 0.5) * column - 24;
    const reach = column / 2 - 34;
    return [
      s("text", { x: zero, y: 12, class: "axis middle" }, name),
      s("line", { x1: zero, x2: zero, y1: top, y2: height - 4, class: "rule" }),
      ...rows.flatMap(({ name: row, values }, r) => {
        const value = values[k];
        if (value === null) return [];
        const length = (Math.abs(value) / most) * reach;
        return [
          s("rect", {
            x: value < 0 ? zero - length : zero,
            y: top + r * tall + 3,
            width: Math.max(length, 0.5),
            height: tall - 6,
            class: `cell ${value < 0 ? "neg" : "pos"}`,
            "fill-opacity": 0.7,
            "data-tip": `${row}, ${name}: ${signed(value, 3)} nats`,
            "data-value": value,
          }),
          s("text", { x: zero + reach + 56, y: top + r * tall + 15, class: "end axis" }, signed(value, 1)),
        ];
      }),
    ];
  });
  return s(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Direct logit attribution of both models" },
    ...rows.map(({ name }, r) => s("text", { x: left - 6, y: top + r * tall + 15, class: "end" }, name)),
    ...drawn,
  );
}
