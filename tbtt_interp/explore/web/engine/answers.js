/** What models answer: greedy completions, and margins over all examples at once. */

import { makeBatch } from "./batch.js";
import { forward } from "./model.js";
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
  const tokens = [...prompt];
  const logits = [];
  let margin = Infinity;
  while (logits.length < limit) {
    const next = nextLogits(model, tokens, hooksAt);
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
 * @property {number} count of examples
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
    count: examples.length,
    node: Int32Array.from(found, ([sequence, pos]) => batch.nodes[sequence][pos]),
    token: Int32Array.from(found, (one) => one[2]),
    example: Int32Array.from(found, (one) => one[3]),
  };
}

/**
 * How clearly a model answers each example, in nats; positive is right.
 *
 * The right token's logit minus the best wrong one's, at its smallest over the answer.
 * @param {Model} model @param {AnswerBatch} answers @param {Hooks} [hooks]
 * @returns {Float64Array}
 */
export function margins(model, answers, hooks = new Map()) {
  const { logits } = forward(model, answers.batch, { hooks });
  const vocabulary = model.shape.d_vocab;
  const found = new Float64Array(answers.count).fill(Infinity);
  for (let k = 0; k < answers.node.length; k++) {
    const start = answers.node[k] * vocabulary;
    const right = answers.token[k];
    let wrong = -Infinity;
    for (let t = 0; t < vocabulary; t++) {
      if (t !== right && logits[start + t] > wrong) wrong = logits[start + t];
    }
    const margin = logits[start + right] - wrong;
    const example = answers.example[k];
    if (!(margin >= found[example])) found[example] = margin; // also where it is NaN
  }
  return found;
}

/**
 * The greedy answers to several prompts of at most `limit` tokens each, side by side.
 * @param {Model} model @param {number[][]} prompts @param {Set<number>} ends
 * @param {Hooks} [hooks] @param {number} [limit]
 * @returns {number[][]}
 */
export function sayAll(model, prompts, ends, hooks = new Map(), limit = 6) {
  const texts = prompts.map((prompt) => [...prompt]);
  let open = texts.map((_, k) => k);
  for (let step = 0; step < limit && open.length; step++) {
    const batch = makeBatch(open.map((k) => texts[k].slice(-model.shape.n_ctx)));
    const { logits } = forward(model, batch, { hooks });
    open.forEach((k, row) => {
      const node = batch.nodes[row][batch.nodes[row].length - 1];
      texts[k].push(argmax(logits, node * model.shape.d_vocab, model.shape.d_vocab));
    });
    open = open.filter((k) => !ends.has(texts[k][texts[k].length - 1]));
  }
  return texts.map((text, k) => text.slice(prompts[k].length));
}
