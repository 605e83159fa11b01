/** Whether a model knows the order of its file: what follows a line, and what it says follows. */

import { argmax } from "../engine/numbers.js";
import { makeBatch } from "../engine/batch.js";
import { forward } from "../engine/model.js";
import { say } from "../engine/answers.js";
import { button, h, visible } from "../ui/dom.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../models.js").Opened} Opened */

const AT_ONCE = 8; // lines of a count between two looks at the page
/** @type {Map<string, {right: number, done: number, of: number}>} */
const counted = new Map();

/** @param {Scene} scene */
export function order(scene) {
  const { task, run } = scene.opened;
  if (!task.order)
    return [
      h(
        "p",
        { class: "message note" },
        "This run does not say in which order the lines of its file stood, so there is nothing to compare with.",
      ),
    ];
  const lines = task.order.map((k) => task.examples[k].line);
  const newline = task.index.get("\n");
  if (newline === undefined) return [h("p", { class: "message" }, "This task's lines do not end in a newline.")];
  const known = /** @type {Record<string, string>} */ ({
    shuffled:
      "This model was trained on lines in a new order for every window, so it had no order to learn. For comparison, the lines below are in the order of the file that its seed gives.",
    line: "This model was trained on whole lines, one at a time, so it had no order to learn. For comparison, the lines below are in the order of the file that its seed gives.",
  })[run.framing];
  const place = lineOf(scene, lines);
  const parts = known ? [h("p", { class: "quiet" }, known)] : [];
  parts.push(share(scene.opened, lines));
  const from = Math.max(0, Math.min(lines.length - 6, place - 2));
  const shown = (/** @type {string} */ text) => [...text].map(visible).join("");
  const rows = lines.slice(from, from + 6).map((line, k) => {
    const number = from + k;
    const said = sayLine(scene.opened, line, newline);
    const next = lines[number + 1];
    return h(
      "tr",
      { class: number === place ? "now" : null },
      h("td", { class: "number" }, String(number + 1)),
      h("td", {}, button(`prompt ${line}`, shown(line), { class: "quiet" })),
      h("td", {}, next ? shown(next) : "the file ends"),
      h("td", { class: next === said ? "right" : "wrong" }, `${next === said ? "✓" : "✗"} ${shown(said)}`),
    );
  });
  parts.push(
    h(
      "div",
      { class: "wide" },
      h(
        "table",
        { class: "lines" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ...["number", "line of the file", "next line of the file", "next line, as the model predicts it"].map((name) =>
              h("th", { scope: "col" }, name),
            ),
          ),
        ),
        h("tbody", {}, ...rows),
      ),
    ),
    h(
      "p",
      { class: "quiet" },
      `The model predicts the next line character by character; it sees the last ${scene.opened.model.shape.n_ctx} characters each time. Click a line to make it the prompt. ⏎ is a newline: type it by Enter.`,
    ),
  );
  return parts;
}

/** The line that the prompt is of, by its place in the file. @param {Scene} scene @param {string[]} lines */
function lineOf(scene, lines) {
  const before = scene.text.lastIndexOf("\n");
  if (before >= 0) {
    const start = scene.text.lastIndexOf("\n", before - 1) + 1;
    const found = lines.indexOf(scene.text.slice(start, before + 1));
    if (found >= 0) return found;
  }
  const { task } = scene.opened;
  return scene.example >= 0 ? Math.max(0, lines.indexOf(task.examples[scene.example].line)) : 0;
}

/** What a model says after a line, up to a newline. @param {Opened} opened @param {string} line @param {number} newline */
function sayLine({ model, task }, line, newline) {
  const tokens = task.encode(line);
  const said = say(model, tokens, new Set([newline]));
  return task.decode(said.tokens.slice(tokens.length));
}

/** The share of lines that a model says right after the line before; counted a few at a time. @param {Opened} opened @param {string[]} lines */
function share(opened, lines) {
  const found = counted.get(opened.key);
  if (!found) {
    counted.set(opened.key, { right: 0, done: 0, of: lines.length - 1 });
    setTimeout(() => countOn(opened, lines));
  }
  const { right, done, of } = counted.get(opened.key) ?? { right: 0, done: 0, of: lines.length - 1 };
  const words = done < of ? ` (of the ${done} tried so far)` : ` (${right} of ${of})`;
  return h(
    "p",
    { role: "status" },
    "Next lines predicted correctly: ",
    h("b", {}, done ? `${((100 * right) / done).toFixed(0)} %` : "…"),
    words,
  );
}

/** @param {Opened} opened @param {string[]} lines */
function countOn(opened, lines) {
  const own = counted.get(opened.key);
  if (!own) return;
  const until = Math.min(own.done + AT_ONCE, own.of);
  for (; own.done < until; own.done++) {
    if (isForetold(opened, lines[own.done], lines[own.done + 1])) own.right++;
  }
  if (own.done < own.of) setTimeout(() => countOn(opened, lines));
  if (own.done >= own.of || own.done % 40 === 0) document.dispatchEvent(new CustomEvent("redraw"));
}

/** Whether each character of a line is the likeliest after the line before and its own beginning. @param {Opened} opened @param {string} line @param {string} next */
function isForetold({ model, task }, line, next) {
  const tokens = task.encode(line + next);
  const { n_ctx, d_vocab } = model.shape;
  const windows = [...next].map((_, k) => tokens.slice(Math.max(0, line.length + k - n_ctx), line.length + k));
  const batch = makeBatch(windows);
  const { logits } = forward(model, batch);
  return windows.every((window, k) => argmax(logits, batch.nodes[k][window.length - 1] * d_vocab, d_vocab) === tokens[line.length + k]);
}
