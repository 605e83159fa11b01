/**
 * The decoder of nanoGPT with TransformerLens's hook points: learned positions, LayerNorm before
 * attention and MLP, exact GELU, output embedding tied to the input's or not, with or without biases.
 */

import { dot, gelu, product, softmax, transpose } from "./numbers.js";

/** @typedef {import("./safetensors.js").Tensor} Tensor */
/** @typedef {import("./batch.js").Batch} Batch */

/**
 * @typedef {object} Shape
 * @property {number} layers
 * @property {number} heads
 * @property {number} d_model
 * @property {number} d_mlp
 * @property {number} n_ctx
 * @property {number} d_vocab
 * @property {boolean} [tied]
 */

/**
 * What stands at a hook point: `width` numbers for each node of the batch.
 * Sites with a head axis have width heads x size; a pattern has heads x batch.width.
 * @typedef {object} Activation
 * @property {Float64Array} data
 * @property {number} width
 * @property {number} heads 1 where the site has no head axis
 * @property {Batch} batch
 */

/** A change of an activation, in place. @typedef {(activation: Activation) => void} Hook */
/** @typedef {Map<string, Hook[]>} Hooks */

/**
 * @typedef {object} Block
 * @property {Float64Array} qkv transposed: [3 x heads x size, d_model]
 * @property {Float64Array | null} qkvBias
 * @property {Float64Array} out transposed: [d_model, heads x size]
 * @property {Float64Array} readMlp transposed: [d_mlp, d_model]
 * @property {Float64Array} writeMlp transposed: [d_model, d_mlp]
 */

const EPSILON = 1e-5;
const LARGE = 500_000; // weights above which a model is computed in a worker

/** The trained weights, without positions. @param {Shape} shape */
export function countWeights({ layers, d_model: d, d_mlp: m, d_vocab, tied = true }) {
  return layers * (4 * d * d + 2 * d * m + 2 * d) + d * d_vocab * (tied ? 1 : 2) + d;
}

/** Whether a forward pass takes so long that the page would not answer meanwhile. @param {Shape} shape */
export const isLarge = (shape) => countWeights(shape) > LARGE;

/** One model: its shape, its parameters by TransformerLens's names, and matrices ready to use. */
export class Model {
  /**
   * @param {Shape} shape
   * @param {Map<string, Tensor>} parameters
   */
  constructor(shape, parameters) {
    this.shape = shape;
    this.size = shape.d_model / shape.heads; // channels per head
    this.parameters = parameters;
    /** @type {Block[]} */
    this.blocks = [];
    for (let layer = 0; layer < shape.layers; layer++) {
      if (!isLarge(shape)) this.blocks.push(this._block(layer));
      else {
        /** @type {Block | null} */
        let made = null; // when it is first needed: the page itself shows a layer at a time
        Object.defineProperty(this.blocks, layer, { enumerable: true, get: () => (made ??= this._block(layer)) });
      }
    }
    const embed = Float64Array.from(this.tensor("embed.W_E").data);
    this.embed = embed;
    this.positions = Float64Array.from(this.tensor("pos_embed.W_pos").data);
    const own = parameters.get("unembed.W_U");
    this.unembed = own ? transpose(own.data, shape.d_model, shape.d_vocab) : embed;
  }

  /** A parameter by name; an error names what is missing. @param {string} name */
  tensor(name) {
    const found = this.parameters.get(name);
    if (!found) throw new Error(`the weights have no ${name}: they are not of this shape`);
    return found;
  }

  /** @param {string} name @returns {Float64Array | null} */
  bias(name) {
    const found = this.parameters.get(name);
    return found ? Float64Array.from(found.data) : null;
  }

