/** Training in the page: windows of lines, AdamW with clipping, nanoGPT's schedule. */

import { lossAndGradients } from "./backward.js";
import { makeBatch } from "./batch.js";
import { Model } from "./model.js";

/** @typedef {import("./model.js").Shape} Shape */
/** @typedef {import("./backward.js").Targets} Targets */
/** @typedef {import("./batch.js").Batch} Batch */

/**
 * @typedef {object} Settings
 * @property {number} steps @property {number} batch @property {number} learning_rate
 * @property {number} min_learning_rate @property {number} warmup @property {number} decay_until
 * @property {number} weight_decay @property {number} beta1 @property {number} beta2
 * @property {number} epsilon @property {number} clip
 */

/** @type {Record<string, number>} */
const STEPS = { line: 3000, shuffled: 6000 };

/** How the page trains: the package's quick recipe in fewer steps. @param {string} framing @param {number} rate @returns {Settings} */
export function settingsOf(framing, rate) {
  const steps = STEPS[framing];
  const schedule = { warmup: Math.round(steps / 15), decay_until: Math.round((steps * 5) / 6) };
  const adam = { weight_decay: 0, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, clip: 1 };
  return { steps, batch: 882, learning_rate: rate, min_learning_rate: 1e-4, ...schedule, ...adam };
}

/** One layer and one head of a width, whose context is the longest line. @param {number} width @param {number} longest @param {number} d_vocab @returns {Shape} */
export function shapeOf(width, longest, d_vocab) {
  return { layers: 1, heads: 1, d_model: width, d_mlp: width, n_ctx: longest, d_vocab, tied: true };
}

