/** What one pane shows: its model's answer to the prompt, with and without what is changed in it. */

import { answerBatch, askAll, nextLogits, runAgain, runAll, say } from "./engine/answers.js";
import { makeBatch } from "./engine/batch.js";
import { ablate, combine, knockOut } from "./engine/interventions.js";
import { countWeights, forward, isLarge } from "./engine/model.js";
import { farOf } from "./far.js";
import { kept } from "./kept.js";
import { edgeText } from "./state.js";
import { advice } from "./task.js";
import { count } from "./ui/dom.js";

/** @typedef {import("./models.js").Opened} Opened */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Pane} Pane */
/** @typedef {import("./engine/interventions.js").Edge} Edge */
/** @typedef {import("./engine/model.js").Hooks} Hooks */
/** @typedef {import("./engine/answers.js").Said} Said */

/**
 * What a model says to a prompt, with and without changes, and its activations meanwhile.
 * @typedef {object} Look
 * @property {Said} said @property {Said | null} before without changes; null where there are none
 * @property {number} start of the window that is drawn, in the text
 * @property {number[]} tokens of that window
 * @property {Map<string, import("./engine/model.js").Activation>} cache
 * @property {number | null} margin of the right answer, where one is given
 */

/**
 * @typedef {object} Scene
 * @property {import("./far.js").Far | null} far what the worker found so far, of a large model
 * @property {Opened} opened
 * @property {string} text the whole prompt
 * @property {string[]} strange characters that are no tokens
 * @property {string} advice
 * @property {number} example the task's example with this prompt, or -1
 * @property {Said | null} said null where the prompt cannot be asked
 * @property {Said | null} before without changes; null where there are none
 * @property {number} start of the window that is drawn, in the text
 * @property {number[]} tokens of that window
 * @property {string[]} names of its tokens
 * @property {Map<string, import("./engine/model.js").Activation>} cache of that window
 * @property {Float64Array} margins of every example
 * @property {Map<number, string>} wrong what is said to the examples that are answered wrongly
 * @property {Float64Array | null} marginsBefore
 * @property {boolean} changed
 * @property {string} key what this model is known by, with what is changed in it
 * @property {(start: number) => Hooks} hooksAt
 * @property {() => Map<string, import("./engine/model.js").Activation>} fed activations of every
 *   example with its right answer fed in, computed when they are first asked for
 */

/** @typedef {Map<string, import("./engine/model.js").Activation>} Cache */
/** @type {Map<string, {margins: Float64Array, wrong: Map<number, string>}>} */
const knownAnswers = new Map();
/** The last run with knock-outs, and their queries. @type {Map<string, import("./engine/answers.js").Run & {cuts: Map<string, number>}>} */
const knownRuns = new Map();
/** @type {Map<string, Cache>} */
const knownFed = new Map();

/** Edges counted from a window's start; those outside it are left out. @param {Edge[]} edges @param {number} start */
function inWindow(edges, start) {
  return edges.map((e) => ({ ...e, query: e.query - start, key: e.key - start })).filter((e) => e.key >= 0);
}

/**
 * Asks a model one prompt.
 * @param {import("./engine/model.js").Model} model @param {number[]} prompt @param {Set<number>} ends
 * @param {(start: number) => Hooks} hooksAt @param {boolean} changed @param {number[] | null} [answer] that is right
 * @param {number} [limit] of characters
 * @returns {Look}
 */
export function lookAt(model, prompt, ends, hooksAt, changed, answer = null, limit = undefined) {
  const said = say(model, prompt, ends, hooksAt, limit);
  const before = changed ? say(model, prompt, ends, undefined, limit) : null;
  const context = model.shape.n_ctx;
  const start = Math.max(0, prompt.length - context);
  const tokens = said.tokens.slice(0, -1).slice(start, start + context);
  const { cache } = forward(model, makeBatch([tokens]), { hooks: hooksAt(start), keep: () => true });
  const margin = answer && askAll(model, answerBatch([{ prompt, answer }], context), ends, hooksAt(0)).margins[0];
  return { said, before, start, tokens, cache, margin };
}

/** The hooks of a pane, for a window that starts here in the text. @param {Pick<Pane, "cuts" | "off">} pane @param {string} rule @param {number} start */
export function hooksOf(pane, rule, start) {
  return combine(knockOut(inWindow(pane.cuts, start), rule === "renormalized"), ablate(pane.off));
}

/** What a changed model is known by. @param {Opened} opened @param {Pane} pane @param {string} rule */
const changedKey = ({ key }, { cuts, off }, rule) => `${key} ${JSON.stringify([cuts, off, cuts.length ? rule : ""])}`;

