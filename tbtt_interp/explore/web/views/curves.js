/** How a model trained: shares of equations answered, order known, and loss, by step. */

import { h, s, count } from "../ui/dom.js";
import { figure } from "../ui/saving.js";

/** @typedef {import("../models.js").Opened} Opened */

const MEASURES = [
  ["seen", "seen answered"],
  ["held_out", "held-out answered"],
  ["order", "line order known"],
];

/**
 * The curves of one model, in a figure that jumps to the step that is clicked.
 * @param {Opened} opened @param {number} width in pixels
 */
export function curves(opened, width) {
  const { steps, seeds } = opened.run.metrics;
  const own = seeds[String(opened.seed)];
  if (!own || !steps.length) return h("p", { class: "quiet" }, "This model was trained elsewhere: its evaluations are not known.");
  const [height, left, right, top, bottom] = [104, 34, 34, 8, 20];
  const last = steps[steps.length - 1] || 1;
  const x = (/** @type {number} */ step) => left + (step / last) * (width - left - right);
  const losses = own.loss.filter((v) => v !== null).map(Number);
  const most = Math.max(...losses, 0.1);
  const y = (/** @type {number} */ share) => top + (1 - share) * (height - top - bottom);
  const line = (/** @type {(number | null)[]} */ values, /** @type {number} */ scale) => {
    let path = "";
    values.forEach((v, k) => {
      if (v !== null) path += `${path ? "L" : "M"}${x(steps[k]).toFixed(1)} ${y(v / scale).toFixed(1)}`;
    });
    return path;
  };
  const drawn = MEASURES.filter(([name]) => own[name].some((v) => v !== null));
  const parts = [];
  for (const share of [0, 0.5, 1]) {
    parts.push(
      s("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "rule" }),
      s("text", { x: left - 5, y: y(share) + 4, class: "axis end" }, String(share)),
    );
  }
  parts.push(
    s("text", { x: width - right + 5, y: y(1) + 4, class: "axis" }, most.toFixed(1)),
    s("text", { x: width - right + 8, y: y(0) + 4, class: "axis" }, "0"),
  );
  for (const step of [0, last / 2, last]) {
    const anchor = step === 0 ? "" : step === last ? " end" : " middle";
    parts.push(s("text", { x: x(step), y: height - 5, class: `axis${anchor}` }, `${step ? "" : "step "}${count(Math.round(step))}`));
  }
  parts.push(s("path", { d: line(own.loss, most), class: "curve loss" }));
  for (const [name] of drawn) parts.push(s("path", { d: line(own[name], 1), class: `curve ${name}` }));
  for (const step of opened.steps) {
    const at = steps.indexOf(step);
    const said = [...drawn, ["loss", "loss, nats per character"]].flatMap(([name, words]) =>
      at >= 0 && own[name][at] !== null ? [`${words} ${Number(own[name][at]).toFixed(3)}`] : [],
    );
    parts.push(
      s("circle", {
        "data-tip": `step ${count(step)}: ${said.join(", ") || "not evaluated"}`,
        "data-value": step,
        cx: x(step),
        cy: height - bottom,
        r: step === opened.step ? 5 : 2.5,
        class: `kept${step === opened.step ? " now" : ""}`,
      }),
    );
  }
  parts.push(s("line", { x1: x(opened.step), x2: x(opened.step), y1: top, y2: height - bottom, class: "cursor" }));
  const drawing = s(
    "svg",
    {
      class: "curves",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": "Training curves; the slider above moves through the same steps.",
      "data-curves": `${left} ${width - right} ${last}`,
    },
    ...parts,
  );
  const key = [...drawn, ["loss", "loss, nats a character (right axis)"]].map(([name, words]) =>
    h("span", { class: `key ${name}` }, words.replace("a character", "per character")),
  );
  return figure(
    {},
    h("h3", { class: "unseen" }, `Training of ${opened.run.name}, seed ${opened.seed}`),
    drawing,
    h("figcaption", { class: "keys" }, ...key),
  );
}
