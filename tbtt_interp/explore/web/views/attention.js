/** Where heads look: on this prompt, on average, before softmax; and what looking there writes. */

import { dot, product } from "../engine/numbers.js";
import { edgeText } from "../state.js";
import { cellMap, slow } from "../ui/cells.js";
import { button, h, signed, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";
import { attentionByRole } from "./roles.js";
import { tooLarge } from "../scene.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Pane} Pane */
/** @typedef {import("../ui/cells.js").Cell} Cell */

const WORDS = {
  prompt: "this prompt",
  equations: "mean over equations",
  roles: "mean by role",
  scores: "scores (QK)",
  OV: "what it writes (OV)",
};

/** The choices of this view, for both panes. @param {State} state */
export function attentionChoices(state) {
  return h(
    "div",
    { class: "choices" },
    h(
      "span",
      { class: "group", role: "group", "aria-label": "Attention of" },
      ...Object.entries(WORDS).map(([name, words]) => button(`shown ${name}`, words, { "aria-pressed": String(state.shown === name) })),
    ),
    h(
      "span",
      { class: "group", role: "group", "aria-label": "After a knock-out" },
      h("span", { class: "quiet" }, "After a knock-out, the other weights are"),
      button("rule renormalized", "renormalized", { "aria-pressed": String(state.rule === "renormalized") }),
      button("rule zeroed", "left as they are", { "aria-pressed": String(state.rule === "zeroed") }),
    ),
  );
}

/** One model's attention. @param {Scene} scene @param {State} state @param {Pane} pane @param {number} number @param {number} width */
export function attention(scene, state, pane, number, width) {
  const { shape } = scene.opened.model;
  if (!scene.said) return [];
  if (pane.layer >= shape.layers || pane.head >= shape.heads) {
    return [
      h(
        "p",
        { class: "message" },
        `This model has no head ${pane.layer}.${pane.head}: its layers are 0 to ${shape.layers - 1}, its heads 0 to ${shape.heads - 1}.`,
      ),
      button("head 0.0", "show head 0.0", { "data-pane": number }),
    ];
  }
  return [heads(scene, pane, number), tokens(scene, state, pane, number), ...shown(scene, state, pane, number, width)];
}

/** Small maps of every head, to choose one. @param {Scene} scene @param {Pane} pane @param {number} number */
function heads(scene, pane, number) {
  const { layers, heads: n } = scene.opened.model.shape;
  if (layers * n === 1) return null;
  const size = 6;
  const parts = [];
  for (let layer = 0; layer < layers; layer++) {
    for (let head = 0; head < n; head++) {
      const small = cellMap({
        key: `${number}/thumb${layer}.${head}`,
        label: `Head ${layer}.${head}`,
        size,
        shade: (v) => v,
        rows: scene.names.map(() => ""),
        columns: scene.names.map(() => ""),
        at: (q, k) => (k > q ? null : { value: weight(scene, layer, head, q, k) }),
      });
      parts.push(
        button(`head ${layer}.${head}`, [small, `${layer}.${head}`], {
          "data-pane": number,
          class: "thumb",
          "aria-pressed": String(pane.layer === layer && pane.head === head),
          "aria-label": `layer ${layer}, head ${head}`,
        }),
      );
    }
  }
  return h("div", { class: "thumbs" }, ...parts);
}

/** @param {Scene} scene @param {number} layer @param {number} head @param {number} query @param {number} key */
function weight(scene, layer, head, query, key) {
  const site = scene.cache.get(`blocks.${layer}.attn.hook_pattern`);
  if (!site) return 0;
  return site.data[query * site.width + head * site.batch.width + key];
}

/** The prompt's tokens, each a button that pins it. @param {Scene} scene @param {State} state @param {Pane} pane @param {number} number */
function tokens(scene, state, pane, number) {
  const pinned = state.pins.filter((p) => p >= scene.start && p < scene.start + scene.names.length);
  const query = pinned.length ? pinned[pinned.length - 1] - scene.start : -1;
  return h(
    "div",
    { class: "strip", "data-lights": number },
    h("span", { class: "quiet" }, query < 0 ? "Click a token to see what it attends to:" : `${visible(scene.names[query])} attends to:`),
    ...scene.names.map((name, k) => {
      const value = query >= 0 && k <= query ? weight(scene, pane.layer, pane.head, query, k) : null;
      const at = k + scene.start;
      const content = [visible(name), h("small", {}, value === null ? "·" : value.toFixed(2))];
      return button(`pin ${at}`, content, {
        class: "token",
        "data-light": k,
        "aria-pressed": String(state.pins.includes(at)),
        "aria-label": `${state.pins.includes(at) ? "unpin" : "pin"} ${visible(name)}, token ${at + 1}`,
        "data-pane": number,
        style: value === null ? null : `--weight: ${value.toFixed(3)}`,
      });
    }),
  );
}

/** @param {Scene} scene @param {State} state @param {Pane} pane @param {number} number @param {number} width @returns {import("../ui/dom.js").Child[]} */
function shown(scene, state, pane, number, width) {
  const at = `Head ${pane.layer}.${pane.head}`;
  const names = scene.names.map(visible);
  const size = Math.max(24, Math.min(40, Math.floor((width - 60) / names.length)));
  if (scene.far && (state.shown === "roles" || state.shown === "equations"))
    return [h("p", { class: "message note" }, tooLarge(scene, "A mean over all examples"))];
  if (state.shown === "roles") return [attentionByRole(scene, pane.layer, pane.head, number, width)];
  if (state.shown === "OV") return writes(scene, pane, number, width);
  const raw = state.shown === "scores";
  const mean = state.shown === "equations" ? meanPattern(scene, pane) : null;
  if (state.shown === "equations" && !mean)
    return [h("p", { class: "message" }, "No equation of the task has as many characters as this prompt: show this prompt.")];
  const shownNames = mean ? mean.names : names;
  const scores = scene.cache.get(`blocks.${pane.layer}.attn.hook_attn_scores`);
  const map = cellMap({
    key: `${number}/attention`,
    label: `${at}, query by key`,
    size,
    rowTitle: "query",
    columnTitle: "key",
    rows: shownNames,
    columns: shownNames,
    shade: raw ? slow(3) : (v) => v,
    at: (query, key) => {
      if (key > query) return null;
      const value = mean
        ? mean.at(query, key)
        : raw && scores
          ? scores.data[query * scores.width + pane.head * scores.batch.width + key]
          : weight(scene, pane.layer, pane.head, query, key);
      const edge = { layer: pane.layer, head: pane.head, query: query + scene.start, key: key + scene.start };
      const cut = pane.cuts.some((other) => edgeText(other) === edgeText(edge));
      return {
        value,
        pressed: cut,
        act: `cut ${edgeText(edge)}`,
        text: cut ? "✕" : raw ? value.toFixed(1) : value.toFixed(2).replace("0.", "."),
        tip: `${shownNames[query]} → ${shownNames[key]}: ${raw ? `score ${signed(value)}` : value.toFixed(3)}; ${cut ? "knocked out, click to undo" : "click to knock out"}`,
        lit: state.pins.includes(query + scene.start) || state.pins.includes(key + scene.start),
      };
    },
  });
  const what = raw
    ? "attention scores before softmax, with positions and LayerNorm"
    : mean
      ? `mean attention over the ${mean.n} prompts of this length`
      : "attention on this prompt and answer";
  return [
    figure(
      { "data-lights": number },
      h("h3", {}, `${at}: ${what}`),
      h("div", { class: "wide" }, map),
      h(
        "figcaption",
        {},
        state.rule === "renormalized"
          ? "Click a cell to knock that edge out; the query's other weights are scaled up to sum to 1."
          : "Click a cell to knock that edge out; the query's other weights stay, and sum to less than 1.",
      ),
    ),
  ];
}

/** The mean over examples whose prompts have as many characters. @param {Scene} scene @param {Pane} pane */
function meanPattern(scene, pane) {
  const { answers, task, model } = scene.opened;
  const length = scene.text.length;
  const alike = task.tokens.flatMap(({ prompt }, k) => (prompt.length === length && prompt.length <= model.shape.n_ctx ? [k] : []));
  if (!alike.length) return null;
  const site = `blocks.${pane.layer}.attn.hook_pattern`;
  const found = scene.fed().get(site);
  if (!found) return null;
  const sums = new Float64Array(length * length);
  for (const k of alike) {
    const path = lastNodes(answers, k, length);
    path.forEach((node, query) => {
      for (let key = 0; key <= query; key++) {
        sums[query * length + key] += found.data[node * found.width + pane.head * found.batch.width + key] / alike.length;
      }
    });
  }
  const example = task.examples[alike[0]];
  const same = [...example.prompt].map((c, k) =>
    alike.every((e) => task.examples[e].prompt[k] === c) ? visible(c) : label(task, alike, k),
  );
  return { n: alike.length, names: same, at: (/** @type {number} */ q, /** @type {number} */ k) => sums[q * length + k] };
}

/** @param {import("../task.js").Task} task @param {number[]} alike @param {number} k */
function label(task, alike, k) {
  const name = task.run.varied.find((v) => alike.every((e) => String(task.examples[e].labels[v]) === task.examples[e].prompt[k]));
  return name === "operator" ? "±" : (name ?? String(k));
}

/** The nodes of an example's prompt, by position. @param {import("../engine/answers.js").AnswerBatch} answers @param {number} example @param {number} length */
function lastNodes(answers, example, length) {
  const node = answers.node[answers.example.indexOf(example)]; // of the prompt's last token
  const { keys, width } = answers.batch;
  return Array.from({ length }, (_, pos) => keys[node * width + pos]);
}

/** What attending to each token adds to each logit. @param {Scene} scene @param {Pane} pane @param {number} number @param {number} width */
function writes(scene, pane, number, width) {
  const { model, task } = scene.opened;
  const { d_model: d, d_vocab, heads: n } = model.shape;
  const e = model.size;
  const values = scene.cache.get(`blocks.${pane.layer}.attn.hook_v`);
  const scales = scene.cache.get("ln_final.hook_scale");
  if (!values || !scales || !scene.said) return [];
  const query = Math.min(scene.said.asked - scene.start, scene.names.length) - 1;
  const gain = model.tensor("ln_final.w").data;
  const out = model.blocks[pane.layer].out;
  const tokens = scene.names.map((_, key) => {
    const written = new Float64Array(d);
    for (let c = 0; c < d; c++) written[c] = dot(values.data, key * d + pane.head * e, out, c * d + pane.head * e, e);
    const mean = written.reduce((a, b) => a + b, 0) / d;
    for (let c = 0; c < d; c++) written[c] = ((written[c] - mean) / scales.data[query]) * gain[c];
    const logits = product(written, model.unembed, 1, d_vocab, d);
    const middle = logits.reduce((a, b) => a + b, 0) / d_vocab;
    return logits.map((x) => x - middle);
  });
  void n;
  const columns = task.characters.map(visible);
  const size = Math.max(24, Math.min(34, Math.floor((width - 60) / columns.length)));
  const map = cellMap({
    key: `${number}/ov`,
    label: "What attending to a token adds to each logit",
    size,
    rowTitle: "attended token",
    columnTitle: "logit of",
    rows: scene.names.map(visible),
    columns,
    shade: slow(4),
    at: (row, column) => ({
      value: tokens[row][column],
      text: Math.abs(tokens[row][column]) >= 10 ? tokens[row][column].toFixed(0) : tokens[row][column].toFixed(1).replace("-", "−"),
      tip: `attending to ${visible(scene.names[row])} with weight 1 adds ${signed(tokens[row][column])} nats to the logit of ${columns[column]}`,
    }),
  });
  return [
    figure(
      {},
      h("h3", {}, `Head ${pane.layer}.${pane.head}: what attending to each token writes`),
      h("div", { class: "wide" }, map),
      h(
        "figcaption",
        {},
        `In nats of logit at the token ${visible(scene.names[query])}, with its final LayerNorm scale, straight to the logits (past later layers and MLPs), minus the mean over characters.`,
      ),
    ),
  ];
}
