/** Changes of a model's activations, as functions at hook points: knock out, ablate, patch. */

/** @typedef {import("./model.js").Hook} Hook */
/** @typedef {import("./model.js").Hooks} Hooks */
/** @typedef {import("./model.js").Activation} Activation */

/** An edge of attention; positions count in the window. @typedef {{layer: number, head: number, query: number, key: number}} Edge */
/** A head or a neuron of a layer that is set to zero. @typedef {{kind: "head" | "neuron" | "mlp", layer: number, unit: number}} Ablation */
/** A place that gets another prompt's activation. @typedef {{site: string, head: number | null, pos: number}} Patch */

/**
 * Several lists of hooks as one.
 * @param {...Hooks} all
 * @returns {Hooks}
 */
export function combine(...all) {
  const found = new Map();
  for (const hooks of all) {
    for (const [site, list] of hooks) found.set(site, [...(found.get(site) ?? []), ...list]);
  }
  return found;
}

/**
 * Attention without some edges. A query whose every edge is gone attends to nothing.
 * @param {Edge[]} edges
 * @param {boolean} renormalized whether a query's remaining weights are scaled to sum to 1
 * @returns {Hooks}
 */
export function knockOut(edges, renormalized) {
  const hooks = new Map();
  for (const layer of new Set(edges.map((edge) => edge.layer))) {
    const here = edges.filter((edge) => edge.layer === layer);
    hooks.set(`blocks.${layer}.attn.hook_pattern`, [
      (/** @type {Activation} */ { data, heads, batch }) => {
        for (let node = 0; node < batch.size; node++) {
          for (const { head, query, key } of here) {
            if (head >= heads || query !== batch.pos[node] || key > query) continue;
            const row = (node * heads + head) * batch.width;
            data[row + key] = 0;
            if (!renormalized) continue;
            let sum = 0;
            for (let k = 0; k < batch.width; k++) sum += data[row + k];
            if (sum > 0) for (let k = 0; k < batch.width; k++) data[row + k] /= sum;
          }
        }
      },
    ]);
  }
  return hooks;
}

/**
 * Heads, neurons or whole MLPs set to zero, at every position.
 * @param {Ablation[]} ablations
 * @returns {Hooks}
 */
export function ablate(ablations) {
  const sites = { head: "attn.hook_z", neuron: "mlp.hook_post", mlp: "hook_mlp_out" };
  return combine(
    ...ablations.map(({ kind, layer, unit }) => {
      /** @type {Hook} */
      const hook = ({ data, width, heads, batch }) => {
        const size = kind === "neuron" ? 1 : width / (kind === "head" ? heads : 1);
        const start = kind === "mlp" ? 0 : unit * size;
        for (let node = 0; node < batch.size; node++) {
          data.fill(0, node * width + start, node * width + Math.min(width, start + size));
        }
      };
      return new Map([[`blocks.${layer}.${sites[kind]}`, [hook]]]);
    }),
  );
}

/**
 * Activations of one other prompt put in, at one position each.
 * @param {Patch[]} patches
 * @param {Map<string, Activation>} source the other prompt's activations, one node a position
 * @returns {Hooks}
 */
export function patchIn(patches, source) {
  return combine(
    ...patches.map(({ site, head, pos }) => {
      /** @type {Hook} */
      const hook = ({ data, width, heads, batch }) => {
        const given = source.get(site);
        if (!given || pos >= given.batch.size) return;
        const size = head === null ? width : width / heads;
        const start = (head ?? 0) * size;
        const own = head === null ? given.width : given.width / given.heads;
        for (let node = 0; node < batch.size; node++) {
          if (batch.pos[node] !== pos) continue;
          for (let c = 0; c < Math.min(size, own); c++) {
            data[node * width + start + c] = given.data[pos * given.width + (head ?? 0) * own + c];
          }
        }
      };
      return new Map([[site, [hook]]]);
    }),
  );
}
