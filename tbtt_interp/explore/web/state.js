/** What is on screen, as the page's address has it: nothing else is kept. */

/** @typedef {import("./engine/interventions.js").Edge} Edge */
/** @typedef {import("./engine/interventions.js").Ablation} Ablation */
/** @typedef {import("./engine/interventions.js").Patch} Patch */
/** @typedef {import("./engine/paths.js").Path} Path */
/** @typedef {import("./engine/paths.js").Part} Part */

/**
 * One of the two models on screen, and what is done to it.
 * @typedef {object} Pane
 * @property {string} run
 * @property {number} seed -1 is the first
 * @property {number} layer
 * @property {number} head
 * @property {Edge[]} cuts edges of attention that are knocked out, in this prompt
 * @property {Ablation[]} off heads, neurons and MLPs that are set to zero, in every prompt
 * @property {Patch[]} patches
 * @property {Path[]} paths that carry the clean run to the logits
 */

/**
 * @typedef {object} State
 * @property {string} view
 * @property {string} prompt
 * @property {string} corrupt the prompt that is patched
 * @property {number} step -1 is the last
 * @property {string} shown what attention is of
 * @property {string} rule renormalized or zeroed
 * @property {number[]} pins positions of the prompt that are pinned
 * @property {number} place of the answer's character that is taken apart
 * @property {string} filter of the example table
 * @property {Record<string, string>} train what is trained in the page
 * @property {string} probe the feature, site and position whose probes are shown; "" is the first that can tell
 * @property {[Pane, Pane]} panes
 */

export const VIEWS = ["story", "flow", "attention", "patching", "inside", "order", "examples", "probes", "ladder", "train"];
export const SHOWN = ["prompt", "equations", "roles", "scores", "OV"];
export const RULES = ["renormalized", "zeroed"];
export const FILTERS = ["all", "wrong", "held-out", "carry", "borrow"];
/** What is trained in the page, if nothing else is chosen; `out` is the pair held out. */
export const TRAIN = { framing: "line", width: "14", rate: "0.01", seed: "0", out: "5,7" };
/** @type {Record<string, RegExp>} */
const TRAINABLE = { framing: /^(line|shuffled)$/, width: /^(8|14|20|28)$/, rate: /^0\.0(03|1|3)$/, seed: /^\d{1,6}$/, out: /^\d,\d$/ };
const LONGEST = 500;

/** @returns {Pane} */
export function newPane(run = "") {
  return { run, seed: -1, layer: 0, head: 0, cuts: [], off: [], patches: [], paths: [] };
}

/** @returns {State} */
export function newState() {
  return {
    view: "story",
    prompt: "5+7=",
    corrupt: "3+7=",
    step: -1,
    shown: "prompt",
    rule: "renormalized",
    pins: [],
    place: 0,
    filter: "all",
    train: { ...TRAIN },
    probe: "",
    panes: [newPane(), newPane()],
  };
}

/** @param {string} text @returns {number} */
function natural(text) {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`“${text.slice(0, 40)}” is no number from 0`);
  return Number(text);
}

/** @param {string} text @returns {Edge} */
export function readEdge(text) {
  const [layer, head, query, key, ...more] = text.split(".").map(natural);
  if (key === undefined || more.length) throw new Error(`“${text.slice(0, 40)}” is no edge`);
  if (key > query) throw new Error("a query sees no key after it");
  return { layer, head, query, key };
}

/** @param {Edge} edge */
export const edgeText = ({ layer, head, query, key }) => `${layer}.${head}.${query}.${key}`;

/** @param {string} text @returns {Ablation} */
export function readAblation(text) {
  const [kind, layer, unit, ...more] = text.split(".");
  if (!["head", "neuron", "mlp"].includes(kind) || unit === undefined || more.length) {
    throw new Error(`“${text.slice(0, 40)}” is no head, neuron or mlp`);
  }
  return { kind: /** @type {"head"} */ (kind), layer: natural(layer), unit: natural(unit) };
}

/** @param {Ablation} one */
export const ablationText = ({ kind, layer, unit }) => `${kind}.${layer}.${unit}`;

/** @param {string} text @returns {Patch} */
export function readPatch(text) {
  const match = /^([\w.]+?)(?:\.(\d+))?@(\d+)$/.exec(text);
  if (!match) throw new Error(`“${text.slice(0, 40)}” is no place to patch`);
  return { site: match[1], head: match[2] === undefined ? null : natural(match[2]), pos: natural(match[3]) };
}

/** @param {Patch} one */
export const patchText = ({ site, head, pos }) => `${site}${head === null ? "" : `.${head}`}@${pos}`;

const PART = /^(embed|[qkv]|head|neuron|mlp)(\d*)(?:\.(\d+))?$/;

/** A path as it is in an address, such as embed-v0.0-mlp0. @param {string} text @returns {Path} */
export function readPath(text) {
  const [sender, ...via] = text.split("-").map((one, k) => {
    const [, kind, layer, unit] = PART.exec(one) ?? [];
    const known = (k ? ["q", "k", "v", "mlp"] : ["embed", "head", "neuron", "mlp"]).includes(kind);
    if (!known || (kind === "embed") !== !layer) throw new Error(`“${text.slice(0, 40)}” is no path`);
    return { kind, layer: kind === "embed" ? -1 : natural(layer), unit: natural(unit ?? "0") };
  });
  return { sender, via };
}

