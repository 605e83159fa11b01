/** Mean attention by what stands at query and key, over all examples. */

import { cellMap } from "../ui/cells.js";
import { h, visible } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../source.js").Example} Example */

const MOST_NUMBERED = 4; // answers of more tokens have one role

/** The role of each character of a prompt: a label's name, or the text between labels. @param {Example} example @param {string[]} names */
export function promptRoles(example, names) {
  const { prompt } = example;
  /** @type {string[]} */
  const roles = [];
  const between = (/** @type {number} */ until) => {
    const text = prompt.slice(roles.length, until);
    for (let k = 0; k < text.length; k++) roles.push([...text].map(visible).join(""));
  };
  for (const name of names) {
    const value = String(example.labels[name] ?? "");
    const at = value ? prompt.indexOf(value, roles.length) : -1;
    if (at < 0) continue;
    between(at);
    for (let k = 0; k < value.length; k++) roles.push(name);
  }
  between(prompt.length);
  return roles;
}

/** One head's attention by role. @param {Scene} scene @param {number} layer @param {number} head @param {number} number of the pane @param {number} width */
export function attentionByRole(scene, layer, head, number, width) {
  const { answers, task, model } = scene.opened;
  const site = `blocks.${layer}.attn.hook_pattern`;
  const pattern = scene.fed().get(site);
  if (!pattern) return null;
  const { keys, width: most } = answers.batch;
  const longest = Math.max(...task.tokens.map(({ answer }) => answer.length));
  /** @type {Map<string, number>} */
  const first = new Map(); // the first place of each role, counted from the prompt's last character
  /** @type {Map<string, number>} */
  const sums = new Map();
  /** @type {Map<string, number>} */
  const queries = new Map();
  task.tokens.forEach(({ prompt, answer }, k) => {
    const roles = [
      ...promptRoles(task.examples[k], task.run.varied),
      ...answer.map((_, n) => (longest <= MOST_NUMBERED ? `answer ${n + 1}` : "answer")),
    ];
    const begin = answers.example.indexOf(k);
    const context = model.shape.n_ctx;
    const fits = prompt.length + answer.length - 1 <= context;
    const rows = fits ? [answer.length - 1] : answer.map((_, n) => n);
    for (const row of rows) {
      const node = answers.node[begin + row];
      const length = answers.batch.pos[node] + 1;
      const start = prompt.length + row - length;
      for (let query = 0; query < length; query++) {
        const q = roles[start + query];
        if (!first.has(q)) first.set(q, start + query - prompt.length);
        queries.set(q, (queries.get(q) ?? 0) + 1 / rows.length);
        const at = (keys[node * most + query] * pattern.heads + head) * most;
        for (let key = 0; key <= query; key++) {
          const name = `${q}\n${roles[start + key]}`;
          sums.set(name, (sums.get(name) ?? 0) + pattern.data[at + key] / rows.length);
        }
      }
    }
  });
  const names = [...first.keys()].sort((a, b) => (first.get(a) ?? 0) - (first.get(b) ?? 0));
  const size = Math.max(34, Math.min(52, Math.floor((width - 110) / names.length)));
  const map = cellMap({
    key: `${number}/roles`,
    label: "Mean attention by role",
    size,
    height: 30,
    rowTitle: "query",
    columnTitle: "key",
    rows: names,
    columns: names.map((name) => short(name)),
    shade: (v) => v,
    at: (q, k) => {
      const sum = sums.get(`${names[q]}\n${names[k]}`);
      if (sum === undefined) return null;
      const value = sum / (queries.get(names[q]) ?? 1);
      return { value, text: value.toFixed(2).replace("0.", "."), tip: `${names[q]} → ${names[k]}: ${value.toFixed(3)}` };
    },
  });
  return figure(
    {},
    h("h3", {}, `Head ${layer}.${head}: mean attention by role, all ${task.examples.length} examples`),
    h("div", { class: "wide" }, map),
    h("figcaption", {}, "A role's keys are added up: attention on all letters of a country is one number."),
  );
}

/** A role's name where there is room for six characters. @param {string} name */
function short(name) {
  const known = name.replace("answer ", "ans ").replace("operator", "±");
  return known.length > 7 ? `${known.slice(0, 5)}…` : known;
}
