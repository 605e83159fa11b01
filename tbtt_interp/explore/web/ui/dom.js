/** Elements as plain data, and what changes the page into them. */

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */
/** What stands on a canvas: drawn anew only where one of `of` is another. @typedef {{of: any[], draw: (canvas: HTMLCanvasElement) => void}} Paint */
/** An element that `put` makes, or changes one into. @typedef {{tag: string, space: string, attributes: Attributes, children: Part[], paint?: Paint}} Drawn */
/** @typedef {Drawn | string} Part */
/** @typedef {Drawn | string | number | null | undefined | false} Child */

const [HTML, SVG] = ["http://www.w3.org/1999/xhtml", "http://www.w3.org/2000/svg"];

/**
 * An HTML element. Attributes that are null, undefined or false are left out.
 * @param {string} tag @param {Attributes} [attributes] @param {...(Child | Child[])} children
 * @returns {Drawn}
 */
export const h = (tag, attributes = {}, ...children) => ({ tag, space: HTML, attributes, children: parts(children) });

/**
 * An SVG element.
 * @param {string} tag @param {Attributes} [attributes] @param {...(Child | Child[])} children
 * @returns {Drawn}
 */
export const s = (tag, attributes = {}, ...children) => ({ tag, space: SVG, attributes, children: parts(children) });

/** A canvas. @param {Attributes} attributes @param {Paint} paint @returns {Drawn} */
export const painted = (attributes, paint) => ({ tag: "canvas", space: HTML, attributes, children: [], paint });

/** @param {(Child | Child[])[]} children @returns {Part[]} */
function parts(children) {
  const found = [];
  for (const child of children.flat()) {
    if (child || child === 0 || child === "") found.push(typeof child === "object" ? child : String(child));
  }
  return found;
}

/** The element that some data is of. @param {Drawn} drawn @returns {Element} */
export function make({ tag, space, attributes, children, paint }) {
  const element = document.createElementNS(space, tag);
  for (const name in attributes) if (isThere(attributes[name])) set(element, name, attributes[name]);
  element.append(...children.map(nodeOf));
  if (paint) paint.draw(/** @type {HTMLCanvasElement} */ (element));
  return element;
}

/** @param {Part} part */
const nodeOf = (part) => (typeof part === "string" ? new Text(part) : make(part));

/** @param {Attributes[string]} value */
const isThere = (value) => value !== null && value !== undefined && value !== false;

/** @param {Element} element @param {string} name @param {Attributes[string]} value */
function set(element, name, value) {
  if (!isThere(value)) element.removeAttribute(name);
  else if (name === "style")
    /** @type {HTMLElement} */ (element).style.cssText = String(value); // as the policy allows
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** What each place holds. @type {WeakMap<Element, Part[]>} */
const held = new WeakMap();

/**
 * Puts content into a place. Only what differs from the content before is touched, so that the
 * browser lays out and paints the rest alone. What had the focus keeps it if it has the same
 * `data-key` there.
 * @param {Element} place @param {Child[]} content
 */
export function put(place, content) {
  const focused = document.activeElement;
  const key = focused && place.contains(focused) ? focused.getAttribute("data-key") : null;
  const fresh = parts(content);
  becomeAll(place, held.get(place) ?? [], fresh);
  held.set(place, fresh);
  if (key === null || (focused?.getAttribute("data-key") === key && focused === document.activeElement)) return;
  const again = place.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (again instanceof HTMLElement || again instanceof SVGElement) {
    again.setAttribute("tabindex", "0");
    again.focus({ preventScroll: true });
  }
}

/** Changes an element's children; what others put behind them stays. @param {Element} place @param {Part[]} old @param {Part[]} fresh */
function becomeAll(place, old, fresh) {
  let node = place.firstChild;
  for (let k = 0; k < Math.max(old.length, fresh.length); k++) {
    if (k >= old.length) {
      place.insertBefore(nodeOf(fresh[k]), node);
      continue;
    }
    const own = /** @type {ChildNode} */ (node);
    node = own.nextSibling;
    if (k < fresh.length) become(own, old[k], fresh[k]);
    else own.remove();
  }
}

/** Changes a node into other data, or puts another in its place. @param {ChildNode} node @param {Part} old @param {Part} fresh */
function become(node, old, fresh) {
  if (old === fresh) return;
  if (typeof fresh === "string") {
    if (node instanceof Text) node.data = fresh;
    else node.replaceWith(fresh);
  } else if (typeof old === "string" || old.tag !== fresh.tag || old.space !== fresh.space) node.replaceWith(make(fresh));
  else if (/^(select|input)$/.test(fresh.tag)) {
    // what a person chose there is not in attributes
    if (JSON.stringify(old) !== JSON.stringify(fresh)) node.replaceWith(make(fresh));
  } else {
    const element = /** @type {Element} */ (node);
    for (const name in old.attributes) if (!(name in fresh.attributes)) element.removeAttribute(name);
    for (const name in fresh.attributes) {
      const value = fresh.attributes[name];
      if (value !== old.attributes[name]) set(element, name, value);
    }
    becomeAll(element, old.children, fresh.children);
    const { paint } = fresh;
    if (paint?.of.some((one, k) => one !== old.paint?.of[k])) paint.draw(/** @type {HTMLCanvasElement} */ (element));
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

const separated = new Intl.NumberFormat("en"); // made once: making one takes longer than all its uses

/** A whole number with separators. @param {number} value */
export const count = (value) => separated.format(value);

/** The page's worker, from its file or, in a page that is one file, from its text. */
export function startWorker() {
  const inside = document.getElementById("page-worker");
  if (!inside) return new Worker("worker.js", { type: "module" });
  return new Worker(URL.createObjectURL(new Blob([inside.textContent ?? ""], { type: "text/javascript" })));
}