  /** @param {number} layer @returns {Block} */
  _block(layer) {
    const { heads, d_model: d, d_mlp: m } = this.shape;
    const at = `blocks.${layer}`;
    const qkv = new Float64Array(3 * d * d);
    "QKV".split("").forEach((role, r) => {
      const weights = this.tensor(`${at}.attn.W_${role}`).data; // [heads, d, size]
      for (let h = 0; h < heads; h++) {
        for (let i = 0; i < d; i++) {
          for (let e = 0; e < this.size; e++) {
            qkv[((r * heads + h) * this.size + e) * d + i] = weights[(h * d + i) * this.size + e];
          }
        }
      }
    });
    /** @type {Float64Array | null} */
    let qkvBias = null;
    if (this.parameters.has(`${at}.attn.b_Q`)) {
      qkvBias = new Float64Array(3 * d);
      for (const [r, role] of [..."QKV"].entries()) {
        qkvBias.set(this.tensor(`${at}.attn.b_${role}`).data, r * d);
      }
    }
    return {
      qkv,
      qkvBias,
      out: transpose(this.tensor(`${at}.attn.W_O`).data, d, d),
      readMlp: transpose(this.tensor(`${at}.mlp.W_in`).data, d, m),
      writeMlp: transpose(this.tensor(`${at}.mlp.W_out`).data, m, d),
    };
  }
}

/** Keys and values of nodes that were computed before, to which other nodes attend. */
export class Past {
  /** @param {Shape} shape @param {number} most nodes */
  constructor({ layers, d_model: d }, most) {
    this.size = 0;
    const room = () => Array.from({ length: layers }, () => new Float64Array(most * d));
    this.k = room();
    this.v = room();
  }
}

/**
 * The logits of every node, and the activations that were asked for.
 *
 * With `split` each head's queries, keys and values and each MLP have an input of their own, and each
 * head an output: TransformerLens's hook_q_input, hook_k_input, hook_v_input, hook_mlp_in, hook_result.
 * With `past` the batch's nodes come behind its nodes, or in the place of those that `batch.at` names, and
 * the batch's keys count from its first.
 * @param {Model} model
 * @param {Batch} batch
 * @param {{hooks?: Hooks, keep?: (site: string) => boolean, split?: boolean, past?: Past | null}} [options]
 * @returns {{logits: Float64Array, cache: Map<string, Activation>}} logits are [node, d_vocab]
 */
export function forward(model, batch, { hooks = new Map(), keep = () => false, split = false, past = null } = {}) {
  const { layers, d_model: d, d_mlp: m, d_vocab: vocabulary } = model.shape;
  const n = batch.size;
  /** @type {Map<string, Activation>} */
  const cache = new Map();
  if (batch.width > model.shape.n_ctx) {
    throw new Error(`${batch.width} tokens do not fit a context of ${model.shape.n_ctx}`);
  }

  /** @param {string} site @param {Float64Array} data @param {number} [headAxis] */
  const point = (site, data, headAxis = 1) => {
    const found = hooks.get(site);
    const kept = keep(site);
    if (found || kept) {
      const activation = { data, width: data.length / n, heads: headAxis, batch };
      for (const hook of found ?? []) hook(activation);
      if (kept) cache.set(site, { ...activation, data: data.slice() });
    }
    return data;
  };

  const embedded = new Float64Array(n * d);
  const placed = new Float64Array(n * d);
  for (let k = 0; k < n; k++) {
    embedded.set(model.embed.subarray(batch.tokens[k] * d, (batch.tokens[k] + 1) * d), k * d);
    placed.set(model.positions.subarray(batch.pos[k] * d, (batch.pos[k] + 1) * d), k * d);
  }
  point("hook_embed", embedded);
  point("hook_pos_embed", placed);
  let stream = add(embedded, placed);

  for (let layer = 0; layer < layers; layer++) {
    const at = `blocks.${layer}`;
    const block = model.blocks[layer];
    point(`${at}.hook_resid_pre`, stream);
    const attention = attend(model, layer, stream, batch, point, split, past);
    point(`${at}.hook_attn_out`, attention);
    stream = add(stream, attention);
    point(`${at}.hook_resid_mid`, stream);
    const into = split ? point(`${at}.hook_mlp_in`, stream.slice()) : stream;
    const readMlp = normalize(model, into, n, `${at}.ln2`, point);
    const pre = product(readMlp, block.readMlp, n, m, d);
    addBias(pre, model.bias(`${at}.mlp.b_in`));
    point(`${at}.mlp.hook_pre`, pre);
    const post = pre.map(gelu);
    point(`${at}.mlp.hook_post`, post);
    const written = product(post, block.writeMlp, n, d, m);
    addBias(written, model.bias(`${at}.mlp.b_out`));
    point(`${at}.hook_mlp_out`, written);
    stream = add(stream, written);
    point(`${at}.hook_resid_post`, stream);
  }
  const last = point("unembed.hook_in", normalize(model, stream, n, "ln_final", point));
  const logits = product(last, model.unembed, n, vocabulary, d);
  addBias(logits, model.bias("unembed.b_U"));
  point("unembed.hook_out", logits);
  if (past && !batch.at) past.size += n;
  return { logits, cache };
}

