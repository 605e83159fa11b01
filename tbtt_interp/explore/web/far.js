/** Large models, asked in a worker: the answer to a prompt first, then every example, a few at a time. */

import { kept } from "./kept.js";
import { startWorker } from "./ui/dom.js";

/** @typedef {import("./models.js").Opened} Opened */
/** @typedef {import("./scene.js").Look} Look */
/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Pane} Pane */

const HELD = 2; // models that the worker holds, each twice as large as its weights
const KNOWN = 40; // prompts and changes whose answers are kept
const PATIENCE = 300; // ms between two drawings while examples are asked

/**
 * What is known so far of a large model.
 * @typedef {object} Far
 * @property {Look | null} look at the prompt; null while it is computed
 * @property {string} words that say how far it is
 * @property {Float64Array} margins of every example, NaN where it was not asked yet
 * @property {Map<number, string>} wrong what it says to examples that it answers wrongly
 * @property {number} done how many examples were asked
 */

/** @type {Map<string, {look: Look | null, words: string}>} */
const looks = new Map();
/** @type {Map<string, {margins: Float64Array, wrong: Map<number, string>, done: number, task: import("./task.js").Task}>} */
const tables = new Map();
/** @type {Worker | null} */
let worker = null;
/** @type {string[]} */
let held = []; // keys of the models that the worker has
const wanted = ["", ""]; // what each pane asks now
let drawn = 0;

/** @param {Opened} opened @param {string} text @param {State} state @param {Pane} pane @param {Pane} everywhere its changes in all examples @returns {Far} */
export function farOf(opened, text, state, pane, everywhere) {
  const { task, key } = opened;
  const changes = (/** @type {Pane} */ of) => JSON.stringify([of.cuts, of.off, of.cuts.length ? state.rule : ""]);
  const [tableKey, lookKey] = [`${key} ${changes(everywhere)}`, `${key} ${changes(pane)} ${text}`];
  const table = kept(tables, tableKey, KNOWN, () => ({
    margins: new Float64Array(task.examples.length).fill(NaN),
    wrong: new Map(),
    done: 0,
    task,
  }));
  const look = kept(looks, lookKey, KNOWN, () => ({
    look: null,
    words: held.includes(key) ? "The model computes in the background…" : "Loading the model in the background…",
  }));
  const slot = state.panes.indexOf(pane);
  const isDone = (look.look || !text || task.strange(text).length) && table.done === task.examples.length;
  if (!isDone && wanted[slot] !== `${lookKey} ${tableKey}`) {
    wanted[slot] = `${lookKey} ${tableKey}`;
    const example = task.find(text);
    ask({
      slot,
      key,
      shape: opened.model.shape,
      parameters: held.includes(key) ? null : opened.model.parameters,
      ends: [...task.ends],
      prompt: look.look || !text || task.strange(text).length ? null : task.encode(text),
      answer: example < 0 ? null : task.tokens[example].answer,
      examples: task.tokens,
      done: table.done,
      pane: { cuts: pane.cuts, off: pane.off },
      everywhere: { cuts: everywhere.cuts, off: everywhere.off },
      rule: state.rule,
      keys: [lookKey, tableKey],
    });
    held = [...held.filter((one) => one !== key), key].slice(-HELD);
  }
  if (isDone) wanted[slot] = "";
  return { ...look, ...table };

  /** @param {any} message */
  function ask(message) {
    worker ??= startWorker();
    worker.onmessage = ({ data }) => heard(data);
    worker.onerror = () => {
      look.words = "The computation stopped, perhaps for lack of memory: reload the page, or choose a smaller model.";
      document.dispatchEvent(new CustomEvent("redraw"));
    };
    worker.postMessage({ ask: message });
  }
}

/** @param {any} data */
function heard(data) {
  const [look, table] = [looks.get(data.keys[0]), tables.get(data.keys[1])];
  if (look && data.look) look.look = data.look;
  if (look && data.words) look.words = data.words;
  if (table && data.margins) {
    table.margins.set(data.margins, data.from);
    for (const [k, tokens] of data.wrong) table.wrong.set(k, table.task.decode(tokens));
    table.done = data.from + data.margins.length;
    if (table.done < table.margins.length && performance.now() - drawn < PATIENCE) return;
  }
  drawn = performance.now();
  document.dispatchEvent(new CustomEvent("redraw"));
}
