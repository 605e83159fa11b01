/** Every model that is open, at its last step: a dot each, with the mean and its interval. */

import { h, s, count } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

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

/**
 * The values of a measure, each with the models that have it to two digits, and with a lane in which
 * nothing that is clicked overlaps.
 * @param {Listed} row @param {string} name of the measure @param {number} long pixels from 0 to 1
 */
function placed(row, name, long) {
  /** @type {Map<string, string[]>} */
  const found = new Map();
  for (const [seed, one] of Object.entries(row.final)) {
    if (one[name] === null) continue;
    const value = Math.max(0, Math.min(1, Number(one[name]))).toFixed(2);
    found.set(value, [...(found.get(value) ?? []), seed]);
  }
  /** @type {number[][]} */
  const lanes = [];
  const dots = [...found].map(([text, seeds]) => {
    const value = Number(text);
    const free = lanes.findIndex((others) => others.every((other) => Math.abs(other - value) * long >= TARGET));
    const lane = free < 0 ? lanes.push([]) - 1 : free;
    lanes[lane].push(value);
    return { seeds, value, lane };
  });
  return { dots, lanes: lanes.length };
}

/** One measure of every run: side by side, or one below the other where there is no room. @param {Listed[]} runs @param {string} name @param {string} words @param {State} state @param {number} width */
function panel(runs, name, words, state, width) {
  const known = runs.filter((row) => Object.values(row.final).some((one) => one[name] !== null));
  const [upright, lying] = [known.map((row) => placed(row, name, 116)), known.map((row) => placed(row, name, width - 146))];
  const room = (width - 34) / known.length; // of a run beside others
  const down = room < Math.max(80, 8 + TARGET * Math.max(...upright.map(({ lanes }) => lanes)));
  const [near, far] = down ? [132, width - 14] : [128, 12]; // where 0 and 1 lie
  const start = down ? 20 : 34;
  const rooms = lying.map(({ lanes }) => (down ? Math.max(30, 6 + TARGET * lanes) : room));
  const ends = rooms.map((_, k) => start + rooms.slice(0, k + 1).reduce((a, b) => a + b, 0));
  const length = ends[ends.length - 1];
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
  const drawn = known.flatMap((row, k) =>
    runMarks(row, name, (down ? lying : upright)[k], state, ends[k] - rooms[k] / 2, rooms[k], at, line),
  );
  const labels = known.flatMap((row, k) => {
    const middle = ends[k] - rooms[k] / 2;
    const [first, second] = [`${row.size}, ${row.framing}`, variant(row) || `${count(row.weights)} weights`];
    return down
      ? [
          s("text", { x: near - 13, y: middle - 1, class: "end" }, first),
          s("text", { x: near - 13, y: middle + 11, class: "axis end small" }, second),
        ]
      : [
          s("text", { x: middle, y: 154, class: "middle" }, room > 96 ? first : row.size),
          s("text", { x: middle, y: 169, class: "axis middle" }, room > 96 || variant(row) ? second : row.framing),
        ];
  });
  return figure(
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
        ? "A dot is one model, or as many as its number says; the bar is the mean with its 95 % CI (Student's t). 0: the model knows nothing of the order of the file's lines; 1: all of it. It is computed from the loss, for models trained on the file. Click a dot to open it as model B, and again for the next."
        : "A dot is one model, or as many as its number says; the bar is the mean share with its 95 % CI (beta-binomial). Click a dot to open it as model B, and again for the next.",
    ),
  );
}

/**
 * A run's mean with its interval, over them its dots, and above all what is clicked.
 * @param {Listed} row @param {string} name of the measure @param {ReturnType<typeof placed>} found @param {State} state
 * @param {number} middle @param {number} room
 * @param {(along: number, share: number) => [number, number]} at
 * @param {(from: [number, number], to: [number, number], more: import("../ui/dom.js").Attributes) => import("../ui/dom.js").Drawn} line
 */
function runMarks(row, name, { dots: found, lanes }, state, middle, room, at, line) {
  const all = row.seeds.map(String);
  const shown = state.panes.map((pane) => (pane.run === row.name ? (pane.seed < 0 ? all[0] : String(pane.seed)) : ""));
  const marks = found.map(({ seeds, value, lane }) => {
    const now = seeds.some((seed) => shown.includes(seed));
    const next = seeds[(seeds.indexOf(shown[1]) + 1) % seeds.length];
    const [cx, cy] = at(middle + (lane - (lanes - 1) / 2) * TARGET, value);
    const many = seeds.length > 1;
    const words = `${row.name}, seed${many ? "s" : ""} ${seeds.join(", ")}: ${value.toFixed(2)}`;
    return [
      s(
        "g",
        {},
        s("circle", { cx, cy, r: many ? 8.5 : 5.5, class: `model-dot ${row.framing}${now ? " now" : ""}` }),
        many ? s("text", { x: cx, y: cy + 4, class: "on middle" }, String(seeds.length)) : null,
      ),
      s("circle", {
        cx,
        cy,
        r: TARGET / 2,
        class: "hit",
        role: "button",
        tabindex: 0,
        "data-act": `open ${row.name}:${next}`,
        "data-key": `${name}/${row.name}/${seeds[0]}`,
        "data-value": value,
        "data-tip": `${words}; click to open ${many ? `seed ${next}` : "it"} as model B`,
        "aria-label": `${words}, open ${many ? `seed ${next} ` : ""}as model B`,
      }),
    ];
  });
  const [dots, targets] = [0, 1].map((k) => marks.map((mark) => mark[k]));
  const interval = row.intervals[name];
  if (!interval) return [...dots, ...targets];
  const [mean, low, high] = interval;
  const half = Math.min(14, room / 2 - 2);
  const tip = `${row.name}: mean ${mean.toFixed(2)}, 95 % CI ${low.toFixed(2)} to ${high.toFixed(2)}, n = ${found.reduce((sum, { seeds }) => sum + seeds.length, 0)} models`;
  return [
    line(at(middle, low), at(middle, high), { class: "interval" }),
    line(at(middle - half, mean), at(middle + half, mean), { class: "mean", "data-tip": tip, "data-value": mean }),
    ...dots,
    ...targets,
  ];
}
