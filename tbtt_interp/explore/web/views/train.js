/** Training in the page: a small model from scratch, in a worker, its grids turning blue. */

import { Model } from "../engine/model.js";
import { asOpened } from "../models.js";
import { Task } from "../task.js";
import { answerBatch } from "../engine/answers.js";
import { count, h } from "../ui/dom.js";

/** @typedef {import("../models.js").Opened} Opened */

const DEFAULTS = {
  batch: 882,
  learning_rate: 0.01,
  min_learning_rate: 1e-4,
  weight_decay: 0,
  beta1: 0.9,
  beta2: 0.99,
  epsilon: 1e-8,
  clip: 1,
};
const REST = 3; // times as long as a drawing takes is left to the page, so that it answers meanwhile
const STEPS = { line: 3000, shuffled: 6000 };

/** What is trained now. @type {{opened: Opened | null, worker: Worker | null, state: string, words: string}} */
const training = { opened: null, worker: null, state: "none", words: "" };

/** The model that is trained in the page, where there is one. */
export function trainedModel() {
  return training.opened;
}

/** The choices of this view; `like` is a run whose task is trained on. @param {Opened | null} like */
export function trainChoices(like) {
  const task = like?.task;
  if (!task?.grids.length)
    return [h("p", { class: "message" }, "Training in the page needs a run of the task arithmetic: choose one for model B.")];
  const field = (/** @type {string} */ id, /** @type {string} */ words, /** @type {HTMLElement} */ control) => {
    control.id = `train-${id}`;
    control.dataset.key = `train-${id}`;
    const kept = remembered.get(id);
    if (kept !== undefined) /** @type {HTMLInputElement} */ (control).value = kept;
    control.addEventListener("input", () => remembered.set(id, /** @type {HTMLInputElement} */ (control).value));
    return h("label", { class: "choice keep" }, h("span", {}, words), control);
  };
  const select = (/** @type {[string, string][]} */ options) =>
    h("select", {}, ...options.map(([value, words]) => h("option", { value }, words)));
  const digits = Array.from({ length: 10 }, (_, k) => /** @type {[string, string]} */ ([String(k), String(k)]));
  const pair = (/** @type {string} */ id, /** @type {string} */ value) => {
    if (!remembered.has(id)) remembered.set(id, value);
  };
  pair("a", "5");
  pair("b", "7");
  const act = (/** @type {string} */ verb, /** @type {string} */ words, on = true) =>
    h("button", { type: "button", "data-act": verb, "data-key": verb, disabled: !on }, words);
  const runs = training.state === "runs";
  return [
    h(
      "div",
      { class: "choices" },
      field(
        "framing",
        "trained on",
        select([
          ["line", "whole lines"],
          ["shuffled", "shuffled windows"],
        ]),
      ),
      field(
        "width",
        "width",
        select([8, 14, 20, 28].map((k) => [String(k), `${k}${k === 14 ? " (small)" : k === 28 ? " (medium)" : ""}`])),
      ),
      field(
        "rate",
        "learning rate",
        select([
          ["0.003", "0.003"],
          ["0.01", "0.01"],
          ["0.03", "0.03"],
        ]),
      ),
      field("seed", "seed", h("input", { type: "number", min: 0, max: 999999, value: 0, class: "short" })),
      field("a", "hold out", select(digits)),
      field("b", "and", select(digits)),
      h(
        "span",
        { class: "group" },
        act("train", "Train from scratch"),
        act("train-stop", "Stop", runs),
        act("train-on", "Go on", training.state === "stopped"),
      ),
    ),
    h(
      "p",
      { role: "status", id: "train-words" },
      training.words ||
        "Model A is trained here; model B stays the run that is chosen, to compare. Its weights are this browser's float64, not the bytes of the package's kernel.",
    ),
  ];
}

/** What was typed into the fields. @type {Map<string, string>} */
const remembered = new Map([
  ["width", "14"],
  ["rate", "0.01"],
]);

/** Starts, stops, or goes on. @param {string} verb @param {Opened | null} like */
export function train(verb, like) {
  if (verb === "train-stop") {
    training.worker?.postMessage({ stop: true });
    training.state = "stopped";
  } else if (verb === "train-on") {
    training.worker?.postMessage({});
    training.state = "runs";
  } else if (like) start(like);
  document.dispatchEvent(new CustomEvent("redraw"));
}

/** @param {Opened} like */
function start(like) {
  const get = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(`train-${id}`)).value;
  const [framing, d, seed] = [get("framing"), Number(get("width")), Math.max(0, Math.round(Number(get("seed")) || 0))];
  const pair = [get("a"), get("b")].sort().join();
  const steps = /** @type {Record<string, number>} */ (STEPS)[framing];
  const settings = {
    ...DEFAULTS,
    steps,
    learning_rate: Number(get("rate")),
    warmup: Math.round(steps / 15),
    decay_until: Math.round((steps * 5) / 6),
  };
  const { run } = like;
  const examples = run.examples[run.seeds[0].examples];
  const heldOut = examples
    .map((e, k) => ({ e, k }))
    .filter(({ e }) => [e.labels.a, e.labels.b].map(String).sort().join() === pair)
    .map(({ k }) => k);
  const longest = Math.max(...examples.map((e) => e.line.length));
  const shape = { layers: 1, heads: 1, d_model: d, d_mlp: d, n_ctx: longest, d_vocab: run.vocabulary.length, tied: true };
  const own = {
    ...run,
    name: `trained here, width ${d}, seed ${seed}, ${framing === "line" ? "whole lines" : "shuffled windows"}`,
    framing,
    size: `width ${d}`,
    shape,
    steps,
    seeds: [{ seed, examples: run.seeds[0].examples, held_out: heldOut, order: null }],
    checkpoints: [],
    metrics: { steps: /** @type {number[]} */ ([]), seeds: { [seed]: { loss: [], seen: [], held_out: [], order: [] } } },
  };
  const task = new Task(own, seed);
  const base = { ...like, run: own, task, seed, answers: answerBatch(task.tokens, longest) };
  const out = new Set(heldOut);
  const lines = examples.filter((_, k) => !out.has(k)).map((e) => task.encode(e.line));
  training.worker?.terminate();
  training.worker = startWorker();
  Object.assign(training, { state: "runs", words: "starting…", opened: null });
  training.worker.onmessage = ({ data }) => heard(data, base, own, steps);
  training.worker.onerror = () => {
    training.words = "The worker broke: reload the page.";
    document.dispatchEvent(new CustomEvent("redraw"));
  };
  training.worker.postMessage({ start: { shape, settings, lines, framing, seed } });
}

function startWorker() {
  const inside = document.getElementById("page-worker");
  if (!inside) return new Worker("worker.js", { type: "module" });
  return new Worker(URL.createObjectURL(new Blob([inside.textContent ?? ""], { type: "text/javascript" })));
}

/** @param {any} said @param {any} base @param {any} own @param {number} steps */
function heard(said, base, own, steps) {
  const began = performance.now();
  training.opened = asOpened(base, new Model(own.shape, said.parameters), said.step);
  const left = (steps - said.step) / said.perSecond;
  const ends = said.diverged
    ? "It diverged: its weights are no finite numbers; try a lower learning rate."
    : training.state === "stopped"
      ? "stopped"
      : said.done
        ? "done"
        : `about ${left < 90 ? `${Math.ceil(left)} s` : `${Math.ceil(left / 60)} min`} left`;
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
