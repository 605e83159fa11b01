/** What each path alone restores of a logit difference, as a list of shares. */

import { readFileSync } from "node:fs";
import { nextLogits } from "../../tbtt_interp/explore/web/engine/answers.js";
import { makeBatch } from "../../tbtt_interp/explore/web/engine/batch.js";
import { Model } from "../../tbtt_interp/explore/web/engine/model.js";
import { Paths } from "../../tbtt_interp/explore/web/engine/paths.js";
import { oneModel, readSafetensors } from "../../tbtt_interp/explore/web/engine/safetensors.js";
import { readPath } from "../../tbtt_interp/explore/web/state.js";

const { shape, weights, clean, corrupt, right, wrong, paths } = JSON.parse(readFileSync(0, "utf8"));
const bytes = readFileSync(weights);
const stacked = readSafetensors(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const model = new Model(shape, oneModel(stacked, 0));
const run = new Paths(model, makeBatch([corrupt]), makeBatch([clean]), new Map());
const difference = (tokens, hooks = new Map()) => {
  const logits = nextLogits(model, tokens, () => hooks);
  return logits[right] - logits[wrong];
};
const [none, whole] = [difference(corrupt), difference(clean)];
const share = (list) => (difference(corrupt, run.hooksOf(list.map(readPath))) - none) / (whole - none);
console.log(JSON.stringify(paths.map(share)));
