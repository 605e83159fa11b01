/** The page: an address in, two models on screen, a click to the next address. */

import { address, LISTS, newPane, newState, readAddress, toggled } from "./state.js";
import { nearestStep, openModel } from "./models.js";
import { readCatalogue } from "./source.js";
import { sceneOf } from "./scene.js";
import { STORIES } from "./stories.js";
import { moveAmongCells } from "./ui/cells.js";
import { h, put } from "./ui/dom.js";
import { addSaving, saveFigure } from "./ui/saving.js";
import { startTips } from "./ui/tips.js";
import { frame } from "./frame.js";
import { askForProbes } from "./views/probes.js";
import { train, trainedModel } from "./views/train.js";
import { measurePage, paneContent, sharedContent } from "./views/views.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./source.js").Listed} Listed */
/** @typedef {import("./models.js").Opened} Opened */

/** @type {Listed[]} */
let runs = [];
let first = newState();
let state = newState();
/** @type {string[]} */
let problems = [];
/** @type {(Opened | null)[]} */
let shownModels = [null, null];
let asked = 0; // the newest request; answers to older ones are dropped
/** @type {ReturnType<typeof setInterval> | null} */
let playing = null;

const page = /** @type {HTMLElement} */ (document.getElementById("page"));
const at = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** What an empty address shows: a small model beside a large one, both on the file. @param {Listed[]} listed */
function firstState(listed) {
  const found = newState();
  const sums = listed.filter((r) => r.task === listed[0].task);
  const file = sums.filter((r) => r.framing === "file");
  const order = (file.length ? file : sums).toSorted((a, b) => a.shape.d_model - b.shape.d_model);
  found.panes[0].run = order[0].name;
  found.panes[1].run = order[order.length - 1].name;
  if (order[0].task === "facts") [found.prompt, found.corrupt] = ["France", "Greece"];
  return found;
}

/** Goes to another state: its address, then its models, then the drawing. @param {State} next */
function go(next) {
  const before = state;
  state = next;
  if (before.prompt !== next.prompt || before.corrupt !== next.corrupt) dropOfPrompt(before);
  problems = [];
  try {
    history.replaceState(null, "", address(state));
  } catch {
    /* in a notebook's frame there is no address to write */
  }
  show();
}

/** Knock-outs and patches are of one prompt: with another they are dropped, and it is said. @param {State} before */
function dropOfPrompt(before) {
  const isOther = before.prompt !== state.prompt;
  const names = isOther ? ["cuts", "patches", "paths"] : ["patches", "paths"];
  /** @type {string[]} */
  const dropped = [];
  for (const pane of /** @type {any[]} */ (state.panes)) {
    for (const name of names) {
      dropped.push(...pane[name].map(() => (name === "cuts" ? "knock-out" : "patch")));
      pane[name] = [];
    }
  }
  if (isOther) state.place = 0;
  const [n, kinds] = [dropped.length, new Set(dropped)];
  const many = kinds.size > 1 ? "knock-outs and patches" : kinds.has("patch") ? "patches" : "knock-outs";
  at("dropped").textContent = n
    ? `${n} ${n > 1 ? many : dropped[0]} made for ${isOther ? before.prompt : before.corrupt} ${n > 1 ? "were" : "was"} dropped with that prompt.`
    : "";
}

/** Opens the models of this state and draws them; what is on screen is never an older request's. */
async function show() {
  const mine = ++asked;
  controlsFollow();
  /** @type {(Opened | Error)[]} */
  let found;
  const late = setTimeout(() => page.setAttribute("aria-busy", "true"), 80);
  try {
    found = await Promise.all(state.panes.map((pane) => openModel(runs, pane, state.step).catch((error) => /** @type {Error} */ (error))));
  } finally {
    clearTimeout(late);
  }
  if (mine !== asked) return;
  page.removeAttribute("aria-busy");
  draw(found);
}

/** @param {(Opened | Error)[]} found */
function draw(found) {
  const trained = state.view === "train" ? trainedModel() : null;
  if (trained) found = [trained, found[1]];
  shownModels = found.map((one) => (one instanceof Error ? null : one));
  measurePage();
  page.className = `view-${state.view}`;
  const scenes = found.map((one, k) => (one instanceof Error ? one : sceneOf(one, state, state.panes[k])));
  put(
    at("problems"),
    problems.map((text) => h("p", { class: "message" }, text)),
  );
  put(at("shared"), sharedContent(scenes, runs, state));
  scenes.forEach((scene, k) => put(at(`pane-${k}`), paneContent(scene, runs, state, k)));
  addSaving(page);
  sliderFollows();
  document.body.dataset.drawn = address(state);
}

