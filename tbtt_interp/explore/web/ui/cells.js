/** A map of cells: operand grids, attention, patching, neurons. One drawing, one keyboard. */

import { s, signed } from "./dom.js";

/**
 * @typedef {object} Cell
 * @property {number} value positive is blue, negative orange
 * @property {string} [text] in the cell
 * @property {string} [tip] shown while the cell is hovered or focused; a cell without one is no place to go to
 * @property {string} [act] what a click does
 * @property {boolean} [ring] whether the cell is ringed
 * @property {boolean} [pressed] whether what a click did is in effect
 * @property {boolean} [lit] whether the cell is in a row or column that is lit
 */

/**
 * @typedef {object} CellMap
 * @property {string} key of the map, unique on the page
 * @property {string} label for screen readers
 * @property {string[]} rows
 * @property {string[]} columns
 * @property {(row: number, column: number) => Cell | null} at
 * @property {number} size of a cell, in pixels
 * @property {number} [height] of a cell, where it differs
 * @property {(value: number) => number} shade from a value to 0 to 1
 * @property {string} [rowTitle]
 * @property {string} [columnTitle]
 */

const TARGET = 25; // pixels of a cell that can be clicked, of which one is the gap
const MOST = 0.7; // opacity at which text on the cell keeps a contrast of 4.5 to 1

/** The cells as SVG, with the names of rows at the left and of columns on top. @param {CellMap} map */
export function cellMap(map) {
  const { rows, columns, key } = map;
  const cells = rows.map((_, r) => columns.map((_, c) => map.at(r, c)));
  const least = cells.flat().some((cell) => cell?.act) ? TARGET : 0;
  const size = Math.max(least, map.size);
  const tall = Math.max(least, map.height ?? size);
  const longest = Math.max(0, ...rows.map((name) => name.length));
  const left = 6 + Math.ceil(longest * 7.3) + (map.rowTitle ? 14 : 0);
  const top = 16 + (map.columnTitle ? 14 : 0);
  const width = left + columns.length * size + 1;
  const height = top + rows.length * tall + 1;
  const parts = [];
  if (map.columnTitle) {
    parts.push(s("text", { x: left + (columns.length * size) / 2, y: 11, class: "axis middle" }, map.columnTitle));
  }
  if (map.rowTitle) {
    const y = top + (rows.length * tall) / 2;
    parts.push(s("text", { x: 10, y, class: "axis middle", transform: `rotate(-90 10 ${y})` }, map.rowTitle));
  }
  columns.forEach((name, k) => parts.push(s("text", { x: left + (k + 0.5) * size, y: top - 4, class: "name middle" }, name)));
  rows.forEach((name, k) => parts.push(s("text", { x: left - 4, y: top + (k + 0.5) * tall + 4, class: "name end" }, name)));
  /** @type {import("./dom.js").Drawn[][]} */
  const [boxes, rings, texts] = [[], [], []]; // apart, so that a text that comes or goes moves no box
  for (let r = 0; r < rows.length; r++) {
    for (let c = 0; c < columns.length; c++) {
      const cell = cells[r][c];
      if (!cell) continue;
      const shade = Number.isFinite(cell.value) ? map.shade(Math.abs(cell.value)) : 0;
      const x = left + c * size;
      const y = top + r * tall;
      const own = {
        x: x + 0.5,
        y: y + 0.5,
        width: size - 1,
        height: tall - 1,
        rx: 2,
        class: `cell ${cell.value < 0 ? "neg" : "pos"}${cell.lit ? " lit" : ""}`,
        "fill-opacity": (0.05 + shade * (MOST - 0.05)).toFixed(3),
      };
      const known = cell.tip && {
        role: cell.act ? "button" : "img",
        "aria-label": cell.tip,
        "aria-pressed": cell.act && cell.pressed !== undefined ? String(cell.pressed) : null,
        "data-act": cell.act,
        "data-value": cell.value,
        "data-key": `${key}/${r}/${c}`,
        tabindex: boxes.length ? -1 : 0,
      };
      boxes.push(s("rect", { ...own, ...known }));
      if (cell.ring) rings.push(s("rect", { x: x + 2, y: y + 2, width: size - 4, height: tall - 4, rx: 2, class: "ring" }));
      const text = cell.pressed && !cell.text ? "✕" : cell.text;
      if (text) {
        const small = text.length * 7 > size - 2 ? " small" : "";
        texts.push(s("text", { x: x + size / 2, y: y + tall / 2 + 4, class: `on middle${small}` }, text));
      }
    }
  }
  return s(
    "svg",
    {
      class: "cells",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `${map.label}. Arrow keys move from cell to cell.`,
      "data-map": key,
    },
    ...parts,
    ...boxes,
    ...rings,
    ...texts,
  );
}

/** Moves the focus by an arrow key from one cell to the next. @param {KeyboardEvent} event */
export function moveAmongCells(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = /** @type {Record<string, number[]>} */ (steps)[event.key];
  const target = /** @type {Element} */ (event.target);
  const map = target.closest?.("svg.cells");
  const key = target.getAttribute?.("data-key");
  if (!step || !map || !key) return;
  event.preventDefault();
  const [name, row, column] = key.split(/\/(?=\d+\/\d+$)|\/(?=\d+$)/);
  for (let k = 1; k < 60; k++) {
    const [r, c] = [Number(row) + k * step[0], Number(column) + k * step[1]];
    if (r < 0 || c < 0) return;
    const next = map.querySelector(`[data-key="${CSS.escape(`${name}/${r}/${c}`)}"]`);
    if (next instanceof SVGElement) {
      target.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
      return;
    }
  }
}

/** A shade that grows fast at first and never ends: 0.5 at `half`. @param {number} half */
export function slow(half) {
  return (/** @type {number} */ value) => value / (value + half);
}

/** A value with its unit, as a tip. @param {number} value @param {string} unit */
export function withUnit(value, unit) {
  return `${signed(value)} ${unit}`;
}
