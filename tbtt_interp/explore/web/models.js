/** Models on screen: found by run, seed and step, and kept while the page is open. */

import { answerBatch } from "./engine/answers.js";
import { Model } from "./engine/model.js";
import { oneModel } from "./engine/safetensors.js";
import { readRun, readWeights } from "./source.js";
import { Task } from "./task.js";

/** @typedef {import("./source.js").RunTable} RunTable */
/** @typedef {import("./source.js").Listed} Listed */
/** @typedef {import("./state.js").Pane} Pane */

/**
 * One model of a run, open.
 * @typedef {object} Opened
 * @property {string} key
 * @property {RunTable} run
 * @property {Task} task
 * @property {number} seed
 * @property {number} step that is shown
 * @property {number[]} steps that are kept of this seed
 * @property {number} number of the run
 * @property {number} place of the checkpoint in the run's list
 * @property {Model} model
 * @property {import("./engine/answers.js").AnswerBatch} answers
 */

/** @type {Map<string, Opened>} */
const opened = new Map();
/** @type {Map<string, {task: Task, answers: import("./engine/answers.js").AnswerBatch}>} */
const tasks = new Map();

/** The steps that are kept of a seed, and the place of each in the run's list. @param {RunTable} run @param {number} seed */
export function keptSteps(run, seed) {
  /** @type {Map<number, number>} */
  const found = new Map();
  run.checkpoints.forEach(({ step, seeds }, place) => {
    if (seeds.includes(seed) && !found.has(step)) found.set(step, place);
  });
  return found;
}

/** The kept step that is nearest to one that was asked for; -1 asks for the last. @param {number[]} steps @param {number} wanted */
export function nearestStep(steps, wanted) {
  if (wanted < 0) return steps[steps.length - 1];
  return steps.reduce((best, step) => (Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best), steps[0]);
}

/**
 * The model that a pane shows. Errors are sentences for the page.
 * @param {Listed[]} runs @param {Pane} pane @param {number} wanted step
 * @returns {Promise<Opened>}
 */
export async function openModel(runs, pane, wanted) {
  const number = runs.findIndex((row) => row.name === pane.run);
  if (number < 0) throw new Error(`The run ${pane.run || "(none)"} is not open here: choose another.`);
  const run = await readRun(number);
  const seed = pane.seed < 0 ? run.seeds[0].seed : pane.seed;
  if (!run.seeds.some((row) => row.seed === seed)) {
    const seeds = run.seeds.map((row) => row.seed).join(", ");
    throw new Error(`${run.name} has no seed ${seed}: choose one of ${seeds}.`);
  }
  const kept = keptSteps(run, seed);
  const steps = [...kept.keys()];
  if (!steps.length) throw new Error(`${run.name} has no checkpoint of seed ${seed}: choose another.`);
  const step = nearestStep(steps, wanted);
  const key = `${run.name}/${seed}/${step}`;
  const known = opened.get(key);
  if (known) return known;
  const place = kept.get(step) ?? 0;
  const stacked = await readWeights(number, place);
  const index = run.checkpoints[place].seeds.indexOf(seed);
  const parameters = oneModel(stacked, index);
  for (const { data } of parameters.values()) {
    if (!data.every(Number.isFinite)) {
      throw new Error(`Seed ${seed} of ${run.name} diverged: choose another seed, or an earlier step.`);
    }
  }
  const shared = taskOf(run, seed);
  const found = { key, run, seed, step, steps, number, place, model: new Model(run.shape, parameters), ...shared };
  if (opened.size > 120) opened.delete(/** @type {string} */ (opened.keys().next().value));
  opened.set(key, found);
  return found;
}

/** @param {RunTable} run @param {number} seed */
function taskOf(run, seed) {
  const key = `${run.name}/${seed}`;
  let found = tasks.get(key);
  if (!found) {
    const task = new Task(run, seed);
    found = { task, answers: answerBatch(task.tokens, run.shape.n_ctx) };
    tasks.set(key, found);
  }
  return found;
}

/** A model that is not a run's: one that is trained in the page. @param {Opened} like @param {Model} model @param {number} step */
export function asOpened(like, model, step) {
  return { ...like, key: `page/${step}/${Math.random()}`, model, step, steps: [step] };
}
