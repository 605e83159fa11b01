/** Trains a model beside the page, so that the page answers meanwhile. */

import { byTransformerLens, Trainer } from "./engine/training.js";

const SLICE = 60; // ms of steps between two looks at messages
/** @type {Trainer | null} */
let trainer = null;
let runs = false;
let until = 0;

/** Trains for a moment, says how far it is, and goes on until it is stopped or done. */
function work() {
  if (!runs || !trainer) return;
  const began = performance.now();
  const first = trainer.step;
  while (trainer.step < until && performance.now() - began < SLICE) trainer.advance();
  const perSecond = (1000 * (trainer.step - first)) / (performance.now() - began);
  const diverged = !Number.isFinite(trainer.loss);
  if (trainer.step >= until || diverged) runs = false;
  postMessage({
    step: trainer.step,
    loss: trainer.loss,
    perSecond,
    diverged,
    done: !runs,
    parameters: byTransformerLens(trainer.model.shape, trainer.weights),
  });
  if (runs) setTimeout(work);
}

addEventListener("message", ({ data }) => {
  if (data.start) {
    const { shape, settings, lines, framing, seed } = data.start;
    trainer = new Trainer(shape, settings, lines, framing, seed);
    until = settings.steps;
  }
  const ran = runs;
  runs = !data.stop;
  if (runs && !ran) setTimeout(work);
});
