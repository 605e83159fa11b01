/** The page: an address in, two models on screen, a click to the next address. */

import { ACTIONS } from "./actions.js";
import { address, newPane, newState, readAddress } from "./state.js";
import { nearestStep, openModel } from "./models.js";
import { readCatalogue } from "./source.js";
import { sceneOf } from "./scene.js";
import { STORIES } from "./stories.js";
import { moveAmongCells } from "./ui/cells.js";
import { count, h, make, put } from "./ui/dom.js";
import { saveFigure } from "./ui/saving.js";
import { startTips } from "./ui/tips.js";
import { frame } from "./frame.js";
import { askForProbes } from "./views/probes.js";
import { train, trainedModel } from "./views/train.js";
import { measurePage, paneContent, sharedContent } from "./views/views.js";

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./source.js").Listed} Listed */
/** @typedef {import("./models.js").Opened} Opened */
/** @typedef {import("./scene.js").Scene} Scene */

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

/** Says something in its place, which is laid out only if it is new. @param {string} id @param {string} words */
function tell(id, words) {
  if (at(id).textContent !== words) at(id).textContent = words;
}

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
  show();
  writeAddress();
}

/** Where the page is now. */
const here = () => location.href.split("#")[0] + address(state);

let writing = 0; // browsers allow some hundred new addresses a minute

/** Writes the address when nothing was done for a moment. */
function writeAddress() {
  clearTimeout(writing);
  writing = setTimeout(() => {
    try {
      history.replaceState(null, "", address(state));
    } catch {
      /* in a notebook's frame there is no address to write */
    }
  }, 100);
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
  const words = `${n} ${n > 1 ? many : dropped[0]} made for ${isOther ? before.prompt : before.corrupt} ${n > 1 ? "were" : "was"} dropped with that prompt.`;
  tell("dropped", n ? words : "");
}

/** Opens the models of this state and draws them; what is on screen is never an older request's. */
/** @param {boolean} [anew] whether more has changed than the state: what was computed meanwhile, or colours */
async function show(anew = false) {
  const mine = ++asked;
  measurePage(); // before anything is changed that would have to be laid out for that
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
  draw(found, anew);
}

/** What each pane shows, and what of. @type {{key: string, scene: Scene | Error}[]} */
const drawn = [];

/** @param {(Opened | Error)[]} found @param {boolean} anew */
function draw(found, anew) {
  const trained = state.view === "train" ? trainedModel() : null;
  if (trained) found = [trained, found[1]];
  shownModels = found.map((one) => (one instanceof Error ? null : one));
  if (page.className !== `view-${state.view}`) page.className = `view-${state.view}`;
  const isNew = found.map((one, k) => {
    const key = JSON.stringify([one instanceof Error ? one.message : one.key, state.panes[k], { ...state, step: 0, panes: 0 }, innerWidth]);
    if (!anew && drawn[k]?.key === key) return false;
    drawn[k] = { key, scene: one instanceof Error ? one : sceneOf(one, state, state.panes[k]) };
    return true;
  });
  const scenes = drawn.map(({ scene }) => scene);
  put(
    at("problems"),
    problems.map((text) => h("p", { class: "message" }, text)),
  );
  put(at("shared"), sharedContent(scenes, runs, state));
  scenes.forEach((scene, k) => isNew[k] && put(at(`pane-${k}`), paneContent(scene, runs, state, k)));
  sliderFollows();
  document.body.dataset.drawn = address(state);
}

/** All steps that either model is kept at. */
function allSteps() {
  const steps = new Set(shownModels.flatMap((one) => one?.steps ?? []));
  return [...steps].sort((a, b) => a - b);
}

let followed = ""; // what the slider shows: each change of it is laid out

function sliderFollows() {
  const slider = /** @type {HTMLInputElement} */ (at("step"));
  const steps = allSteps();
  const wanted = state.step < 0 ? steps[steps.length - 1] : state.step;
  const place = steps.indexOf(nearestStep(steps, wanted));
  const words = `step ${count(steps[place] ?? 0)}`;
  const now = [steps.length, place, words].join();
  if (now === followed) return;
  followed = now;
  slider.max = String(Math.max(steps.length - 1, 0));
  slider.value = String(place);
  slider.disabled = steps.length < 2;
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
    const pressed = String(tab.getAttribute("data-act") === `view ${state.view}`);
    if (tab.getAttribute("aria-pressed") !== pressed) tab.setAttribute("aria-pressed", pressed);
  }
}

/** @returns {State} */
const copy = () => structuredClone(state);

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
      address: here(),
      models: shownModels.map((m) => m?.key ?? ""),
    });
  if (verb === "compute") {
    askForProbes(shownModels[pane]);
    return show(true);
  }
  if (verb === "play") return play();
  if (verb === "copy")
    return navigator.clipboard?.writeText(here()).then(() => {
      target.textContent = "Copied";
    });
  if (verb.startsWith("train")) return train(verb, shownModels[1], state);
  if (!(verb in ACTIONS) && verb !== "story") return;
  if (verb !== "step") stop();
  tell("story", verb === "story" ? STORIES[Number(text)].text : "");
  if (verb === "story") return go(readAddress(STORIES[Number(text)].address, first).state);
  const next = copy();
  ACTIONS[verb](next, text, pane);
  go(next);
}

function stop() {
  if (playing === null) return;
  clearInterval(playing);
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
      tell("story", "");
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
  document.addEventListener("redraw", () => show(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(true));
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
    const isOpen = (/** @type {string} */ address) =>
      readAddress(address, first).state.panes.every((pane) => runs.some((row) => row.name === pane.run));
    page.replaceChildren();
    put(page, frame(STORIES.filter((one) => isOpen(one.address))));
    ({ state, problems } = readAddress(location.hash, first));
    problems.push(...catalogue.left_out.map((text) => `Left out: ${text}`));
    listen();
    startTips();
    await show();
  } catch (error) {
    page.replaceChildren(make(h("p", { class: "message", role: "alert" }, /** @type {Error} */ (error).message)));
  }
}

start();