/** How all examples are answered. @param {Opened} opened @param {Pane} pane @param {string} rule */
function askedAll(opened, pane, rule) {
  const { model, answers, task } = opened;
  return kept(knownAnswers, changedKey(opened, pane, rule), 400, () => {
    const hooks = hooksOf(pane, rule, 0);
    const run = pane.cuts.length && !pane.off.length ? cutRun(opened, pane.cuts, rule, hooks) : undefined;
    const { margins, wrong } = askAll(model, answers, task.ends, hooks, run);
    return { margins, wrong: new Map([...wrong].map(([k, tokens]) => [k, task.decode(tokens)])) };
  });
}

/**
 * A run over all examples without some edges. An edge changes its query alone and, in deeper models,
 * what comes after it; the rest stays as in the run before.
 * @param {Opened} opened @param {Edge[]} cuts @param {string} rule @param {Hooks} hooks
 */
function cutRun({ key, model, answers }, cuts, rule, hooks) {
  const run = kept(knownRuns, key, 4, () => ({ ...runAll(model, answers), cuts: new Map() }));
  const now = new Map(cuts.map((edge) => [`${edgeText(edge)} ${rule}`, edge.query]));
  const differs = [...run.cuts, ...now].filter(([name]) => !run.cuts.has(name) || !now.has(name)).map(([, query]) => query);
  const first = Math.min(...differs);
  runAgain(model, answers, run, hooks, (pos) => (model.shape.layers > 1 ? pos >= first : differs.includes(pos)));
  run.cuts = now;
  return run;
}

/**
 * @param {Opened} opened @param {State} state @param {Pane} pane
 * @returns {Scene}
 */
export function sceneOf(opened, state, pane) {
  const { task, model } = opened;
  const text = task.complete(state.prompt);
  const strange = task.strange(text);
  const changed = pane.cuts.length + pane.off.length > 0;
  // in windows of longer prompts an edge stands elsewhere
  const everywhere = opened.answers.fits ? pane : { ...pane, cuts: [] };
  const plain = { ...pane, cuts: [], off: [] };
  const hooksAt = (/** @type {number} */ start) => hooksOf(pane, state.rule, start);
  const key = changedKey(opened, pane, state.rule);
  const far = isLarge(model.shape) ? farOf(opened, text, state, pane, everywhere) : null;
  const all = far ?? askedAll(opened, everywhere, state.rule);
  const scene = {
    far,
    opened,
    text,
    strange,
    changed,
    key,
    hooksAt,
    fed: () => kept(knownFed, key, 4, () => forward(model, opened.answers.batch, { hooks: hooksAt(0), keep: () => true }).cache),
    advice: task.find(text) < 0 ? advice(state.prompt, task) : "",
    example: task.find(text),
    said: /** @type {Said | null} */ (null),
    before: /** @type {Said | null} */ (null),
    start: 0,
    tokens: /** @type {number[]} */ ([]),
    names: /** @type {string[]} */ ([]),
    cache: new Map(),
    margins: all.margins,
    wrong: all.wrong,
    marginsBefore: changed && !far ? askedAll(opened, plain, state.rule).margins : null,
  };
  if (strange.length || !text) return scene;
  const look = far ? far.look : lookAt(model, task.encode(text), task.ends, hooksAt, changed);
  if (!look) return scene;
  const { said, before, start, tokens, cache } = look;
  return Object.assign(scene, { said, before, start, tokens, cache, names: [...task.decode(tokens)] });
}

/** The margin of the right answer to this prompt, with all changes; null where none is known. @param {Scene} scene */
export function marginHere(scene) {
  if (scene.example < 0) return null;
  if (scene.far) return scene.far.look?.margin ?? null;
  const { answers, model, task } = scene.opened;
  if (answers.fits || !scene.changed) return scene.margins[scene.example];
  const { prompt, answer } = task.tokens[scene.example];
  let least = Infinity;
  answer.forEach((right, k) => {
    const logits = nextLogits(model, [...prompt, ...answer.slice(0, k)], scene.hooksAt);
    const wrong = logits.reduce((best, x, t) => (t === right ? best : Math.max(best, x)), -Infinity);
    least = Math.min(least, logits[right] - wrong);
  });
  return least;
}

/** What is shown of a large model in place of what would ask it every example. @param {Scene} scene @param {string} what */
export const tooLarge = (scene, what) =>
  `${what} would take minutes here for a model of ${count(countWeights(scene.opened.model.shape))} weights: tbtt analyses computes it in Python.`;

/** Whether what is said to an example is right in every seen, and in every held-out one. @param {Scene} scene */
export function counts(scene, from = scene.margins) {
  const found = { seen: 0, seenOf: 0, heldOut: 0, heldOutOf: 0 };
  from.forEach((margin, k) => {
    if (Number.isNaN(margin)) return; // not asked yet
    const out = scene.opened.task.heldOut.has(k);
    found[out ? "heldOutOf" : "seenOf"]++;
    if (margin > 0) found[out ? "heldOut" : "seen"]++;
  });
  return found;
}
