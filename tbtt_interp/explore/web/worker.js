/** Trains a model beside the page, so that the page answers meanwhile. */

import { byTransformerLens, Trainer } from "./engine/training.js";

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

addEventListener("message", ({ data }) => {
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
