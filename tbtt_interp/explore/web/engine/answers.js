/** What models answer: greedy completions, and margins over all examples at once. */

import { makeBatch } from "./batch.js";
import { forward, Past } from "./model.js";
import { argmax } from "./numbers.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Hooks} Hooks */
/** @typedef {import("./batch.js").Batch} Batch */

export const LIMIT = 32; // characters after which an answer that has not ended is cut

/**
 * A greedy answer.
 * @typedef {object} Said
 * @property {number[]} tokens of the prompt and the answer
 * @property {number} asked how many of them are the prompt's
 * @property {Float64Array[]} logits before each token of the answer
 * @property {number} margin the smallest logit difference to the second token, in nats
 * @property {boolean} ended whether it came to a terminator
 */

/**
 * The greedy answer to one prompt, up to its first terminator.
 * @param {Model} model
 * @param {number[]} prompt
 * @param {Set<number>} ends tokens that end an answer
 * @param {(start: number) => Hooks} [hooksAt] the changes of a window that starts here in the text
 * @param {number} [limit] of characters
 * @returns {Said}
 */
export function say(model, prompt, ends, hooksAt = () => new Map(), limit = LIMIT) {
  const context = model.shape.n_ctx;
  const tokens = [...prompt];
  const logits = [];
  let margin = Infinity;
  const past = new Past(model.shape, context);
  /** @type {number[]} */
  const path = [];
  while (logits.length < limit) {
    const next = tokens.length > context ? nextLogits(model, tokens, hooksAt) : goOn();
    const best = argmax(next, 0, next.length);
    let second = -Infinity;
    for (let k = 0; k < next.length; k++) if (k !== best) second = Math.max(second, next[k]);
    margin = Math.min(margin, next[best] - second);
    logits.push(next);
    tokens.push(best);
    if (ends.has(best)) break;
  }
  const ended = ends.has(tokens[tokens.length - 1]);
  return { tokens, asked: prompt.length, logits, margin, ended };

  /** The logits after a text that fits the context: of its last token alone, once the prompt is read. */
  function goOn() {
    const batch = path.length ? onward([{ text: tokens, path }], past.size, context) : makeBatch([tokens]);
    if (!path.length) path.push(...tokens.keys());
    return forward(model, batch, { hooks: hooksAt(0), past }).logits.slice((batch.size - 1) * model.shape.d_vocab);
  }
}

/**
 * The logits after some tokens, of which the last that fit the context are read.
 * @param {Model} model @param {number[]} tokens @param {(start: number) => Hooks} hooksAt
 */
export function nextLogits(model, tokens, hooksAt = () => new Map()) {
  const start = Math.max(0, tokens.length - model.shape.n_ctx);
  const batch = makeBatch([tokens.slice(start)]);
  const { logits } = forward(model, batch, { hooks: hooksAt(start) });
  return logits.slice((batch.size - 1) * model.shape.d_vocab);
}

/**
 * All prompts with their right answers fed in, ready to be scored.
 * @typedef {object} AnswerBatch
 * @property {Batch} batch
 * @property {Int32Array} node whose logits predict each token of an answer
 * @property {Int32Array} token that is right there
 * @property {Int32Array} example it belongs to
 * @property {{prompt: number[], answer: number[]}[]} examples
 * @property {boolean} fits whether every prompt fits the context with its answer
 */

/**
 * The batch of some prompts and answers; one that does not fit is read in windows.
 * @param {{prompt: number[], answer: number[]}[]} examples
 * @param {number} context
 * @returns {AnswerBatch}
 */
export function answerBatch(examples, context) {
  /** @type {number[][]} */ const sequences = [];
  /** @type {[number, number, number, number][]} */ const found = [];
  examples.forEach(({ prompt, answer }, number) => {
    const tokens = [...prompt, ...answer];
    const fits = tokens.length - 1 <= context;
    if (fits) sequences.push(tokens.slice(0, -1));
    for (let at = prompt.length; at < tokens.length; at++) {
      if (!fits) sequences.push(tokens.slice(Math.max(0, at - context), at));
      found.push([sequences.length - 1, Math.min(at, context) - 1, tokens[at], number]);
    }
  });
  const batch = makeBatch(sequences);
  return {
    fits: examples.every(({ prompt, answer }) => prompt.length + answer.length - 1 <= context),
    batch,
    examples,
    node: Int32Array.from(found, ([sequence, pos]) => batch.nodes[sequence][pos]),
    token: Int32Array.from(found, (one) => one[2]),
    example: Int32Array.from(found, (one) => one[3]),
  };
}

/** A model's run over all examples; `past` has their nodes first. @typedef {{logits: Float64Array, past: Past}} Run */

const LONGEST = 6; // characters of the wrong answers to all examples

/** A run over all examples. @param {Model} model @param {AnswerBatch} answers @param {Hooks} [hooks] @returns {Run} */
export function runAll(model, { batch, examples }, hooks = new Map()) {
  const past = new Past(model.shape, batch.size + LONGEST * examples.length);
  return { logits: forward(model, batch, { hooks, past }).logits, past };
}

