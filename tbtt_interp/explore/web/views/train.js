/** Training in the page: a small model from scratch, in a worker, its grids turning blue. */

import { Model } from "../engine/model.js";
import { settingsOf, shapeOf } from "../engine/training.js";
import { asOpened } from "../models.js";
import { Task } from "../task.js";
import { answerBatch } from "../engine/answers.js";
import { count, h, startWorker } from "../ui/dom.js";

/** @typedef {import("../models.js").Opened} Opened */
/** @typedef {import("../state.js").State} State */

const REST = 3; // times as long as a drawing takes is left to the page, so that it answers meanwhile

/** What is trained now, and what was chosen for it. @type {{opened: Opened | null, worker: Worker | null, state: string, words: string, trained: string, estimates: Map<string, number>}} */
const training = { opened: null, worker: null, state: "none", words: "", trained: "", estimates: new Map() };

/** The model that is trained in the page, where there is one. */
export function trainedModel() {
  return training.opened;
}

/** The choices of this view; `like` is a run whose task is trained on. @param {Opened | null} like @param {State} state */
export function trainChoices(like, state) {
  if (!like?.task.grids.length)
    return [h("p", { class: "message" }, "Training in the page needs a run of the task arithmetic: choose one for model B.")];
  const chosen = state.train;
  const field = (/** @type {string} */ name, /** @type {string} */ words, /** @type {[string, string][] | null} */ options) => {
    const own = { "data-train": name, "data-key": `train-${name}` };
    const control = options
      ? h("select", own, ...options.map(([value, text]) => h("option", { value, selected: value === chosen[name] }, text)))
      : h("input", { ...own, type: "number", min: 0, max: 999999, value: chosen[name], class: "short" });
    return h("label", { class: "choice keep" }, h("span", {}, words), control);
  };
  const same = (/** @type {string} */ value) => /** @type {[string, string]} */ ([value, value]);
  const digits = [..."0123456789"];
  const pairs = digits.flatMap((a) =>
    digits
      .filter((b) => b >= a)
      .map((b) => /** @type {[string, string]} */ ([`${a},${b}`, a === b ? `${a} and ${b}` : `${a} and ${b}, ${b} and ${a}`])),
  );
  const act = (/** @type {string} */ verb, /** @type {string} */ words, on = true) =>
    h("button", { type: "button", "data-act": verb, "data-key": verb, disabled: !on }, words);
  const isRunning = training.state === "runs";
  if (!isRunning && chosen.framing === "shuffled") estimate(like, chosen);
  return [
    h(
      "div",
      { class: "choices" },
      field("framing", "trained on", [
        ["line", "whole lines"],
        ["shuffled", "shuffled windows"],
      ]),
      field("width", "width", [
        ["8", "8"],
        ["14", "14 (small)"],
        ["20", "20"],
        ["28", "28 (medium)"],
      ]),
      field("rate", "learning rate", ["0.003", "0.01", "0.03"].map(same)),
      field("seed", "seed", null),
      field("out", "hold out", pairs),
      h(
        "span",
        { class: "group" },
        act("train", "Train from scratch"),
        act("train-stop", "Stop", isRunning),
        act("train-on", "Go on", training.state === "stopped"),
      ),
    ),
    h(
      "p",
      { role: "status", id: "train-words" },
      (isRunning || training.trained === JSON.stringify(chosen) ? training.words : "") || before(chosen),
    ),
  ];
}

/** What is said before training: how long it will take, and what it makes. @param {Record<string, string>} chosen */
function before(chosen) {
  const known = training.estimates.get(`${chosen.framing} ${chosen.width}`);
  const time =
    chosen.framing === "line"
      ? ""
      : known
        ? `${count(settingsOf(chosen.framing, 1).steps)} steps take about ${duration(known)} here. `
        : "Measuring how long it will take… ";
  return `${time}Model A is trained here; model B stays as chosen, for comparison. Model A's weights are computed in float64 by this browser, so they are not the same as those that the package trains.`;
}

