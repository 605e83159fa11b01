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
 * Puts new content into a place. What is there as before stays, so that the browser lays out and
 * paints the rest alone; what had the focus keeps it if it has the same `data-key` there.
 * @param {Element} place @param {Child[]} content
 */
export function put(place, content) {
  const focused = document.activeElement;
  const key = focused && place.contains(focused) ? focused.getAttribute("data-key") : null;
  const nodes = content.filter((c) => c || c === 0).map((c) => (c instanceof Node ? c : document.createTextNode(String(c))));
  becomeAll(place, nodes);
  if (key === null) return;
  const again = place.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (again instanceof HTMLElement || again instanceof SVGElement) {
    again.setAttribute("tabindex", "0");
    if (again !== document.activeElement) again.focus({ preventScroll: true });
  }
}

/** Changes an element's children into others. @param {Element} place @param {Node[]} fresh */
function becomeAll(place, fresh) {
  const old = [...place.childNodes];
  fresh.forEach((node, k) => (old[k] ? become(old[k], node) : place.append(node)));
  for (const left of old.slice(fresh.length)) left.remove();
}

/** Changes a node into another, or puts the other in its place. @param {ChildNode} old @param {Node} fresh */
function become(old, fresh) {
  if (old instanceof Text && fresh instanceof Text) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (!(old instanceof Element) || !(fresh instanceof Element) || old.tagName !== fresh.tagName || old.tagName === "CANVAS")
    old.replaceWith(fresh);
  else if (/^(SELECT|INPUT)$/.test(old.tagName)) {
    if (!old.isEqualNode(fresh)) old.replaceWith(fresh); // their values are not in attributes alone
  } else {
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (name === "open" || old.getAttribute(name) === value) continue;
      if (name === "style")
        /** @type {HTMLElement} */ (old).style.cssText = value; // as the policy allows
      else old.setAttribute(name, value);
    }
    becomeAll(old, [...fresh.childNodes]);
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