/** Random numbers from 0 to 1 by a seed (mulberry32). @param {number} seed */
export function randomNumbers(seed) {
  let state = (seed * 0x9e3779b9 + 0x85ebca6b) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** The parameters of a tied model without biases, as nanoGPT initialises them. @param {Shape} shape @param {number} seed */
export function initialParameters(shape, seed) {
  const { layers, heads, d_model: d, d_mlp: m, n_ctx, d_vocab } = shape;
  const random = randomNumbers(seed);
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  /** @type {Map<string, import("./safetensors.js").Tensor>} */
  const found = new Map();
  const draw = (/** @type {string} */ name, /** @type {number[]} */ size, std = 0.02) =>
    found.set(name, { shape: size, data: Float32Array.from({ length: size.reduce((a, b) => a * b, 1) }, () => std * normal()) });
  const ones = (/** @type {string} */ name) => found.set(name, { shape: [d], data: new Float32Array(d).fill(1) });
  draw("embed.W_E", [d_vocab, d]);
  draw("pos_embed.W_pos", [n_ctx, d]);
  const small = 0.02 / Math.sqrt(2 * layers);
  for (let layer = 0; layer < layers; layer++) {
    const at = `blocks.${layer}`;
    ones(`${at}.ln1.w`);
    ones(`${at}.ln2.w`);
    for (const role of "QKV") draw(`${at}.attn.W_${role}`, [heads, d, d / heads]);
    draw(`${at}.attn.W_O`, [heads, d / heads, d], small);
    draw(`${at}.mlp.W_in`, [d, m]);
    draw(`${at}.mlp.W_out`, [m, d], small);
  }
  ones("ln_final.w");
  return found;
}

/** The learning rate of a step, counted from 0. @param {number} step @param {Settings} settings */
export function learningRate(step, { learning_rate: peak, min_learning_rate: low, warmup, decay_until }) {
  if (step < warmup) return (peak * (step + 1)) / (warmup + 1);
  if (step >= decay_until) return low;
  const share = (step - warmup) / (decay_until - warmup);
  return low + 0.5 * (1 + Math.cos(Math.PI * share)) * (peak - low);
}

/** What a batch of windows has to predict, each character weighted equally. @param {ArrayLike<number>[]} windows @returns {{batch: Batch, targets: Targets}} */
export function predictions(windows) {
  const batch = makeBatch(windows.map((w) => Array.prototype.slice.call(w, 0, -1)));
  /** @type {Map<number, number>} */
  const counted = new Map(); // node and token as one number, so that equal ones are counted once
  let total = 0;
  windows.forEach((window, k) => {
    for (let at = 1; at < window.length; at++) {
      const key = batch.nodes[k][at - 1] * 65536 + window[at];
      counted.set(key, (counted.get(key) ?? 0) + 1);
      total++;
    }
  });
  const keys = [...counted.keys()];
  return {
    batch,
    targets: {
      node: Int32Array.from(keys, (key) => Math.floor(key / 65536)),
      token: Int32Array.from(keys, (key) => key % 65536),
      weight: Float64Array.from(keys, (key) => /** @type {number} */ (counted.get(key)) / total),
    },
  };
}

/** A model in training. */
export class Trainer {
  /**
   * @param {Shape} shape tied, without biases
   * @param {Settings} settings
   * @param {number[][]} lines tokens of each line
   * @param {"line" | "shuffled"} framing
   * @param {number} seed
   */
  constructor(shape, settings, lines, framing, seed, parameters = initialParameters(shape, seed)) {
    this.settings = settings;
    this.lines = lines;
    this.framing = framing;
    this.step = 0;
    this.loss = NaN;
    this.random = randomNumbers(seed + 1_000_003);
    this.model = new Model(
      shape,
      new Map([...parameters].map(([name, { shape: size, data }]) => [name, { shape: size, data: Float64Array.from(data) }])),
    );
    /** @type {Map<string, Float64Array>} */
    this.weights = ownArrays(this.model);
    this.moments = new Map([...this.weights].map(([name, x]) => [name, [new Float64Array(x.length), new Float64Array(x.length)]]));
    this.whole = framing === "line" ? predictions(lines.map((line) => line.slice(0, shape.n_ctx + 1))) : null;
  }

  /** Windows of an endless file of lines drawn independently, at random offsets. */
  draw() {
    const { n_ctx } = this.model.shape;
    const lengths = this.lines.map((line) => line.length);
    const total = lengths.reduce((a, b) => a + b, 0);
    const windows = [];
    for (let k = 0; k < this.settings.batch; k++) {
      let offset = Math.floor(this.random() * total);
      let row = 0;
      while (offset >= lengths[row]) offset -= lengths[row++];
      const window = this.lines[row].slice(offset);
      while (window.length < n_ctx + 1) window.push(...this.lines[Math.floor(this.random() * this.lines.length)]);
      windows.push(window.slice(0, n_ctx + 1));
    }
    return predictions(windows);
  }

  /** Milliseconds that a step takes here, measured over a few that are then forgotten. */
  measure() {
    this.advance();
    const began = performance.now();
    for (let k = 0; k < 4; k++) this.advance();
    return (performance.now() - began) / 4;
  }

  /** One step of AdamW. */
  advance() {
    const { batch, targets } = this.whole ?? this.draw();
    const { loss, gradients } = lossAndGradients(this.model, batch, targets);
    const { beta1, beta2, epsilon, clip, weight_decay } = this.settings;
    let square = 0;
    for (const gradient of gradients.values()) for (const g of gradient) square += g * g;
    const scale = Math.min(1, clip / (Math.sqrt(square) + 1e-6));
    const rate = learningRate(this.step, this.settings);
    this.step++;
    const first = 1 - beta1 ** this.step;
    const second = 1 - beta2 ** this.step;
    for (const [name, weights] of this.weights) {
      const gradient = /** @type {Float64Array} */ (gradients.get(name));
      const [mean, squares] = /** @type {Float64Array[]} */ (this.moments.get(name));
      const decay = name.endsWith(".w") ? 1 : 1 - rate * weight_decay;
      for (let k = 0; k < weights.length; k++) {
        const g = gradient[k] * scale;
        mean[k] = beta1 * mean[k] + (1 - beta1) * g;
        squares[k] = beta2 * squares[k] + (1 - beta2) * g * g;
        weights[k] = weights[k] * decay - (rate * (mean[k] / first)) / (Math.sqrt(squares[k] / second) + epsilon);
      }
    }
    this.loss = loss;
  }
}

/** A model's own matrices, which it computes with, by the names of their gradients. @param {Model} model */
export function ownArrays(model) {
  /** @type {Map<string, Float64Array>} */
  const found = new Map([
    ["embed.W_E", model.embed],
    ["pos_embed.W_pos", model.positions],
  ]);
  model.blocks.forEach((block, layer) => {
    for (const name of ["qkv", "out", "readMlp", "writeMlp"]) {
      found.set(`blocks.${layer}.${name}`, /** @type {any} */ (block)[name]);
    }
    for (const name of ["ln1.w", "ln2.w"]) {
      found.set(`blocks.${layer}.${name}`, /** @type {Float64Array} */ (model.tensor(`blocks.${layer}.${name}`).data));
    }
  });
  found.set("ln_final.w", /** @type {Float64Array} */ (model.tensor("ln_final.w").data));
  return found;
}

/** Arrays of `ownArrays` in TransformerLens's layout. @param {Shape} shape @param {Map<string, Float64Array>} own */
export function byTransformerLens(shape, own) {
  const { layers, heads, d_model: d, d_mlp: m } = shape;
  const e = d / heads;
  /** @type {Map<string, {shape: number[], data: Float32Array}>} */
  const found = new Map();
  const put = (/** @type {string} */ name, /** @type {number[]} */ size, /** @type {(k: number) => number} */ at) =>
    found.set(name, { shape: size, data: Float32Array.from({ length: size.reduce((a, b) => a * b, 1) }, (_, k) => at(k)) });
  const get = (/** @type {string} */ name) => /** @type {Float64Array} */ (own.get(name));
  for (const name of ["embed.W_E", "pos_embed.W_pos"]) put(name, [get(name).length / d, d], (k) => get(name)[k]);
  put("ln_final.w", [d], (k) => get("ln_final.w")[k]);
  for (let layer = 0; layer < layers; layer++) {
    const at = `blocks.${layer}`;
    for (const name of [`${at}.ln1.w`, `${at}.ln2.w`]) put(name, [d], (k) => get(name)[k]);
    [..."QKV"].forEach((role, r) =>
      put(`${at}.attn.W_${role}`, [heads, d, e], (k) => {
        const [h, i, c] = [Math.floor(k / (d * e)), Math.floor(k / e) % d, k % e];
        return get(`${at}.qkv`)[((r * heads + h) * e + c) * d + i];
      }),
    );
    put(`${at}.attn.W_O`, [heads, e, d], (k) => get(`${at}.out`)[(k % d) * d + Math.floor(k / d)]);
    put(`${at}.mlp.W_in`, [d, m], (k) => get(`${at}.readMlp`)[(k % m) * d + Math.floor(k / m)]);
    put(`${at}.mlp.W_out`, [m, d], (k) => get(`${at}.writeMlp`)[(k % d) * m + Math.floor(k / d)]);
  }
  return found;
}