/**
 * Attention of one layer: what its heads write.
 * @param {Model} model @param {number} layer @param {Float64Array} stream @param {Batch} batch
 * @param {(site: string, data: Float64Array, heads?: number) => Float64Array} point @param {boolean} split @param {Past | null} past
 */
function attend(model, layer, stream, batch, point, split, past) {
  const { heads, d_model: d } = model.shape;
  const { size: e } = model;
  const { size: n, width, keys, pos } = batch;
  const at = `blocks.${layer}.attn`;
  const block = model.blocks[layer];
  const read = split ? stream : normalize(model, stream, n, `blocks.${layer}.ln1`, point);
  const [q, ...own] = [0, 1, 2].map((role) => {
    const weights = block.qkv.subarray(role * d * d, (role + 1) * d * d);
    const input = split ? point(`blocks.${layer}.hook_${"qkv"[role]}_input`, repeated(stream, n, heads), heads) : null;
    const part = input ? readApart(model, layer, input, weights, n) : product(read, weights, n, d, d);
    addBias(part, block.qkvBias?.subarray(role * d, (role + 1) * d));
    return point(`${at}.hook_${"qkv"[role]}`, part, heads);
  });
  const [k, v] = past ? [past.k[layer], past.v[layer]] : own;
  if (past) {
    for (let node = 0; node < n; node++) {
      const place = (batch.at?.[node] ?? past.size + node) * d;
      k.set(own[0].subarray(node * d, (node + 1) * d), place);
      v.set(own[1].subarray(node * d, (node + 1) * d), place);
    }
  }
  const scores = new Float64Array(n * heads * width).fill(-Infinity);
  const scale = 1 / Math.sqrt(e);
  for (let node = 0; node < n; node++) {
    for (let h = 0; h < heads; h++) {
      const row = (node * heads + h) * width;
      for (let key = 0; key <= pos[node]; key++) {
        const other = keys[node * width + key] * d + h * e;
        let sum = 0;
        for (let c = 0; c < e; c++) sum += q[node * d + h * e + c] * k[other + c];
        scores[row + key] = sum * scale;
      }
    }
  }
  point(`${at}.hook_attn_scores`, scores, heads);
  const pattern = scores;
  for (let row = 0; row < n * heads; row++) {
    const seen = pos[Math.floor(row / heads)] + 1;
    softmax(pattern, row * width, seen);
    pattern.fill(0, row * width + seen, (row + 1) * width);
  }
  point(`${at}.hook_pattern`, pattern, heads);
  const z = new Float64Array(n * d);
  for (let node = 0; node < n; node++) {
    for (let h = 0; h < heads; h++) {
      const mine = node * d + h * e;
      for (let key = 0; key <= pos[node]; key++) {
        const weight = pattern[(node * heads + h) * width + key];
        const other = keys[node * width + key] * d + h * e;
        for (let c = 0; c < e; c++) z[mine + c] += weight * v[other + c];
      }
    }
  }
  point(`${at}.hook_z`, z, heads);
  const written = split ? writtenApart(model, layer, z, n, point) : product(z, block.out, n, d, d);
  addBias(written, model.bias(`${at}.b_O`));
  return written;
}

