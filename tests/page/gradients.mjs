/** The loss of a model on some lines, its gradients, and its weights after some steps. */

import { readFileSync, writeFileSync } from "node:fs";
import { lossAndGradients } from "../../tbtt_interp/explore/web/engine/backward.js";
import { oneModel, readSafetensors } from "../../tbtt_interp/explore/web/engine/safetensors.js";
import { byTransformerLens, Trainer } from "../../tbtt_interp/explore/web/engine/training.js";

const { shape, weights, lines, settings, steps, out } = JSON.parse(readFileSync(0, "utf8"));
const bytes = readFileSync(weights);
const parameters = oneModel(readSafetensors(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length)), 0);
const trainer = new Trainer(shape, settings, lines, "line", 0, parameters);
const { batch, targets } = trainer.whole;
const { loss, gradients } = lossAndGradients(trainer.model, batch, targets);
const plain = (arrays) => Object.fromEntries([...byTransformerLens(shape, arrays)].map(([name, { data }]) => [name, [...data]]));
const first = plain(gradients);
const began = performance.now();
for (let k = 0; k < steps; k++) trainer.advance();
const perSecond = (1000 * steps) / (performance.now() - began);
writeFileSync(out, JSON.stringify({ gradients: first, weights: plain(trainer.weights) }));
console.log(JSON.stringify({ loss, perSecond, nodes: batch.size }));
