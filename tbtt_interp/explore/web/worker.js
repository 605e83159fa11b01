/** Trains a model, or asks a large one, beside the page, so that the page answers meanwhile. */

import { answerBatch, askAll } from "./engine/answers.js";
import { Model } from "./engine/model.js";
import { byTransformerLens, Trainer } from "./engine/training.js";
import { hooksOf, lookAt } from "./scene.js";

const SLICE = 60; // ms of steps between two looks at messages
/** @type {Trainer | null} */
let trainer = null;
let runs = false;
let until = 0;
let perSecond = 0;
let heard = true; // whether the page has drawn what was said last

/** Trains for a moment, says how far it is, and goes on until it is stopped or done. */
function work() {
  if (!runs || !trainer) return;
  const began = performance.now();
  const first = trainer.step;
  while (trainer.step < until && performance.now() - began < SLICE) trainer.advance();
  perSecond = (1000 * (trainer.step - first)) / (performance.now() - began);
  const diverged = !Number.isFinite(trainer.loss);
  if (trainer.step >= until || diverged) runs = false;
  if (heard || !runs) say(diverged);
  if (runs) setTimeout(work);
}

/** Says where training stands, with the weights. @param {boolean} diverged */
function say(diverged) {
  if (!trainer) return;
  heard = false;
  postMessage({
    step: trainer.step,
    loss: trainer.loss,
    perSecond,
    diverged,
    done: !runs,
    parameters: byTransformerLens(trainer.model.shape, trainer.weights),
  });
}

const AT_ONCE = 10; // examples that a large model is asked between two looks at messages
/** Large models, the last one last. @type {Map<string, Model>} */
const models = new Map();
/** What each pane asks, the newest alone. @type {any[]} */
const asked = [null, null];

/** Answers one part of what is asked, and goes on. */
function answer() {
  const now = asked.find((one) => one?.prompt) ?? asked.find((one) => one);
  if (!now) return;
  const model = /** @type {Model} */ (models.get(now.key));
  const ends = new Set(now.ends);
  if (now.prompt) {
    let said = 0;
    const longest = Math.max(...now.examples.map((/** @type {any} */ one) => one.answer.length));
    const hooksAt = (/** @type {number} */ start) => {
      postMessage({ keys: now.keys, words: `The model computes in the background: pass ${++said}…` });
      return hooksOf(now.pane, now.rule, start);
    };
    const changed = now.pane.cuts.length + now.pane.off.length > 0;
    postMessage({ keys: now.keys, look: lookAt(model, now.prompt, ends, hooksAt, changed, now.answer, longest + 2) });
    for (const one of asked) if (one?.keys[0] === now.keys[0]) one.prompt = null; // both panes may ask the same
  } else {
    const some = now.examples.slice(now.done, now.done + AT_ONCE);
    const hooks = hooksOf(now.everywhere, now.rule, 0);
    const { margins, wrong } = askAll(model, answerBatch(some, model.shape.n_ctx), ends, hooks);
    postMessage({ keys: now.keys, from: now.done, margins, wrong: [...wrong].map(([k, said]) => [now.done + k, said]) });
    const done = now.done + some.length;
    for (const one of asked) if (one?.keys[1] === now.keys[1]) one.done = done;
  }
  for (const one of asked) if (one && !one.prompt && one.done >= one.examples.length) asked[one.slot] = null;
  setTimeout(answer);
}

/** @param {any} one */
function ask(one) {
  if (one.parameters) models.set(one.key, new Model(one.shape, one.parameters));
  const model = /** @type {Model} */ (models.get(one.key));
  models.delete(one.key);
  models.set(one.key, model);
  const idle = !asked.some((other) => other);
  asked[one.slot] = one;
  for (const key of models.keys()) if (models.size > 2 && !asked.some((other) => other?.key === key)) models.delete(key);
  if (idle) setTimeout(answer);
}

addEventListener("message", ({ data }) => {
  if (data.ask) return ask(data.ask);
  if (data.heard) {
    heard = true;
    return;
  }
  if (data.start) {
    const { shape, settings, lines, framing, seed } = data.start;
    if (data.estimate) postMessage({ estimate: (settings.steps * new Trainer(shape, settings, lines, framing, seed).measure()) / 1000 });
    if (data.estimate) return;
    trainer = new Trainer(shape, settings, lines, framing, seed);
    until = settings.steps;
    heard = true;
  }
  const ran = runs;
  runs = !data.stop;
  if (data.stop) say(false);
  if (runs && !ran) setTimeout(work);
});