/** All steps that either model is kept at. */
function allSteps() {
  const steps = new Set(shownModels.flatMap((one) => one?.steps ?? []));
  return [...steps].sort((a, b) => a - b);
}

function sliderFollows() {
  const slider = /** @type {HTMLInputElement} */ (at("step"));
  const steps = allSteps();
  const wanted = state.step < 0 ? steps[steps.length - 1] : state.step;
  const place = steps.indexOf(nearestStep(steps, wanted));
  slider.max = String(Math.max(steps.length - 1, 0));
  slider.value = String(place);
  slider.disabled = steps.length < 2;
  const words = `step ${(steps[place] ?? 0).toLocaleString("en")}`;
  slider.setAttribute("aria-valuetext", words);
  at("step-words").textContent = words;
}

function controlsFollow() {
  for (const name of ["prompt", "corrupt"]) {
    const input = /** @type {HTMLTextAreaElement} */ (at(name));
    const value = /** @type {any} */ (state)[name].replaceAll("\n", "⏎");
    if (input.value !== value && document.activeElement !== input) input.value = value;
  }
  for (const tab of document.querySelectorAll("[data-act^='view ']")) {
    tab.setAttribute("aria-pressed", String(tab.getAttribute("data-act") === `view ${state.view}`));
  }
}

/** @returns {State} */
const copy = () => structuredClone(state);

/** Lists of a pane that an action puts something into, or takes it out of. */
const TOGGLED = { cut: "cuts", off: "off", patch: "patches", path: "paths" };

/**
 * What every control does: a verb, its argument, and the pane it stands in.
 * @type {Record<string, (next: State, text: string, pane: number) => void>}
 */
const ACTIONS = {
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
  story: (next, text) => {
    Object.assign(next, storyState(Number(text)));
  },
};

/** @param {number} number */
function storyState(number) {
  at("story").textContent = STORIES[number].text;
  return readAddress(STORIES[number].address, first).state;
}

/** Another task, size or framing: the run that has it and else most of what this one has. @param {string} name @param {string} value @param {number} pane */
function choose(name, value, pane) {
  const now = runs.find((row) => row.name === state.panes[pane].run);
  const alike = runs.filter((row) => /** @type {any} */ (row)[name] === value);
  const score = (/** @type {Listed} */ row) =>
    ["task", "size", "framing"].filter((k) => now && /** @type {any} */ (row)[k] === /** @type {any} */ (now)[k]).length;
  const best = alike.toSorted((a, b) => score(b) - score(a))[0];
  const next = copy();
  next.panes[pane] = newPane(best?.name ?? value);
  if (best && now && best.task !== now.task) {
    const facts = best.task === "facts";
    if (facts) [next.prompt, next.corrupt] = ["France", "Greece"];
    else if (now.task === "facts") [next.prompt, next.corrupt] = ["5+7=", "3+7="];
  }
  go(next);
}

/** @param {Element} target */
function act(target) {
  const [verb, text] = [
    /** @type {string} */ (target.getAttribute("data-act")).split(" ")[0],
    /** @type {string} */ (target.getAttribute("data-act")).split(" ").slice(1).join(" "),
  ];
  const pane = Number(target.getAttribute("data-pane") ?? target.closest("[data-pane]")?.getAttribute("data-pane") ?? 0);
  if (verb === "save")
    return saveFigure(/** @type {Element} */ (target.closest("figure")), text, {
      address: location.href,
      models: shownModels.map((m) => m?.key ?? ""),
    });
  if (verb === "compute") {
    askForProbes(shownModels[pane]);
    return show();
  }
  if (verb === "play") return play();
  if (verb === "copy")
    return navigator.clipboard?.writeText(location.href).then(() => {
      target.textContent = "Copied";
    });
  const action = ACTIONS[verb];
  if (verb.startsWith("train")) return train(verb, shownModels[1], state);
  if (!action) return;
  if (verb !== "step") stop();
  if (verb !== "story") at("story").textContent = "";
  const next = copy();
  action(next, text, pane);
  go(next);
}

