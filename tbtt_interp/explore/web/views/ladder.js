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

/** @param {Listed[]} runs @param {string} name @param {string} words @param {State} state @param {number} width */
function panel(runs, name, words, state, width) {
  const [left, top, height, bottom] = [34, 13, 132, 40];
  const most = Math.max(...runs.map((row) => Object.keys(row.final).length));
  const group = Math.max(TARGET * most + 12, (width - left) / runs.length);
  const whole = left + group * runs.length;
  const y = (/** @type {number} */ share) => top + (1 - share) * (height - 2 * top);
  const parts = [0, 0.5, 1].flatMap((share) => [
    s("line", { x1: left, x2: whole, y1: y(share), y2: y(share), class: "rule" }),
    s("text", { x: left - 6, y: y(share) + 4, class: "axis end" }, String(share)),
  ]);
  runs.forEach((row, k) => {
    const middle = left + (k + 0.5) * group;
    parts.push(
      s("text", { x: middle, y: height + 6, class: "middle" }, group > 90 ? `${row.size}, ${row.framing}` : row.size),
      s("text", { x: middle, y: height + 21, class: "axis middle" }, group > 90 ? `${count(row.weights)} weights` : row.framing),
    );
    const seeds = Object.entries(row.final).filter(([, one]) => one[name] !== null);
    const interval = row.intervals[name];
    if (interval) {
      const [mean, low, high] = interval;
      parts.push(
        s("line", { x1: middle, x2: middle, y1: y(low), y2: y(high), class: "interval" }),
        s("line", {
          x1: middle - 14,
          x2: middle + 14,
          y1: y(mean),
          y2: y(mean),
          class: "mean",
          "data-tip": `${row.name}: mean ${mean.toFixed(2)}, 95 % CI ${low.toFixed(2)} to ${high.toFixed(2)}, n = ${seeds.length} models`,
          "data-value": mean,
        }),
      );
    }
    seeds.forEach(([seed, one], place) => {
      const value = Math.max(0, Math.min(1, Number(one[name])));
      const cx = middle + (place - (seeds.length - 1) / 2) * TARGET;
      const shown = state.panes.some((pane) => pane.run === row.name && (pane.seed < 0 ? seeds[0][0] : String(pane.seed)) === seed);
      parts.push(
        s("circle", { cx, cy: y(value), r: 5.5, class: `model-dot ${row.framing}${shown ? " now" : ""}` }),
        s("circle", {
          cx,
          cy: y(value),
          r: TARGET / 2,
          class: "hit",
          role: "button",
          tabindex: 0,
          "data-act": `open ${row.name}:${seed}`,
          "data-key": `${name}/${row.name}/${seed}`,
          "data-value": value,
          "data-tip": `${row.name}, seed ${seed}: ${value.toFixed(2)}; click to open it as model B`,
          "aria-label": `${row.name}, seed ${seed}: ${value.toFixed(2)}, open as model B`,
        }),
      );
    });
  });
  return h(
    "figure",
    { class: "panel" },
    h("h3", {}, words[0].toUpperCase() + words.slice(1)),
    h(
      "div",
      { class: "wide" },
      s(
        "svg",
        { width: whole, height: height + bottom - 14, viewBox: `0 0 ${whole} ${height + bottom - 14}`, role: "group", "aria-label": words },
        ...parts,
      ),
    ),
    h(
      "figcaption",
      {},
      name === "order"
        ? "A dot is a model, the bar the mean with its 95 % CI (Student's). Share of the order's bits that the loss shows, on the file alone."
        : "A dot is a model, the bar the mean share with its 95 % CI (beta-binomial). Click a dot to open it as model B.",
    ),
  );
}
