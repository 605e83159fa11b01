/** Elements in one expression, and new content in a place without losing the keyboard's focus. */

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */
/** @typedef {Node | string | number | null | undefined | false} Child */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. Attributes that are null, undefined or false are left out.
 * @param {string} tag @param {Attributes} [attributes] @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (filled(document.createElement(tag), attributes, children));
}

/**
 * An SVG element.
 * @param {string} tag @param {Attributes} [attributes] @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function s(tag, attributes = {}, ...children) {
  return /** @type {SVGElement} */ (filled(document.createElementNS(SVG, tag), attributes, children));
}

/** @param {Element} element @param {Attributes} attributes @param {(Child | Child[])[]} children */
function filled(element, attributes, children) {
  for (const name in attributes) {
    const value = attributes[name];
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child || child === 0 || child === "") {
      element.append(child instanceof Node ? child : String(child));
    }
  }
  return element;
}

/**
 * Puts new content into a place; what had the focus keeps it if it has the same `data-key` there.
 * @param {Element} place @param {Child[]} content
 */
export function put(place, content) {
  const focused = document.activeElement;
  const key = focused && place.contains(focused) ? focused.getAttribute("data-key") : null;
  const scrolled = [...place.querySelectorAll("[data-scroll]")].map((e) => e.scrollTop);
  place.replaceChildren(
    .../** @type {Node[]} */ (content.filter((c) => c || c === 0).map((c) => (c instanceof Node ? c : document.createTextNode(String(c))))),
  );
  place.querySelectorAll("[data-scroll]").forEach((e, k) => {
    if (scrolled[k]) e.scrollTop = scrolled[k];
  });
  if (key === null) return;
  const again = place.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (again instanceof HTMLElement || again instanceof SVGElement) {
    again.setAttribute("tabindex", "0");
    again.focus({ preventScroll: true });
  }
}

/**
 * A button that does something when pressed; `act` is a verb and its argument.
 * @param {string} act @param {Child | Child[]} content @param {Attributes} [attributes]
 */
export function button(act, content, attributes = {}) {
  return h("button", { type: "button", "data-act": act, "data-key": act, ...attributes }, ...[content].flat());
}

/** A number with its sign and a true minus. @param {number} value @param {number} [digits] */
export function signed(value, digits = 2) {
  if (!Number.isFinite(value)) return "no number";
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
}

/** A character as it is shown: blank and newline by signs. @param {string} character */
export function visible(character) {
  return character === " " ? "␣" : character === "\n" ? "⏎" : character;
}

/** A whole number with separators. @param {number} value */
export function count(value) {
  return value.toLocaleString("en");
}

/** The page's worker, from its file or, in a page that is one file, from its text. */
export function startWorker() {
  const inside = document.getElementById("page-worker");
  if (!inside) return new Worker("worker.js", { type: "module" });
  return new Worker(URL.createObjectURL(new Blob([inside.textContent ?? ""], { type: "text/javascript" })));
}