function stop() {
  if (playing !== null) clearInterval(playing);
  playing = null;
  at("play").textContent = "▶ play training";
}

function play() {
  if (playing !== null) return stop();
  const steps = allSteps();
  let place = state.step < 0 || state.step >= steps[steps.length - 1] ? 0 : steps.findIndex((s) => s > state.step);
  at("play").textContent = "❚❚ pause";
  const tick = () => {
    if (place >= steps.length) return stop();
    const next = copy();
    next.step = steps[place++];
    go(next);
  };
  tick();
  playing = setInterval(tick, 500);
}

function listen() {
  document.addEventListener("click", (event) => {
    const target = /** @type {Element} */ (event.target);
    const curves = target.closest("[data-curves]");
    if (curves) return jump(/** @type {SVGElement} */ (curves), /** @type {MouseEvent} */ (event));
    const found = target.closest("[data-act]");
    if (found) act(found);
  });
  document.addEventListener("keydown", (event) => {
    const target = /** @type {Element} */ (event.target);
    if ((event.key === "Enter" || event.key === " ") && target instanceof SVGElement && target.hasAttribute("data-act")) {
      event.preventDefault();
      act(target);
    }
    moveAmongCells(event);
  });
  document.addEventListener("change", (event) => {
    const target = /** @type {HTMLSelectElement} */ (event.target);
    const [name, trained] = [target.dataset?.choose, target.dataset?.train];
    if (trained) {
      const next = copy();
      next.train[trained] = trained === "seed" ? String(Math.min(999999, Math.abs(Math.round(Number(target.value) || 0)))) : target.value;
      return go(next);
    }
    if (!name) return;
    const pane = Number(target.dataset.pane);
    if (name === "seed" || name === "run") {
      const next = copy();
      ACTIONS[name](next, target.value, pane);
      go(next);
    } else choose(name, target.value, pane);
  });
  for (const name of ["prompt", "corrupt"]) {
    at(name).addEventListener("input", (event) => {
      const next = copy();
      /** @type {any} */ (next)[name] = /** @type {HTMLInputElement} */ (event.target).value.replaceAll("⏎", "\n").slice(-500);
      at("story").textContent = "";
      go(next);
    });
  }
  for (const name of ["prompt", "corrupt"]) {
    const input = /** @type {HTMLInputElement} */ (at(name));
    const insert = (/** @type {string} */ text) => {
      input.setRangeText(text, input.selectionStart ?? 0, input.selectionEnd ?? 0, "end");
      input.dispatchEvent(new Event("input"));
    };
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") insert("⏎");
    });
    input.addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text") ?? "";
      if (!text.includes("\n")) return;
      event.preventDefault();
      insert(text.replace(/\r?\n/g, "⏎"));
    });
  }
  at("step").addEventListener("input", (event) => {
    stop();
    const next = copy();
    next.step = allSteps()[Number(/** @type {HTMLInputElement} */ (event.target).value)] ?? -1;
    go(next);
  });
  addEventListener("hashchange", () => {
    ({ state, problems } = readAddress(location.hash, first));
    show();
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) show();
    width = innerWidth;
  });
  document.addEventListener("redraw", () => show());
}

/** @param {SVGElement} curves @param {MouseEvent} event */
function jump(curves, event) {
  const [left, right, last] = (curves.getAttribute("data-curves") ?? "").split(" ").map(Number);
  const share = (event.clientX - curves.getBoundingClientRect().left - left) / (right - left);
  const steps = allSteps();
  const next = copy();
  next.step = nearestStep(steps, Math.max(0, Math.min(1, share)) * last);
  go(next);
}

async function start() {
  try {
    const catalogue = await readCatalogue();
    runs = catalogue.runs;
    first = firstState(runs);
    page.replaceChildren(
      ...frame(
        catalogue,
        STORIES.filter((one) => readAddress(one.address, first).state.panes.every((pane) => runs.some((r) => r.name === pane.run))),
      ),
    );
    ({ state, problems } = readAddress(location.hash, first));
    problems.push(...catalogue.left_out.map((text) => `Left out: ${text}`));
    listen();
    startTips();
    await show();
  } catch (error) {
    page.replaceChildren(h("p", { class: "message", role: "alert" }, /** @type {Error} */ (error).message));
  }
}

start();
