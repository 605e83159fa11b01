/** Path patching: what one component writes in another run, sent to the logits along one path alone. */

import { combine } from "./interventions.js";
import { forward } from "./model.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Hooks} Hooks */
/** @typedef {Map<string, import("./model.js").Activation>} Cache */
/** A component (embed, head, neuron, mlp) or the input of one (q, k, v, mlp). @typedef {{kind: string, layer: number, unit: number}} Part */
/** From a sender through receivers, in order, to the logits. @typedef {{sender: Part, via: Part[]}} Path */

export const EMBED = { kind: "embed", layer: -1, unit: 0 };

/** Where in the order of a forward pass a part computes. @param {Part} part */
const stage = ({ kind, layer }) => 2 * layer + (kind === "mlp" || kind === "neuron" ? 1 : 0);

/** The component that reads at a receiver. @param {Part} part @returns {Part} */
const componentOf = (part) => (part.kind === "mlp" ? part : { ...part, kind: "head" });

/** Whether a path goes forward in the model's computation and its parts are there. @param {Path} path @param {import("./model.js").Shape} shape */
export function isPath({ sender, via }, { layers, heads, d_mlp }) {
  const units = /** @type {Record<string, number>} */ ({ mlp: 1, neuron: d_mlp, embed: 1 });
  const there = (/** @type {Part} */ part) => part.layer < layers && part.unit < (units[part.kind] ?? heads);
  return [sender, ...via].every((part, k) => there(part) && (!k || stage([sender, ...via][k - 1]) < stage(part)));
}

/**
 * The ways on from a sender: straight to the logits, through one receiver, and in one layer through
 * a head and then the MLP.
 * @param {import("./model.js").Shape} shape @returns {Part[][]}
 */
export function routesOf(shape) {
  /** @type {Part[]} */
  const receivers = [];
  for (let layer = 0; layer < shape.layers; layer++) {
    for (let unit = 0; unit < shape.heads; unit++) for (const kind of "qkv") receivers.push({ kind, layer, unit });
    receivers.push({ kind: "mlp", layer, unit: 0 });
  }
  const two = shape.layers === 1 ? receivers.slice(0, -1).map((head) => [head, receivers[receivers.length - 1]]) : [];
  return [[], ...receivers.map((one) => [one]), ...two];
}

/** Embedding, heads and MLPs. @param {import("./model.js").Shape} shape @returns {Part[]} */
export function sendersOf(shape) {
  /** @type {Part[]} */
  const found = [EMBED];
  for (let layer = 0; layer < shape.layers; layer++) {
    for (let unit = 0; unit < shape.heads; unit++) found.push({ kind: "head", layer, unit });
    found.push({ kind: "mlp", layer, unit: 0 });
  }
  return found;
}

/** @param {Part} part */
function siteOf({ kind, layer }) {
  if (kind === "embed") return "blocks.0.hook_resid_pre";
  const sites = { head: "attn.hook_result", neuron: "mlp.hook_post", mlp: "hook_mlp_out" };
  return `blocks.${layer}.${/** @type {any} */ (sites)[kind]}`;
}

/** What a component writes, [node, d_model]. @param {Model} model @param {Cache} cache @param {Part} part */
function written(model, cache, part) {
  const d = model.shape.d_model;
  const found = cache.get(siteOf(part));
  if (!found) throw new Error(`the run has no ${siteOf(part)}`);
  const { data, width, batch } = found;
  const out = new Float64Array(batch.size * d);
  const out_of = part.kind === "neuron" ? model.blocks[part.layer].writeMlp : null;
  const start = part.kind === "head" ? part.unit * d : 0;
  for (let node = 0; node < batch.size; node++) {
    for (let c = 0; c < d; c++) {
      out[node * d + c] = out_of
        ? data[node * width + part.unit] * out_of[c * model.shape.d_mlp + part.unit]
        : data[node * width + start + c];
    }
  }
  return out;
}

/** Adds a change to what stands at a site, at the change's positions. @param {string} site @param {Float64Array} change @param {number} d @param {number} [head] @returns {Hooks} */
export function adding(site, change, d, head = 0) {
  return new Map([
    [
      site,
      [
        ({ data, width, batch }) => {
          for (let node = 0; node < batch.size; node++) {
            const from = batch.pos[node] * d;
            for (let c = 0; c < d && from < change.length; c++) data[node * width + head * d + c] += change[from + c];
          }
        },
      ],
    ],
  ]);
}

/** A base run and a source run of two prompts of one length, each one node a position. */
export class Paths {
  /** @param {Model} model @param {import("./batch.js").Batch} base @param {import("./batch.js").Batch} source @param {Hooks} hooks of the base run @param {Hooks} [sourceHooks] */
  constructor(model, base, source, hooks, sourceHooks = hooks) {
    this.model = model;
    this.base = base;
    this.hooks = hooks;
    const kept = { keep: (/** @type {string} */ site) => /resid_pre|hook_result|hook_post|hook_mlp_out/.test(site), split: true };
    this.own = forward(model, base, { hooks, ...kept }).cache;
    this.source = forward(model, source, { hooks: sourceHooks, ...kept }).cache;
    /** @type {Map<string, Float64Array>} */
    this.known = new Map(); // changes by sender and receivers, since paths begin alike
  }

  /**
   * What a path adds to the input of the last LayerNorm, [node, d_model]; other paths stay as in the base run.
   * Source: path patching, Goldowsky-Dill et al. 2023.
   * @param {Path} path @returns {Float64Array}
   */
  change({ sender, via }) {
    const key = JSON.stringify([sender, via]);
    let found = this.known.get(key);
    if (found) return found;
    const { model } = this;
    const d = model.shape.d_model;
    if (!via.length) found = minus(written(model, this.source, sender), written(model, this.own, sender));
    else {
      const reader = via[via.length - 1];
      const site = `blocks.${reader.layer}.hook_${reader.kind === "mlp" ? "mlp_in" : `${reader.kind}_input`}`;
      const before = this.change({ sender, via: via.slice(0, -1) });
      const hooks = combine(this.hooks, adding(site, before, d, reader.unit));
      const next = componentOf(reader);
      const { cache } = forward(model, this.base, { hooks, keep: (name) => name === siteOf(next), split: true });
      found = minus(written(model, cache, next), written(model, this.own, next));
    }
    this.known.set(key, found);
    return found;
  }

  /** Hooks that let some paths carry the source run, each by its own change of the logits' input. @param {Path[]} paths */
  hooksOf(paths) {
    const { layers, d_model } = this.model.shape;
    return combine(...paths.map((path) => adding(`blocks.${layers - 1}.hook_resid_post`, this.change(path), d_model)));
  }
}

/** @param {Float64Array} a @param {Float64Array} b */
function minus(a, b) {
  return a.map((x, k) => x - b[k]);
}
