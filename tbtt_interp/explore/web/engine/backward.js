/** The gradient of the loss by every parameter, written out: backpropagation by hand. */

import { forward } from "./model.js";
import { geluSlope, product, transpose } from "./numbers.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./batch.js").Batch} Batch */

/**
 * What is to be predicted: at `node[k]` the token `token[k]`, counted `weight[k]` in the loss.
 * Weights sum to 1, so that the loss is a mean in nats per character.
 * @typedef {{node: Int32Array, token: Int32Array, weight: Float64Array}} Targets
 */

/** Gradients in the layout of a model's own matrices, by TransformerLens's names. @typedef {Map<string, Float64Array>} Gradients */

/**
 * The loss on some targets, and its gradients by the model's own matrices: `embed.W_E`,
 * `pos_embed.W_pos`, `ln_final.w`, and of each block `qkv`, `out`, `readMlp`, `writeMlp`, `ln1.w`, `ln2.w`.
 * @param {Model} model tied and without biases @param {Batch} batch @param {Targets} targets
 * @returns {{loss: number, gradients: Gradients}}
 */
export function lossAndGradients(model, batch, targets) {
  const { layers, d_model: d, d_mlp: m, d_vocab } = model.shape;
  const n = batch.size;
  const { logits, cache } = forward(model, batch, { keep: needed });
  /** @param {string} site */
  const at = (site) => /** @type {import("./model.js").Activation} */ (cache.get(site)).data;
  /** @type {Gradients} */
  const gradients = new Map();
  const { loss, slope } = lossSlope(logits, d_vocab, targets);

  const last = scaled(at("ln_final.hook_normalized"), model.tensor("ln_final.w").data);
  gradients.set("embed.W_E", outer(slope, last, n, d_vocab, d));
  let stream = throughNorm(model, "ln_final", product(slope, transpose(model.unembed, d_vocab, d), n, d, d_vocab), at, gradients);

  for (let layer = layers - 1; layer >= 0; layer--) {
    const name = `blocks.${layer}`;
    const block = model.blocks[layer];
    const pre = at(`${name}.mlp.hook_pre`);
    gradients.set(`${name}.writeMlp`, outer(stream, at(`${name}.mlp.hook_post`), n, d, m));
    const hidden = product(stream, transpose(block.writeMlp, d, m), n, m, d);
    for (let k = 0; k < hidden.length; k++) hidden[k] *= geluSlope(pre[k]);
    const readMlp = scaled(at(`${name}.ln2.hook_normalized`), model.tensor(`${name}.ln2.w`).data);
    gradients.set(`${name}.readMlp`, outer(hidden, readMlp, n, m, d));
    const intoMlp = product(hidden, transpose(block.readMlp, m, d), n, d, m);
    stream = sum(stream, throughNorm(model, `${name}.ln2`, intoMlp, at, gradients));

    gradients.set(`${name}.out`, outer(stream, at(`${name}.attn.hook_z`), n, d, d));
    const z = product(stream, transpose(block.out, d, d), n, d, d);
    const roles = throughAttention(model, batch, name, z, at);
    const read = scaled(at(`${name}.ln1.hook_normalized`), model.tensor(`${name}.ln1.w`).data);
    const qkv = new Float64Array(3 * d * d);
    let intoHeads = new Float64Array(n * d);
    roles.forEach((own, role) => {
      qkv.set(outer(own, read, n, d, d), role * d * d);
      const weights = block.qkv.subarray(role * d * d, (role + 1) * d * d);
      intoHeads = sum(intoHeads, product(own, transpose(weights, d, d), n, d, d));
    });
    gradients.set(`${name}.qkv`, qkv);
    stream = sum(stream, throughNorm(model, `${name}.ln1`, intoHeads, at, gradients));
  }
  const embed = /** @type {Float64Array} */ (gradients.get("embed.W_E"));
  const positions = new Float64Array(model.positions.length);
  for (let k = 0; k < n; k++) {
    for (let c = 0; c < d; c++) {
      embed[batch.tokens[k] * d + c] += stream[k * d + c];
      positions[batch.pos[k] * d + c] += stream[k * d + c];
    }
  }
  gradients.set("pos_embed.W_pos", positions);
  return { loss, gradients };
}

/** @param {string} site */
function needed(site) {
  return /hook_(normalized|scale|q|k|v|z|pattern|pre|post)$/.test(site);
}