/**
 * Brings a run up to hooks that differ at some positions alone.
 * @param {Model} model @param {AnswerBatch} answers @param {Run} run @param {Hooks} hooks
 * @param {(pos: number) => boolean} isChanged
 */
export function runAgain(model, { batch }, { logits, past }, hooks, isChanged) {
  const at = Int32Array.from([...batch.pos.keys()].filter((node) => isChanged(batch.pos[node])));
  const { width, keys } = batch;
  const part = {
    size: at.length,
    width,
    keys: new Int32Array(at.length * width),
    tokens: at.map((node) => batch.tokens[node]),
    pos: at.map((node) => batch.pos[node]),
    nodes: [],
    at,
  };
  at.forEach((node, k) => part.keys.set(keys.subarray(node * width, (node + 1) * width), k * width));
  const found = forward(model, part, { hooks, past }).logits;
  const vocabulary = model.shape.d_vocab;
  at.forEach((node, k) => logits.set(found.subarray(k * vocabulary, (k + 1) * vocabulary), node * vocabulary));
}

/**
 * How a model answers each example.
 *
 * A margin is the right token's logit minus the best wrong one's, at its smallest over the answer,
 * in nats; positive is right. Wrong answers are the greedy ones, to their end, six characters, or the context's.
 * @param {Model} model @param {AnswerBatch} answers @param {Set<number>} ends tokens that end an answer
 * @param {Hooks} [hooks] @param {Run} [run] over the examples with these hooks
 * @returns {{margins: Float64Array, wrong: Map<number, number[]>}} wrong answers by example
 */
export function askAll(model, answers, ends, hooks = new Map(), run = runAll(model, answers, hooks)) {
  const { batch, examples, node, token, example } = answers;
  const { d_vocab: vocabulary, n_ctx } = model.shape;
  const { past } = run;
  let { logits } = run;
  past.size = batch.size; // what came behind was of other hooks
  const margins = new Float64Array(examples.length).fill(Infinity);
  /** Where the answer to each example first differs from the right one. @type {Map<number, number>} */
  const differs = new Map();
  for (let k = 0; k < node.length; k++) {
    const [start, right] = [node[k] * vocabulary, token[k]];
    let wrong = -Infinity;
    for (let t = 0; t < vocabulary; t++) {
      if (t !== right && logits[start + t] > wrong) wrong = logits[start + t];
    }
    const margin = logits[start + right] - wrong;
    if (!(margin > 0) && !differs.has(example[k])) differs.set(example[k], k);
    if (!(margin >= margins[example[k]])) margins[example[k]] = margin; // also where it is NaN
  }
  /** @typedef {{number: number, text: number[], said: number, path: number[], row: number}} Open */
  /** @type {Open[]} */
  let open = [...differs].map(([number, k]) => {
    const { prompt, answer } = examples[number];
    const text = [...prompt, ...answer.slice(0, k - example.indexOf(number))];
    const begin = node[k] * batch.width;
    const path = text.length > n_ctx ? [] : Array.from(batch.keys.subarray(begin, begin + text.length));
    return { number, text, said: text.length - prompt.length, path, row: node[k] };
  });
  const texts = new Map(open.map((one) => [one.number, one]));
  while (open.length) {
    for (const one of open) {
      one.text.push(argmax(logits, one.row * vocabulary, vocabulary));
      one.said++;
    }
    // what fits the context goes on from the keys and values that are known, and ends with it; longer texts slide
    open = open.filter(({ text, path, said }) => said < LONGEST && !ends.has(text[text.length - 1]) && path.length < n_ctx);
    const [fit, slide] = [open.filter(({ path }) => path.length), open.filter(({ path }) => !path.length)];
    const windows = makeBatch(slide.map(({ text }) => text.slice(-n_ctx)));
    fit.forEach((one, k) => {
      one.row = k;
    });
    slide.forEach((one, k) => {
      one.row = fit.length + windows.nodes[k][n_ctx - 1];
    });
    logits = new Float64Array((fit.length + windows.size) * vocabulary);
    if (fit.length) logits.set(forward(model, onward(fit, past.size, n_ctx), { hooks, past }).logits);
    if (slide.length) logits.set(forward(model, windows, { hooks }).logits, fit.length * vocabulary);
  }
  return { margins, wrong: new Map([...texts].map(([number, { text }]) => [number, text.slice(examples[number].prompt.length)])) };
}

/** The last token of some texts as nodes behind those that are known, whose number each path has. @param {{text: number[], path: number[]}[]} texts @param {number} known @param {number} width @returns {Batch} */
function onward(texts, known, width) {
  const keys = new Int32Array(texts.length * width);
  texts.forEach(({ path }, k) => {
    path.push(known + k);
    keys.set(path, k * width);
  });
  return {
    size: texts.length,
    width,
    keys,
    tokens: Int32Array.from(texts, ({ text }) => text[text.length - 1]),
    pos: Int32Array.from(texts, ({ path }) => path.length - 1),
    nodes: texts.map((_, k) => Int32Array.of(k)),
  };
}
