/**
 * Token sequences as nodes of a tree: sequences that begin alike share their beginning.
 *
 * A causal model's activations at a position depend only on the tokens up to there, so each
 * distinct beginning is computed once. All 200 equations with their answers have 730 of them.
 */

/**
 * @typedef {object} Batch
 * @property {number} size how many nodes
 * @property {number} width the longest sequence: how many keys a query can have
 * @property {Int32Array} tokens of each node
 * @property {Int32Array} pos of each node, from 0
 * @property {Int32Array} keys [node, width]: the node at each earlier position, itself last
 * @property {Int32Array[]} nodes of each sequence, by position
 * @property {Int32Array} [at] the nodes of a past run that these are
 */

/**
 * The batch of some sequences, with shared beginnings once or, without `share`, each by itself.
 * @param {ArrayLike<number>[]} sequences
 * @param {boolean} [share]
 * @returns {Batch}
 */
export function makeBatch(sequences, share = true) {
  let width = 0;
  for (const sequence of sequences) width = Math.max(width, sequence.length);
  /** @type {number[]} */ const tokens = [];
  /** @type {number[]} */ const pos = [];
  /** @type {number[]} */ const parents = [];
  /** @type {Map<number, number>[]} */ const children = [];
  const roots = new Map();
  const nodes = sequences.map((sequence) => {
    const path = new Int32Array(sequence.length);
    let parent = -1;
    for (let at = 0; at < sequence.length; at++) {
      const known = parent < 0 ? roots : children[parent];
      let node = share ? known.get(sequence[at]) : undefined;
      if (node === undefined) {
        node = tokens.length;
        known.set(sequence[at], node);
        tokens.push(sequence[at]);
        pos.push(at);
        parents.push(parent);
        children.push(new Map());
      }
      path[at] = node;
      parent = node;
    }
    return path;
  });
  const keys = new Int32Array(tokens.length * width);
  for (let node = 0; node < tokens.length; node++) {
    const own = pos[node];
    if (own) {
      const before = parents[node] * width;
      keys.copyWithin(node * width, before, before + own);
    }
    keys[node * width + own] = node;
  }
  return {
    size: tokens.length,
    width,
    nodes,
    keys,
    tokens: Int32Array.from(tokens),
    pos: Int32Array.from(pos),
  };
}
