/** Compares the page's engine with activations that TransformerLens computed. Prints the largest
 * difference of a site, divided by that model's largest logit, as one line of JSON. */

import { readFileSync } from "node:fs";
import { makeBatch } from "../../tbtt_interp/explore/web/engine/batch.js";
import { forward, Model } from "../../tbtt_interp/explore/web/engine/model.js";
import { oneModel, readSafetensors } from "../../tbtt_interp/explore/web/engine/safetensors.js";

const bytes = (path) => {
  const content = readFileSync(path);
  return content.buffer.slice(content.byteOffset, content.byteOffset + content.length);
};

const worst = {};
for (const { shape, weights, expected, models, share } of JSON.parse(readFileSync(0, "utf8"))) {
  const stacked = readSafetensors(bytes(weights));
  const tensors = readSafetensors(bytes(expected));
  for (const { name, index } of models) {
    const model = new Model(shape, oneModel(stacked, index));
    const tokens = tensors.get(`${name}/tokens`);
    const [rows, length] = tokens.shape;
    const sequences = Array.from({ length: rows }, (_, k) => tokens.data.subarray(k * length, (k + 1) * length));
    const batch = makeBatch(sequences, share);
    const { logits, cache } = forward(model, batch, { keep: () => true });
    const given = tensors.get(`${name}/logits`).data;
    const largest = given.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const compare = (site, theirs, own) => {
      const found = Math.abs(theirs - own) / largest;
      if (!(found <= (worst[site] ?? 0))) worst[site] = Number.isNaN(found) ? 9 : found;
    };
    const sites = [...tensors.keys()].filter((key) => key.startsWith(`${name}/`));
    for (const key of sites) {
      const site = key.slice(name.length + 1);
      if (site === "tokens") continue;
      const { data: theirs, shape: size } = tensors.get(key);
      const own = site === "logits" ? { data: logits, width: shape.d_vocab, heads: 1 } : cache.get(site);
      if (!own) throw new Error(`the page has no hook point ${site}`);
      const perRow = theirs.length / rows;
      for (let row = 0; row < rows; row++) {
        for (let k = 0; k < perRow; k++) {
          let pos, within;
          if (site.endsWith("hook_pattern") || site.endsWith("hook_attn_scores")) {
            const [head, query, key] = [Math.floor(k / length ** 2), Math.floor(k / length) % length, k % length];
            if (key > query) continue; // masked
            [pos, within] = [query, head * length + key];
          } else {
            const width = perRow / length;
            [pos, within] = [Math.floor(k / width), k % width];
          }
          compare(site.replace(/blocks\.\d+/, "blocks"), theirs[row * perRow + k], own.data[batch.nodes[row][pos] * own.width + within]);
        }
      }
      void size;
    }
  }
}
console.log(JSON.stringify(worst));
