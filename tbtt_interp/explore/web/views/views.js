/** What each view shows of a pane, and of both together. */

import { h } from "../ui/dom.js";
import { counts, tooLarge } from "../scene.js";
import { attention, attentionChoices } from "./attention.js";
import { attribution } from "./attribution.js";
import { curves } from "./curves.js";
import { examples, examplesChoices } from "./examples.js";
import { flow } from "./flow.js";
import { inside, neurons } from "./inside.js";
import { ladder } from "./ladder.js";
import { order } from "./order.js";
import { patching } from "./patching.js";
import { noteCounts, trainChoices, trainedModel } from "./train.js";
import { legend, operandGrids } from "./grids.js";
import { probes, probesLegend } from "./probes.js";
import { answerLine, changes, controls, status } from "./pane.js";

/** @typedef {import("../scene.js").Scene} Scene */
/** @typedef {import("../state.js").State} State */

let pageWidth = 1280; // pixels

/** Measures the page's width. */
export function measurePage() {
  pageWidth = Math.max(320, Math.min(document.documentElement.clientWidth || innerWidth, 1440));
}

/** The width that a pane's figures have, in pixels. */
export function paneWidth() {
  return pageWidth < 900 ? pageWidth - 44 : (pageWidth - 36 - 16) / 2 - 30;
}

/**
 * @param {Scene | Error} scene @param {import("../source.js").Listed[]} runs @param {State} state @param {number} k
 * @returns {import("../ui/dom.js").Child[]}
 */
export function paneContent(scene, runs, state, k) {
  const pane = state.panes[k];
  const title = h("h2", {}, `Model ${"AB"[k]}`);
  if (scene instanceof Error) {
    return [
      h("div", { class: "head" }, title, controls(runs, pane, k, pane.seed)),
      h("p", { class: "message", role: "alert" }, scene.message),
    ];
  }
  const width = paneWidth();
  const trained = state.view === "train" && k === 0 && trainedModel();
  if (trained) noteCounts(trained, counts(scene));
  const big = state.view === "story" || state.view === "train";
  const stacked = width < 580;
  const cell = Math.max(25, Math.min(28, Math.floor((width - (stacked ? 40 : 90)) / (stacked ? 10 : 20))));
  const grids = h("div", { class: `grids${stacked ? " stacked" : ""}` }, ...operandGrids(scene, String(k), cell));
  const heavy = scene.far && { patching: "Patching every activation", order: "The line order" }[state.view];
  const own = heavy ? [h("p", { class: "message note" }, tooLarge(scene, heavy))] : (VIEW[state.view]?.(scene, state, k, width) ?? []);
  return [
    h(
      "div",
      { class: "head" },
      title,
      trained ? h("span", { class: "quiet" }, trained.run.name) : controls(runs, pane, k, scene.opened.seed),
    ),
    answerLine(scene, state),
    changes(scene, pane, k),
    ...(big
      ? [grids, status(scene, pane), curves(scene.opened, width)]
      : [
          ...own,
          h("details", { class: "context", open: true }, h("summary", {}, "Which equations it answers"), grids, status(scene, pane)),
        ]),
  ];
}

/** @type {Record<string, (scene: Scene, state: State, k: number, width: number) => import("../ui/dom.js").Child[]>} */
const VIEW = {
  attention: (scene, state, k, width) => attention(scene, state, state.panes[k], k, width),
  flow: (scene, state, k, width) => flow(scene, state, state.panes[k], k, width),
  patching: (scene, state, k, width) => [
    ...patching(scene, state, state.panes[k], k, width),
    ...attention(scene, { ...state, shown: "prompt" }, state.panes[k], k, width),
    neurons(scene, state.panes[k], k),
  ],
  inside: (scene, state, k, width) => inside(scene, state.panes[k], k, width),
  order: (scene) => order(scene),
  probes: (scene, state, k, width) => probes(scene, state, k, width),
  examples,
};

/** @param {(Scene | Error)[]} scenes @param {import("../source.js").Listed[]} runs @param {State} state @returns {import("../ui/dom.js").Child[]} */
export function sharedContent(scenes, runs, state) {
  if (state.view === "story") return [legend()];
  if (state.view === "examples") return [examplesChoices(state)];
  if (state.view === "probes") return [probesLegend()];
  if (state.view === "ladder") return ladder(runs, state, pageWidth - 70);
  if (state.view === "inside") return [attribution(scenes, state, pageWidth - 70)];
  if (state.view === "train") {
    const like = scenes[1] instanceof Error ? null : scenes[1].opened;
    return [...trainChoices(like, state), legend()];
  }
  if (state.view === "attention") return [attentionChoices(state)];
  return [];
}