/** @param {number} seconds */
const duration = (seconds) => (seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`);

/** Measures in a worker, once for each framing and width, how long training will take. @param {Opened} like @param {Record<string, string>} chosen */
function estimate(like, chosen) {
  const key = `${chosen.framing} ${chosen.width}`;
  if (training.estimates.has(key)) return;
  training.estimates.set(key, 0);
  const worker = startWorker();
  worker.onmessage = ({ data }) => {
    training.estimates.set(key, data.estimate);
    worker.terminate();
    document.dispatchEvent(new CustomEvent("redraw"));
  };
  worker.postMessage({ estimate: true, start: startOf(like, chosen) });
}

/** Starts, stops, or goes on. @param {string} verb @param {Opened | null} like @param {State} state */
export function train(verb, like, state) {
  if (verb === "train-stop") {
    training.worker?.postMessage({ stop: true });
    training.state = "stopped";
  } else if (verb === "train-on") {
    training.worker?.postMessage({});
    training.state = "runs";
  } else if (like) start(like, state.train);
  document.dispatchEvent(new CustomEvent("redraw"));
}

/** The examples that a choice holds out, by number. @param {Opened} like @param {Record<string, string>} chosen */
function heldOutOf({ run }, chosen) {
  const pair = chosen.out.split(",").sort().join();
  const examples = run.examples[run.seeds[0].examples];
  return examples.flatMap(({ labels }, k) => ([labels.a, labels.b].map(String).sort().join() === pair ? [k] : []));
}

/** What a worker trains. @param {Opened} like @param {Record<string, string>} chosen */
function startOf(like, chosen) {
  const { task, run } = like;
  const examples = run.examples[run.seeds[0].examples];
  const out = new Set(heldOutOf(like, chosen));
  return {
    shape: shapeOf(Number(chosen.width), Math.max(...examples.map((e) => e.line.length)), run.vocabulary.length),
    settings: settingsOf(chosen.framing, Number(chosen.rate)),
    lines: examples.filter((_, k) => !out.has(k)).map((e) => task.encode(e.line)),
    framing: chosen.framing,
    seed: Number(chosen.seed),
  };
}

/** @param {Opened} like @param {Record<string, string>} chosen */
function start(like, chosen) {
  const { run } = like;
  const begin = startOf(like, chosen);
  const { shape, framing, seed } = begin;
  const { steps } = begin.settings;
  const own = {
    ...run,
    name: `trained here, width ${chosen.width}, seed ${seed}, ${framing === "line" ? "whole lines" : "shuffled windows"}`,
    framing,
    size: `width ${chosen.width}`,
    shape,
    steps,
    seeds: [{ seed, examples: run.seeds[0].examples, held_out: heldOutOf(like, chosen), order: null }],
    checkpoints: [],
    metrics: { steps: /** @type {number[]} */ ([]), seeds: { [seed]: { loss: [], seen: [], held_out: [], order: [] } } },
  };
  const task = new Task(own, seed);
  const base = { ...like, run: own, task, seed, answers: answerBatch(task.tokens, shape.n_ctx) };
  training.worker?.terminate();
  training.worker = startWorker();
  Object.assign(training, { state: "runs", words: "starting…", opened: null, trained: JSON.stringify(chosen) });
  training.worker.onmessage = ({ data }) => heard(data, base, own, steps);
  training.worker.onerror = () => {
    Object.assign(training, { state: "none", words: "The training stopped with an error: reload the page." });
    document.dispatchEvent(new CustomEvent("redraw"));
  };
  training.worker.postMessage({ start: begin });
}

/** @param {any} said @param {any} base @param {any} own @param {number} steps */
function heard(said, base, own, steps) {
  const began = performance.now();
  training.opened = asOpened(base, new Model(own.shape, said.parameters), said.step);
  const left = (steps - said.step) / said.perSecond;
  const ends = said.diverged
    ? "It diverged: its weights are not finite; try a lower learning rate."
    : training.state === "stopped"
      ? "stopped"
      : said.done
        ? "done"
        : `about ${duration(left)} left`;
  training.words = `step ${count(said.step)} of ${count(steps)}, loss ${said.loss.toFixed(3)} nats per character, ${said.perSecond.toFixed(0)} steps per second; ${ends}`;
  if (said.done && training.state === "runs") training.state = "done";
  note(own, said);
  document.dispatchEvent(new CustomEvent("redraw"));
  const { worker } = training;
  requestAnimationFrame(() => setTimeout(() => worker?.postMessage({ heard: true }), Math.max(80, REST * (performance.now() - began))));
}

/** Adds a point to the curves. @param {any} own @param {any} said */
function note(own, said) {
  const { metrics, seeds } = own;
  if (metrics.steps.length && metrics.steps[metrics.steps.length - 1] >= said.step) return;
  metrics.steps.push(said.step);
  metrics.seeds[seeds[0].seed].loss.push(said.loss);
}

/** Notes what the model answers now, for the curves. @param {Opened} opened @param {{seen: number, seenOf: number, heldOut: number, heldOutOf: number}} counts */
export function noteCounts(opened, counts) {
  if (opened !== training.opened) return;
  const own = opened.run.metrics.seeds[String(opened.seed)];
  while (own.seen.length < own.loss.length) {
    own.seen.push(counts.seen / counts.seenOf);
    own.held_out.push(counts.heldOutOf ? counts.heldOut / counts.heldOutOf : null);
    own.order.push(null);
  }
}