/** Each node's channels once for every head: [node, head, channel]. @param {Float64Array} x @param {number} n @param {number} heads */
function repeated(x, n, heads) {
  const d = x.length / n;
  const out = new Float64Array(x.length * heads);
  for (let k = 0; k < n * heads; k++) out.set(x.subarray(Math.floor(k / heads) * d, (Math.floor(k / heads) + 1) * d), k * d);
  return out;
}

/** Queries, keys or values of heads that each read a stream of their own. @param {Model} model @param {number} layer @param {Float64Array} input @param {Float64Array} weights @param {number} n */
function readApart(model, layer, input, weights, n) {
  const { heads, d_model: d } = model.shape;
  const read = normalize(model, input, n * heads, `blocks.${layer}.ln1`, (_, data) => data);
  const out = new Float64Array(n * d);
  for (let k = 0; k < n * heads; k++) {
    for (let c = 0; c < model.size; c++) out[k * model.size + c] = dot(read, k * d, weights, ((k % heads) * model.size + c) * d, d);
  }
  return out;
}

/** What heads write, each by itself, and their sum. @param {Model} model @param {number} layer @param {Float64Array} z @param {number} n @param {(site: string, data: Float64Array, heads?: number) => Float64Array} point */
function writtenApart(model, layer, z, n, point) {
  const { heads, d_model: d } = model.shape;
  const { out } = model.blocks[layer];
  const result = new Float64Array(n * heads * d);
  for (let k = 0; k < n * heads; k++) {
    for (let c = 0; c < d; c++) result[k * d + c] = dot(z, k * model.size, out, c * d + (k % heads) * model.size, model.size);
  }
  point(`blocks.${layer}.attn.hook_result`, result, heads);
  const sum = new Float64Array(n * d);
  result.forEach((x, k) => {
    sum[Math.floor(k / (heads * d)) * d + (k % d)] += x;
  });
  return sum;
}

/**
 * LayerNorm over channels, with the hook points of its scale and of its normalized input.
 * @param {Model} model @param {Float64Array} x @param {number} n @param {string} name
 * @param {(site: string, data: Float64Array) => Float64Array} point
 */
function normalize(model, x, n, name, point) {
  const d = x.length / n;
  const weight = model.tensor(`${name}.w`).data;
  const bias = model.parameters.get(`${name}.b`)?.data;
  const out = new Float64Array(x.length);
  const scale = new Float64Array(n);
  for (let k = 0; k < n; k++) {
    let mean = 0;
    for (let c = 0; c < d; c++) mean += x[k * d + c];
    mean /= d;
    let square = 0;
    for (let c = 0; c < d; c++) {
      out[k * d + c] = x[k * d + c] - mean;
      square += out[k * d + c] ** 2;
    }
    scale[k] = Math.sqrt(square / d + EPSILON);
  }
  point(`${name}.hook_scale`, scale);
  for (let k = 0; k < n; k++) for (let c = 0; c < d; c++) out[k * d + c] /= scale[k];
  point(`${name}.hook_normalized`, out);
  for (let k = 0; k < n; k++) {
    for (let c = 0; c < d; c++) out[k * d + c] = out[k * d + c] * weight[c] + (bias ? bias[c] : 0);
  }
  return out;
}

/** @param {Float64Array} a @param {Float64Array} b */
function add(a, b) {
  const out = new Float64Array(a.length);
  for (let k = 0; k < a.length; k++) out[k] = a[k] + b[k];
  return out;
}

/** Adds a bias to each node, in place. @param {Float64Array} x @param {Float64Array | null | undefined} bias */
function addBias(x, bias) {
  if (!bias) return;
  for (let k = 0; k < x.length; k++) x[k] += bias[k % bias.length];
}
