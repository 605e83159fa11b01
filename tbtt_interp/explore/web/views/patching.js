/** A corrupted prompt with activations or paths of a clean one: each by itself, and several at once. */

import { nextLogits, say } from "../engine/answers.js";
import { makeBatch } from "../engine/batch.js";
import { combine, patchIn } from "../engine/interventions.js";
import { forward } from "../engine/model.js";
import { isPath, Paths, routesOf, sendersOf } from "../engine/paths.js";
import { patchText, pathText } from "../state.js";
import { cellMap } from "../ui/cells.js";
import { button, h, signed, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */
/** @typedef {import("../state.js").Pane} Pane */
/** @typedef {import("../state.js").Patch} Patch */
/** @typedef {import("../state.js").Path} Path */

const CLOSE = 0.05; // nats; a share of a smaller difference would be noise

/** The places of a model that can be patched, in the order of its computation. @param {import("../engine/model.js").Shape} shape */
function places(shape) {
  /** @type {{site: string, head: number | null, name: string}[]} */
  const found = [];
  for (let layer = 0; layer < shape.layers; layer++) {
    const at = `blocks.${layer}`;
    const add = (/** @type {string} */ site, /** @type {string} */ name, head = /** @type {number | null} */ (null)) =>
      found.push({ site: `${at}.${site}`, head, name: shape.layers > 1 ? `${layer} ${name}` : name });
    add("hook_resid_pre", "resid_pre");
    for (let head = 0; head < shape.heads; head++) {
      for (const role of ["q", "k", "v", "z"]) {
        add(`attn.hook_${role}`, shape.heads > 1 ? `${role}.${head}` : role, head);
      }
    }
    add("hook_attn_out", "attn_out");
    add("hook_resid_mid", "resid_mid");
    add("hook_mlp_out", "mlp_out");
    add("hook_resid_post", "resid_post");
  }
  return found;
}

/** @param {Scene} scene @param {State} state @param {Pane} pane @param {number} number @param {number} width */
export function patching(scene, state, pane, number, width) {
  const { task, model } = scene.opened;
  const text = task.complete(state.corrupt);
  const problem = mismatch(scene, text);
  if (problem || !scene.said) return [h("p", { class: "message" }, problem)];
  const clean = task.encode(scene.text);
  const corrupt = task.encode(text);
  const answers = [answerOf(scene, scene.text, clean), answerOf(scene, text, corrupt)];
  const place = answers[0].findIndex((token, k) => token !== answers[1][k]);
  if (place < 0)
    return [h("p", { class: "message" }, `${state.prompt} and ${state.corrupt} have the same answer: give two whose answers differ.`)];
  const shared = answers[0].slice(0, place);
  const [right, wrong] = [answers[0][place], answers[1][place]];
  const given = (/** @type {number[]} */ prompt) => [...prompt, ...shared].slice(-model.shape.n_ctx);
  const batch = makeBatch([given(clean)]);
  const source = forward(model, batch, { hooks: scene.hooksAt(0), keep: () => true }).cache;
  const patched = combine(scene.hooksAt(0), patchIn(pane.patches, source));
  const paths = new Paths(model, makeBatch([given(corrupt)]), batch, patched, scene.hooksAt(0));
  const chosen = pane.paths.filter((path) => isPath(path, model.shape));
  const difference = (/** @type {import("../engine/model.js").Hooks} */ hooks) => {
    const logits = nextLogits(model, given(corrupt), () => hooks);
    return logits[right] - logits[wrong];
  };
  const withPatches = (/** @type {Patch[]} */ patches) => difference(combine(scene.hooksAt(0), patchIn(patches, source)));
  const cleanLogits = nextLogits(model, given(clean), () => scene.hooksAt(0));
  const whole = cleanLogits[right] - cleanLogits[wrong];
  const none = withPatches([]);
  const share = (/** @type {number} */ value) => (Math.abs(whole - none) > CLOSE ? (value - none) / (whole - none) : NaN);
  const rows = places(model.shape);
  const tokens = given(clean).map((token, k) => {
    const other = task.characters[given(corrupt)[k]];
    const own = task.characters[token];
    return own === other ? visible(own) : `${visible(own)}›${visible(other)}`;
  });
  const size = Math.max(28, Math.min(52, Math.floor((width - 90) / tokens.length)));
  const map = cellMap({
    key: `${number}/patching`,
    label: "Share of the logit difference that each activation restores",
    size,
    height: 24,
    rows: rows.map((row) => row.name),
    columns: tokens,
    columnTitle: "token, clean›corrupted",
    shade: (v) => Math.min(1, v),
    at: (row, column) => {
      const { site, head } = rows[row];
      const patch = { site, head, pos: column };
      const value = share(withPatches([patch]));
      const on = pane.patches.some((one) => patchText(one) === patchText(patch));
      return {
        value,
        text: `${on ? "●" : ""}${short(value)}`,
        act: `patch ${patchText(patch)}`,
        pressed: on,
        ring: on,
        tip: `${rows[row].name} at ${tokens[column]} restores ${short(value, 3)}; click to ${on ? "take it out" : "put it in"}`,
      };
    },
  });
  const everything = combine(patched, paths.hooksOf(chosen));
  const said = say(model, corrupt, task.ends, (start) => (start ? scene.hooksAt(start) : everything));
  const now = share(difference(everything));
  const own = difference(patched); // without paths
  const alone = (/** @type {Path} */ path) => share(none + difference(combine(patched, paths.hooksOf([path]))) - own);
  const count = pane.patches.length + chosen.length;
  const words = (/** @type {number[]} */ list) => list.map((t) => visible(task.characters[t])).join("");
  const [r, w] = [visible(task.characters[right]), visible(task.characters[wrong])];
  return [
    figure(
      {},
      h("h3", {}, "What each clean activation restores in the corrupted run"),
      h("div", { class: "wide" }, map),
      h(
        "figcaption",
        {},
        `Share of the difference between the logits of ${r} and ${w}${shared.length ? ` after ${words(shared)}` : ""}: ${signed(whole)} nats clean, ${signed(none)} corrupted. 1 is the clean run, 0 the corrupted one.`,
      ),
    ),
    Math.abs(whole - none) < 2
      ? h(
          "p",
          { class: "message note" },
          `This model's difference is only ${signed(whole - none)} nats from corrupted to clean: a share of so small a difference means little.`,
        )
      : null,
    ...pathMaps(model.shape, chosen, alone, number, width),
    count
      ? h(
          "div",
          { class: "chips" },
          h("span", {}, "Put in:"),
          ...pane.patches.map((one) =>
            button(
              `patch ${patchText(one)}`,
              `✕ ${one.site.replace(/^blocks\./, "")}${one.head === null ? "" : `.${one.head}`} at ${one.pos + 1}`,
              { "data-pane": number, title: "take this patch out" },
            ),
          ),
          ...chosen.map((one) =>
            button(`path ${pathText(one)}`, `✕ ${names(one).join(" → ")}`, { "data-pane": number, title: "take this path out" }),
          ),
          button("unpatch", "take all out", { "data-pane": number, class: "quiet" }),
        )
      : null,
    pane.paths.length > chosen.length
      ? h(
          "p",
          { class: "message" },
          `This model has no ${pane.paths
            .filter((path) => !isPath(path, model.shape))
            .map((path) => names(path).join(" → "))
            .join(", ")}.`,
        )
      : null,
    h(
      "p",
      { class: "patched" },
      `${[...text].map(visible).join("")} is answered `,
      h("b", {}, words(said.tokens.slice(said.asked))),
      `${count ? " with these patches" : ""}; `,
      h("b", {}, Number.isFinite(now) ? short(now) : "no number"),
      " of the difference restored.",
    ),
  ];
}

/** A share in few characters. @param {number} value @param {number} [digits] */
function short(value, digits = 2) {
  return Number.isFinite(value)
    ? value
        .toFixed(digits)
        .replace(/^-(?=.*[1-9])/, "−")
        .replace("-", "")
    : digits > 2
      ? "no number"
      : "·";
}

/** A path's parts in words, to the logits. @param {Path} path */
function names({ sender, via }) {
  return [...[sender, ...via].map(partName), "logits"];
}

/** @param {import("../state.js").Part} part */
function partName({ kind, layer, unit }) {
  if (kind === "embed") return "embedding";
  return kind === "mlp" ? `MLP ${layer}` : `${kind} ${layer}.${unit}`;
}

/**
 * What each path alone restores: from embedding, heads and MLPs by any way, and from neurons directly.
 * @param {import("../engine/model.js").Shape} shape @param {Path[]} chosen @param {(path: Path) => number} alone
 * @param {number} number @param {number} width
 */
function pathMaps(shape, chosen, alone, number, width) {
  const on = new Set(chosen.map(pathText));
  const cell = (/** @type {Path} */ path) => {
    if (!isPath(path, shape)) return null;
    const [text, value] = [pathText(path), alone(path)];
    const pressed = on.has(text);
    return {
      value,
      text: `${pressed ? "●" : ""}${short(value)}`,
      act: `path ${text}`,
      pressed,
      ring: pressed,
      tip: `${names(path).join(" → ")} alone restores ${short(value, 3)}; click to ${pressed ? "take it out" : "let it carry the clean run"}`,
    };
  };
  const [senders, routes] = [sendersOf(shape), routesOf(shape)];
  const across = Math.max(7, Math.min(14, Math.floor((width - 50) / 34)));
  const common = { height: 24, shade: (/** @type {number} */ v) => Math.min(1, v) };
  const way = (/** @type {import("../state.js").Part[]} */ via) =>
    via.map((one) => (shape.layers * shape.heads > 1 ? partName(one).replace(" ", "") : one.kind.replace("mlp", "MLP"))).join("›");
  const columns = routes.map((via) => way(via) || "direct");
  const ways = cellMap({
    ...common,
    key: `${number}/paths`,
    label: "Share of the logit difference that each path restores",
    size: 8 + 7 * Math.max(...columns.map((name) => name.length)),
    rows: senders.map(partName),
    columns,
    columnTitle: "through",
    at: (row, column) => cell({ sender: senders[row], via: routes[column] }),
  });
  const rows = Array.from({ length: Math.ceil((shape.layers * shape.d_mlp) / across) }, (_, k) => k * across);
  const neuron = (/** @type {number} */ k) => ({ kind: "neuron", layer: Math.floor(k / shape.d_mlp), unit: k % shape.d_mlp });
  const last = shape.layers * shape.d_mlp;
  const neurons = cellMap({
    ...common,
    key: `${number}/neuronpaths`,
    label: "Share of the logit difference that each neuron's direct path restores",
    size: 34,
    rows: rows.map((k) => partName(neuron(k)).replace("neuron ", "")),
    columns: Array.from({ length: across }, (_, k) => `+${k}`),
    at: (row, column) => (rows[row] + column < last ? cell({ sender: neuron(rows[row] + column), via: [] }) : null),
  });
  const panel = (/** @type {string} */ title, /** @type {import("../ui/dom.js").Drawn} */ map, /** @type {string} */ words) =>
    figure({}, h("h3", {}, title), h("div", { class: "wide" }, map), h("figcaption", {}, words));
  return [
    panel(
      "What each path carries to the logits",
      ways,
      "Path patching: what a component writes in the clean run, sent along one path alone, at every position; all other paths stay as in the corrupted run with the patches put in.",
    ),
    panel("Neurons, straight to the logits", neurons, "A row begins at the neuron that it names (layer.neuron)."),
  ];
}

/** @param {Scene} scene @param {string} text */
function mismatch(scene, text) {
  const { task, model } = scene.opened;
  const strange = task.strange(text);
  if (strange.length) return `The corrupted prompt has ${strange.map((c) => `“${c}”`).join(", ")}, which this model has no token for.`;
  if (!text) return "The corrupted prompt is empty: type one, such as 3+7.";
  if (text.length !== scene.text.length)
    return `The clean prompt has ${scene.text.length} characters and the corrupted one ${text.length}: give two of equal length, so that positions align.`;
  if (text.length > model.shape.n_ctx)
    return `These prompts are longer than the context of ${model.shape.n_ctx} characters: give shorter ones.`;
  return "";
}

/** The right answer where it is known, else what the model says. @param {Scene} scene @param {string} text @param {number[]} prompt */
function answerOf(scene, text, prompt) {
  const { task, model } = scene.opened;
  const known = task.find(text);
  if (known >= 0) return task.tokens[known].answer;
  const said = say(model, prompt, task.ends);
  return said.tokens.slice(said.asked);
}
