/** Every model that is open, at its last step: a dot each, with the mean and its interval. */

import { h, s, count } from "../ui/dom.js";

/** @typedef {import("../source.js").Listed} Listed */
/** @typedef {import("../state.js").State} State */

const TARGET = 24; // pixels of what can be clicked
const MEASURES = [
  ["held_out", "held-out equations answered"],
  ["order", "line order known, from the loss"],
  ["seen", "seen examples answered"],
];

/** The ladder of the task that model A is of. @param {Listed[]} runs @param {State} state @param {number} width */
export function ladder(runs, state, width) {
  const task = runs.find((row) => row.name === state.panes[0].run)?.task ?? runs[0].task;
  const own = runs.filter((row) => row.task === task && Object.keys(row.final).length);
  if (!own.length) return [h("p", { class: "message" }, `No finished run of the task ${task} is open here, so there is no ladder.`)];
  own.sort((a, b) => a.framing.localeCompare(b.framing) || a.weights - b.weights);
  const drawn = MEASURES.filter(([name]) => own.some((row) => Object.values(row.final).some((one) => one[name] !== null)));
  return drawn.map(([name, words]) => panel(own, name, words, state, width));
}

/** What tells a run from others of its size and framing: the rest of its name. @param {Listed} row */
function variant(row) {
  const usual = `${row.task}-${row.size}-${row.framing}`;
  return row.name.startsWith(usual) ? row.name.slice(usual.length + 1) : row.name;
}

/** One measure of every run: side by side, or one below the other where there is no room. @param {Listed[]} runs @param {string} name @param {string} words @param {State} state @param {number} width */
function panel(runs, name, words, state, width) {
  const known = runs.filter((row) => Object.values(row.final).some((one) => one[name] !== null));
  const down = width / known.length < 84;
  const [near, far] = down ? [132, width - 14] : [128, 10]; // where 0 and 1 lie
  const start = down ? 20 : 34;
  const group = down ? 30 : (width - start) / known.length;
  const length = start + known.length * group;
  const [wide, tall] = down ? [width, length + 4] : [width, 176];
  /** @type {(along: number, share: number) => [number, number]} */
  const at = (along, share) => (down ? [near + share * (far - near), along] : [along, near + share * (far - near)]);
  const line = (
    /** @type {[number, number]} */ [x1, y1],
    /** @type {[number, number]} */ [x2, y2],
    /** @type {import("../ui/dom.js").Attributes} */ more,
  ) => s("line", { x1, y1, x2, y2, ...more });
  const rules = [0, 0.5, 1].flatMap((share) => {
    const [x, y] = at(start, share);
    const label = down ? { x, y: 12, class: "axis middle" } : { x: x - 6, y: y + 4, class: "axis end" };
    return [line(at(start, share), at(length, share), { class: "rule" }), s("text", label, String(share))];
  });
  const drawn = known.flatMap((row, k) => runMarks(row, name, state, start + (k + 0.5) * group, group, at, line));
  const labels = known.flatMap((row, k) => {
    const middle = start + (k + 0.5) * group;
    const [first, second] = [`${row.size}, ${row.framing}`, variant(row) || `${count(row.weights)} weights`];
    return down
      ? [
          s("text", { x: near - 8, y: middle - 1, class: "end" }, first),
          s("text", { x: near - 8, y: middle + 11, class: "axis end small" }, second),
        ]
      : [
          s("text", { x: middle, y: 154, class: "middle" }, group > 96 ? first : row.size),
          s("text", { x: middle, y: 169, class: "axis middle" }, group > 96 || variant(row) ? second : row.framing),
        ];
  });
  return h(
    "figure",
    { class: "panel" },
    h("h3", {}, words[0].toUpperCase() + words.slice(1)),
    s(
      "svg",
      { width: wide, height: tall, viewBox: `0 0 ${wide} ${tall}`, role: "group", "aria-label": words },
      ...rules,
      ...labels,
      ...drawn,
    ),
    h(
      "figcaption",
      {},
      name === "order"
        ? "A dot is a model, the bar the mean with its 95 % CI (Student's). The share of the order's bits that the loss shows; only for models trained on the file."
        : "A dot is a model, the bar the mean share with its 95 % CI (beta-binomial). Click a dot to open it as model B.",
    ),
  );
}

/**
 * A run's dots, over them its mean with its interval, and above all what is clicked.
 * @param {Listed} row @param {string} name of the measure @param {State} state @param {number} middle @param {number} group its room
 * @param {(along: number, share: number) => [number, number]} at
 * @param {(from: [number, number], to: [number, number], more: import("../ui/dom.js").Attributes) => SVGElement} line
 */
function runMarks(row, name, state, middle, group, at, line) {
  const seeds = Object.entries(row.final).filter(([, one]) => one[name] !== null);
  const step = Math.min(TARGET, (group - 18) / Math.max(seeds.length - 1, 1));
  const marks = seeds.map(([seed, one], place) => {
    const value = Math.max(0, Math.min(1, Number(one[name])));
    const now = state.panes.some((pane) => pane.run === row.name && (pane.seed < 0 ? seeds[0][0] : String(pane.seed)) === seed);
    const [cx, cy] = at(middle + (place - (seeds.length - 1) / 2) * step, value);
    const words = `${row.name}, seed ${seed}: ${value.toFixed(2)}`;
    return [
      s("circle", { cx, cy, r: 5.5, class: `model-dot ${row.framing}${now ? " now" : ""}` }),
      s("circle", {
        cx,
        cy,
        r: TARGET / 2,
        class: "hit",
        role: "button",
        tabindex: 0,
        "data-act": `open ${row.name}:${seed}`,
        "data-key": `${name}/${row.name}/${seed}`,
        "data-value": value,
        "data-tip": `${words}; click to open it as model B`,
        "aria-label": `${words}, open as model B`,
      }),
    ];
  });
  const [dots, targets] = [0, 1].map((k) => marks.map((mark) => mark[k]));
  const interval = row.intervals[name];
  if (!interval) return [...dots, ...targets];
  const [mean, low, high] = interval;
  const half = Math.min(14, group / 2 - 2);
  const tip = `${row.name}: mean ${mean.toFixed(2)}, 95 % CI ${low.toFixed(2)} to ${high.toFixed(2)}, n = ${seeds.length} models`;
  return [
    ...dots,
    line(at(middle, low), at(middle, high), { class: "interval" }),
    line(at(middle - half, mean), at(middle + half, mean), { class: "mean", "data-tip": tip, "data-value": mean }),
    ...targets,
  ];
}
