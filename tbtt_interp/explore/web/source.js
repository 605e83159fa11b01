/** Where runs come from: files beside the page, or data inside it; each is read once. */

import { readSafetensors } from "./engine/safetensors.js";

/** @typedef {import("./engine/safetensors.js").Tensor} Tensor */

/**
 * @typedef {object} Listed a run that can be chosen
 * @property {string} name @property {string} task @property {string} framing
 * @property {string} size @property {number[]} seeds @property {number} steps
 * @property {import("./engine/model.js").Shape} shape @property {number} weights
 * @property {Record<string, Record<string, number | null>>} final by seed: shares at the last step
 * @property {Record<string, [number, number, number]>} intervals mean, low, high over seeds
 */
/** @typedef {{line: string, prompt: string, answer: string, group: string, labels: Record<string, any>}} Example */
/**
 * @typedef {object} RunTable
 * @property {string} name @property {string} task @property {string} framing @property {string} size
 * @property {import("./engine/model.js").Shape} shape @property {string} vocabulary
 * @property {number} steps @property {Record<string, number> | null} training
 * @property {string} terminators @property {[string, string][]} short_forms
 * @property {string[]} varied
 * @property {Example[][]} examples
 * @property {{seed: number, examples: number, held_out: number[], order: number[] | null}[]} seeds
 * @property {{step: number, seeds: number[], probes: boolean}[]} checkpoints whether their probes are computed
 * @property {Record<string, (string | number | boolean | null)[]>} features each example's label, by feature
 * @property {{steps: number[], seeds: Record<string, Record<string, (number | null)[]>>}} metrics
 */

const inside = document.getElementById("page-data");
/**
 * @typedef {object} ProbeTable accuracies in thousandths, by feature, site and position; null where there is none
 * @property {string[]} features @property {string[]} sites @property {number[]} positions
 * @property {number[]} seeds @property {number} controls how many control tasks
 * @property {number[][][]} accuracy @property {(number[][] | null)[]} low @property {(number[][] | null)[]} high
 * @property {(number[][] | null)[]} control @property {(number[][] | null)[]} thresholds
 * @property {number[][][]} untrained @property {number[][][]} held_out @property {number[][][]} trivial
 * @property {number[]} one_hot @property {number[]} majority @property {number[]} held_out_of
 * @property {number[][] | null} operands
 */
/** @type {{catalogue: any, runs: RunTable[], weights: Record<string, string>, probes: Record<string, ProbeTable>} | null} */
const data = inside ? JSON.parse(inside.textContent ?? "") : null;

/** @param {string} path @returns {Promise<Response>} */
async function get(path) {
  let found;
  try {
    found = await fetch(path);
  } catch {
    throw new Error("The server does not answer any more: start tbtt explore again, then try again.");
  }
  if (found.ok) return found;
  const said = found.headers.get("Content-Type")?.includes("json") ? await found.json() : null;
  throw new Error(said?.error ?? `${path} could not be read (status ${found.status}).`);
}

/** @returns {Promise<{runs: Listed[], left_out: string[]}>} */
export async function readCatalogue() {
  const found = data ? data.catalogue : await (await get("catalogue.json")).json();
  computes = Boolean(found.computes);
  return found;
}

let computes = false;

/** Whether there is a server that computes probes when it is asked. */
export const canCompute = () => computes;

/** @type {Map<string, Promise<any>>} */
const known = new Map();

/** @template T @param {string} key @param {() => Promise<T>} read @returns {Promise<T>} */
function once(key, read) {
  let found = known.get(key);
  if (!found) {
    found = read();
    known.set(key, found);
    found.catch(() => known.delete(key)); // to be tried again
  }
  return found;
}

/** One run's table. @param {number} number @returns {Promise<RunTable>} */
export function readRun(number) {
  return once(`run ${number}`, async () => (data ? data.runs[number] : (await get(`runs/${number}/run.json`)).json()));
}

/**
 * The weights in one of a run's checkpoints.
 * @param {number} number of the run @param {number} place of the checkpoint in its list
 * @returns {Promise<Map<string, Tensor>>}
 */
export function readWeights(number, place) {
  const path = `runs/${number}/${place}.safetensors`;
  return once(path, async () => {
    if (!data) return readSafetensors(await (await get(path)).arrayBuffer());
    const text = atob(data.weights[path]);
    return readSafetensors(Uint8Array.from(text, (c) => c.charCodeAt(0)).buffer);
  });
}

/**
 * The probes of one of a run's checkpoints; a server computes them if they are not there yet.
 * @param {number} number of the run @param {number} place of the checkpoint in its list
 * @returns {Promise<ProbeTable>}
 */
export function readProbes(number, place) {
  const path = `runs/${number}/probes/${place}.json`;
  return once(path, async () => (data ? data.probes[path] : (await get(path)).json()));
}
