/** Figures as files: SVG, PNG and CSV, each with what it is of. */

import { button, h, make } from "./dom.js";
import { TIPPED, tipOf } from "./tips.js";

const HEAD = 36; // pixels above a saved drawing, for what it is of
const KEPT = [
  "fill",
  "fill-opacity",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "opacity",
];

/** How what is drawn on a canvas is drawn as SVG, when it is saved. @type {WeakMap<Element, () => import("./dom.js").Drawn>} */
const drawings = new WeakMap();

/** Says how a canvas is saved. @param {Element} canvas @param {() => import("./dom.js").Drawn} draw */
export const savedAs = (canvas, draw) => drawings.set(canvas, draw);

/**
 * Saves a figure's drawing in a format.
 * @param {Element} figure @param {string} format svg, png or csv @param {{address: string, models: string[]}} about
 */
export function saveFigure(figure, format, about) {
  const canvas = figure.querySelector("canvas");
  const drawn = canvas ? drawings.get(canvas)?.() : null;
  const made = drawn ? /** @type {SVGElement} */ (make(drawn)) : null;
  if (made) figure.append(made); // where styles reach it
  const drawing = made ?? figure.querySelector("svg");
  try {
    return save(figure, drawing, format, about);
  } finally {
    made?.remove();
  }
}

/** @param {Element} figure @param {SVGElement | null} drawing @param {string} format @param {{address: string, models: string[]}} about */
function save(figure, drawing, format, about) {
  const title = figure.querySelector("h3")?.textContent ?? drawing?.getAttribute("aria-label") ?? "figure";
  const name = title.replace(/[^\w]+/g, "-").slice(0, 60);
  if (!drawing) return;
  if (format === "csv") {
    const rows = [...drawing.querySelectorAll(TIPPED)].map((e) => [e.getAttribute("data-value") ?? "", tipOf(e)]);
    const quoted = (/** @type {string} */ text) => `"${text.replaceAll('"', '""')}"`;
    const lines = [
      ["value", "what", "figure", "models", "address"],
      ...rows.map((row) => [...row, title, about.models.join(" and "), about.address]),
    ];
    return download(new Blob([lines.map((line) => line.map(quoted).join(",")).join("\n")], { type: "text/csv" }), `${name}.csv`);
  }
  const { text, width, height } = standalone(drawing, `${title}. ${about.models.join(" and ")}. ${about.address}`, [
    title,
    about.models.join(" and "),
  ]);
  if (format === "svg") return download(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width * 2, height * 2];
    canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => {
      if (blob) download(blob, `${name}.png`);
    });
  };
  image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
}

const savers = h(
  "span",
  { class: "save" },
  ["svg", "png", "csv"].map((format) =>
    button(`save ${format}`, format.toUpperCase(), { "aria-label": `save this figure as ${format.toUpperCase()}`, "data-key": null }),
  ),
);

/** A figure with buttons that save it. @param {import("./dom.js").Attributes} attributes @param {...import("./dom.js").Child} content */
export const figure = (attributes, ...content) => h("figure", attributes, ...content, savers);

/** A drawing with its styles in it, on its ground, with a title. @param {SVGElement} drawing @param {string} words @param {string[]} head */
function standalone(drawing, words, head) {
  const copy = /** @type {SVGElement} */ (drawing.cloneNode(true));
  const pairs = [drawing, ...drawing.querySelectorAll("*")].map((e, k) => [e, [copy, ...copy.querySelectorAll("*")][k]]);
  for (const [from, to] of pairs) {
    const style = getComputedStyle(from);
    for (const name of KEPT) to.setAttribute(name, style.getPropertyValue(name));
    for (const { name } of [...to.attributes]) if (/^(data-|aria-|tabindex|class|role)/.test(name)) to.removeAttribute(name);
  }
  const [width, height] = [Number(drawing.getAttribute("width")), Number(drawing.getAttribute("height")) + HEAD];
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("height", String(height));
  copy.setAttribute("viewBox", `0 -${HEAD} ${width} ${height}`);
  const ink = getComputedStyle(document.body);
  const make = (/** @type {string} */ tag, /** @type {Record<string, string>} */ attributes, text = "") => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const key in attributes) e.setAttribute(key, attributes[key]);
    e.textContent = text;
    return e;
  };
  copy.prepend(
    make("desc", {}, words),
    make("rect", { x: "0", y: `-${HEAD}`, width: String(width), height: String(height), fill: ink.backgroundColor }),
    ...head.map((line, k) =>
      make(
        "text",
        { x: "4", y: String(14 * (k + 1) - HEAD), fill: ink.color, "font-size": k ? "9px" : "12px", "font-family": "sans-serif" },
        line,
      ),
    ),
  );
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

/** @param {Blob} blob @param {string} name */
function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