/** Cross-entropy and its slope by the logits. @param {Float64Array} logits @param {number} vocabulary @param {Targets} targets */
function lossSlope(logits, vocabulary, { node, token, weight }) {
  const slope = new Float64Array(logits.length);
  const total = new Float64Array(logits.length / vocabulary);
  for (let k = 0; k < node.length; k++) total[node[k]] += weight[k];
  const logOf = new Float64Array(total.length);
  for (let row = 0; row < total.length; row++) {
    if (!total[row]) continue;
    const start = row * vocabulary;
    let top = -Infinity;
    for (let t = 0; t < vocabulary; t++) top = Math.max(top, logits[start + t]);
    let size = 0;
    for (let t = 0; t < vocabulary; t++) size += Math.exp(logits[start + t] - top);
    logOf[row] = top + Math.log(size);
    for (let t = 0; t < vocabulary; t++) slope[start + t] = total[row] * Math.exp(logits[start + t] - logOf[row]);
  }
  let loss = 0;
  for (let k = 0; k < node.length; k++) {
    const at = node[k] * vocabulary + token[k];
    loss += weight[k] * (logOf[node[k]] - logits[at]);
    slope[at] -= weight[k];
  }
  return { loss, slope };
}

/** The gradient by a matrix [rows, columns] of y = x W^T, from dy and x. @param {Float64Array} dy @param {Float64Array} x @param {number} n @param {number} rows @param {number} columns */
function outer(dy, x, n, rows, columns) {
  return product(transpose(dy, n, rows), transpose(x, n, columns), rows, columns, n);
}

/** Each node's channels times a weight of each channel. @param {Float64Array} x @param {import("./numbers.js").Numbers} weight */
function scaled(x, weight) {
  const d = weight.length;
  return x.map((value, k) => value * weight[k % d]);
}

/** @param {Float64Array} a @param {Float64Array} b @returns {Float64Array<ArrayBuffer>} */
function sum(a, b) {
  const out = new Float64Array(a.length);
  for (let k = 0; k < a.length; k++) out[k] = a[k] + b[k];
  return out;
}

/**
 * Back through a LayerNorm without bias; notes the gradient by its weight.
 * @param {Model} model @param {string} name @param {Float64Array} slope by its output
 * @param {(site: string) => Float64Array} at @param {Gradients} gradients
 */
function throughNorm(model, name, slope, at, gradients) {
  const weight = model.tensor(`${name}.w`).data;
  const [normalized, scale] = [at(`${name}.hook_normalized`), at(`${name}.hook_scale`)];
  const d = weight.length;
  const own = new Float64Array(d);
  const out = new Float64Array(slope.length);
  for (let k = 0; k < scale.length; k++) {
    let [mean, along] = [0, 0];
    for (let c = 0; c < d; c++) {
      const at = k * d + c;
      own[c] += slope[at] * normalized[at];
      out[at] = slope[at] * weight[c];
      mean += out[at];
      along += out[at] * normalized[at];
    }
    mean /= d;
    along /= d;
    for (let c = 0; c < d; c++) {
      const at = k * d + c;
      out[at] = (out[at] - mean - normalized[at] * along) / scale[k];
    }
  }
  gradients.set(`${name}.w`, own);
  return out;
}

/**
 * Back through attention, from the slope by z to those by queries, keys and values.
 * @param {Model} model @param {Batch} batch @param {string} name @param {Float64Array} z
 * @param {(site: string) => Float64Array} at
 */
function throughAttention(model, batch, name, z, at) {
  const { heads, d_model: d } = model.shape;
  const { size: e } = model;
  const { size: n, width, keys, pos } = batch;
  const [q, k, v, pattern] = ["q", "k", "v", "pattern"].map((site) => at(`${name}.attn.hook_${site}`));
  const [dq, dk, dv] = [0, 1, 2].map(() => new Float64Array(n * d));
  const slopes = new Float64Array(width);
  const scale = 1 / Math.sqrt(e);
  for (let node = 0; node < n; node++) {
    for (let h = 0; h < heads; h++) {
      const mine = node * d + h * e;
      const row = (node * heads + h) * width;
      let mean = 0;
      for (let key = 0; key <= pos[node]; key++) {
        const other = keys[node * width + key] * d + h * e;
        const weight = pattern[row + key];
        let along = 0;
        for (let c = 0; c < e; c++) {
          along += z[mine + c] * v[other + c];
          dv[other + c] += weight * z[mine + c];
        }
        slopes[key] = along;
        mean += weight * along;
      }
      for (let key = 0; key <= pos[node]; key++) {
        const other = keys[node * width + key] * d + h * e;
        const slope = pattern[row + key] * (slopes[key] - mean) * scale;
        for (let c = 0; c < e; c++) {
          dq[mine + c] += slope * k[other + c];
          dk[other + c] += slope * q[mine + c];
        }
      }
    }
  }
  return [dq, dk, dv];
}
