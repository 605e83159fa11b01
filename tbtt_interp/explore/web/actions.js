/** What controls do to the state. */

import { LISTS, newPane, toggled } from "./state.js";

/** @typedef {import("./state.js").State} State */

/** Lists of a pane that an action puts something into, or takes it out of. */
const TOGGLED = { cut: "cuts", off: "off", patch: "patches", path: "paths" };

/**
 * What every control does: a verb, its argument, and the pane it stands in.
 * @type {Record<string, (next: State, text: string, pane: number) => void>}
 */
export const ACTIONS = {
  ...Object.fromEntries(
    ["view", "shown", "rule", "filter", "probe", "prompt", "corrupt", "place", "step"].map((name) => [
      name,
      (/** @type {any} */ next, /** @type {string} */ text) => {
        next[name] = typeof next[name] === "number" ? Number(text) : text;
      },
    ]),
  ),
  ...Object.fromEntries(
    Object.entries(TOGGLED).map(([verb, list]) => [
      verb,
      (/** @type {State} */ next, /** @type {string} */ text, /** @type {number} */ pane) => {
        const own = /** @type {any} */ (next.panes[pane]);
        own[list] = toggled(own[list], LISTS[list][0](text), LISTS[list][1]);
      },
    ]),
  ),
  pin: (next, text) => {
    next.pins = toggled(next.pins, Number(text), String);
  },
  unpatch: (next, _, pane) => {
    [next.panes[pane].patches, next.panes[pane].paths] = [[], []];
  },
  undo: (next, _, pane) => {
    [next.panes[pane].cuts, next.panes[pane].off] = [[], []];
  },
  head: (next, text, pane) => {
    [next.panes[pane].layer, next.panes[pane].head] = text.split(".").map(Number);
  },
  seed: (next, text, pane) => {
    next.panes[pane].seed = Number(text);
  },
  run: (next, text, pane) => {
    next.panes[pane] = newPane(text);
  },
  open: (next, text) => {
    const at = text.lastIndexOf(":");
    next.panes[1] = { ...newPane(text.slice(0, at)), seed: Number(text.slice(at + 1)) };
    next.step = -1; // the ladder is of last steps
  },
};