/** @param {Part} part */
const partText = ({ kind, layer, unit }) => `${kind}${kind === "embed" ? "" : layer}${/embed|mlp/.test(kind) ? "" : `.${unit}`}`;

/** @param {Path} path */
export const pathText = ({ sender, via }) => [sender, ...via].map(partText).join("-");

/**
 * A cell of the probes: the position is counted from the prompt's last token, −1.
 * @param {string} text @returns {{feature: string, site: string, pos: number}}
 */
export function readProbe(text) {
  const match = /^([^@]+)@([\w.]+)@(-[1-9]\d{0,2})$/.exec(text);
  if (!match) throw new Error(`“${text.slice(0, 40)}” is no probe`);
  return { feature: match[1], site: match[2], pos: Number(match[3]) };
}

/** @type {Record<string, readonly string[]>} */
const KNOWN = { view: VIEWS, shown: SHOWN, rule: RULES, filter: FILTERS };
/** @type {Record<string, [(text: string) => any, (value: any) => string]>} */
export const LISTS = {
  cuts: [readEdge, edgeText],
  off: [readAblation, ablationText],
  patches: [readPatch, patchText],
  paths: [readPath, pathText],
};

/**
 * The state that an address shows, and what in it means nothing, in sentences.
 * @param {string} hash @param {State} first what an empty address shows
 * @returns {{state: State, problems: string[]}}
 */
export function readAddress(hash, first) {
  /** @type {any} */
  const state = structuredClone(first);
  /** @type {string[]} */
  const problems = [];
  for (const [key, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    try {
      const [pane, name] = key.includes(".") ? key.split(".") : ["", key];
      if (pane === "train") {
        if (!TRAINABLE[name]?.test(value)) throw new Error(`the page cannot train with ${name.slice(0, 40)} “${value.slice(0, 40)}”`);
        state.train[name] = value;
      } else if (pane) {
        if (!"ab".includes(pane)) throw new Error(`the address has no pane ${pane}`);
        const own = state.panes["ab".indexOf(pane)];
        if (name in LISTS) own[name] = value.split(",").filter(Boolean).map(LISTS[name][0]);
        else if (name === "run") own.run = value.slice(0, LONGEST);
        else if (["seed", "layer", "head"].includes(name)) own[name] = natural(value);
        else throw new Error(`the address has ${key.slice(0, 40)}, which the page does not know`);
      } else if (name in KNOWN) {
        if (!KNOWN[name].includes(value)) {
          throw new Error(`${name} “${value.slice(0, 40)}” is unknown: choose ${KNOWN[name].join(", ")}`);
        }
        state[name] = value;
      } else if (name === "prompt" || name === "corrupt") state[name] = value.slice(-LONGEST);
      else if (name === "step" || name === "place") state[name] = natural(value);
      else if (name === "probe") {
        readProbe(value);
        state.probe = value;
      } else if (name === "pins") state.pins = value.split(",").filter(Boolean).map(natural);
      else throw new Error(`the address has ${key.slice(0, 40)}, which the page does not know`);
    } catch (error) {
      problems.push(`${/** @type {Error} */ (error).message}. It was left out.`);
    }
  }
  return { state, problems };
}

/**
 * The address of a state, without what is as in a new one.
 * @param {State} state
 */
export function address(state) {
  /** @type {any} */ const plain = state;
  /** @type {any} */ const first = newState();
  const found = new URLSearchParams();
  for (const name of ["view", "prompt", "corrupt", "shown", "rule", "filter", "probe", "step", "place"]) {
    if (plain[name] !== first[name] || name === "prompt") found.set(name, String(plain[name]));
  }
  if (state.pins.length) found.set("pins", state.pins.join(","));
  for (const [name, value] of Object.entries(state.train)) if (value !== first.train[name]) found.set(`train.${name}`, value);
  state.panes.forEach((pane, k) => {
    /** @type {any} */ const own = pane;
    const at = "ab"[k];
    found.set(`${at}.run`, own.run);
    if (own.seed >= 0) found.set(`${at}.seed`, own.seed);
    for (const name of ["layer", "head"]) if (own[name]) found.set(`${at}.${name}`, own[name]);
    for (const [name, [, write]] of Object.entries(LISTS)) {
      if (own[name].length) found.set(`${at}.${name}`, own[name].map(write).join(","));
    }
  });
  return `#${found.toString().replaceAll("%3D", "=").replaceAll("%2C", ",").replaceAll("%40", "@")}`;
}

/**
 * A list with something put in, or taken out if it is there.
 * @template T @param {T[]} list @param {T} one @param {(one: T) => string} text
 */
export function toggled(list, one, text) {
  const known = list.some((other) => text(other) === text(one));
  return known ? list.filter((other) => text(other) !== text(one)) : [...list, one];
}
