/** Measures of a page that is open: sizes of targets, contrast of words, names of controls. */

const CONTROLS = "button, select, input, textarea, summary, a[href], [role=button], [role=slider]";
const isSeen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getBoundingClientRect().width > 0;
const named = (e) => `${e.tagName} ${e.getAttribute("data-act") ?? e.id}`;
const controls = () => [...document.querySelectorAll(CONTROLS)].filter(isSeen);

/** Controls with a side below so many pixels. */
function smallTargets(least) {
  const sides = controls().map((e) => [e, e.getBoundingClientRect()]);
  return sides.filter(([, b]) => Math.min(b.width, b.height) < least - 0.01).map(([e, b]) => `${named(e)} ${b.width} x ${b.height}`);
}

/** Pairs of controls of which one covers part of the other; rows that a scroller hides cover nothing. */
function overlapping() {
  const all = controls().filter((e) => !e.closest(".tall")).map((e) => [e, e.getBoundingClientRect()]);
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.5 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.5;
  return all.flatMap(([e, a], k) => all.slice(k + 1).flatMap(([o, b]) => (meet(a, b) && !e.contains(o) ? [`${named(e)} and ${named(o)}`] : [])));
}

/** Controls without a name for screen readers. */
function nameless() {
  const name = (e) => e.getAttribute("aria-label") || [...(e.labels ?? [])].map((l) => l.textContent).join("") || e.textContent;
  return controls().filter((e) => !(e.tagName === "INPUT" && !e.labels?.length ? "" : name(e))?.trim()).map(named);
}

/** Where the first picture or table begins. */
function firstPicture() {
  const found = [...document.querySelectorAll("#shared figure, main figure, main table, main canvas, main svg")].find(isSeen);
  return found ? found.getBoundingClientRect().top + scrollY : Infinity;
}

/** Marks one control of each kind, and gives the marks. */
function kinds() {
  for (const e of document.querySelectorAll("[data-measured]")) e.removeAttribute("data-measured");
  const known = new Map();
  for (const e of controls().filter((e) => !e.disabled)) {
    const kind = [e.tagName, e.getAttribute("class"), e.getAttribute("aria-pressed"), e.tagName === "rect" ? e.classList : ""].join(" ");
    if (!known.has(kind)) known.set(kind, e);
  }
  [...known.values()].forEach((e, k) => e.setAttribute("data-measured", k));
  return [...known.keys()].map((_, k) => String(k));
}

function colour(text) {
  if (text === "none") return [0, 0, 0, 0];
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  canvas.fillStyle = text;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return a ? [r, g, b, a / 255] : [0, 0, 0, 0];
}

const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3]));

/** What stands behind an element, as one colour. */
function ground(e) {
  const layers = [];
  for (let at = e; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found[3]) layers.unshift(found);
  }
  let below = layers.reduce((b, top) => over(top, b), [255, 255, 255]);
  if (e instanceof SVGElement) {
    const box = e.getBoundingClientRect();
    const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2];
    for (const rect of e.closest("svg").querySelectorAll("rect, circle.dot")) {
      const b = rect.getBoundingClientRect();
      if (x < b.left || x > b.right || y < b.top || y > b.bottom) continue;
      const style = getComputedStyle(rect);
      const fill = colour(style.fill);
      below = over([...fill.slice(0, 3), fill[3] * Number(style.fillOpacity)], below);
    }
  }
  return below;
}

const luminance = (rgb) =>
  [0.2126, 0.7152, 0.0722].reduce((sum, weight, k) => {
    const c = rgb[k] / 255;
    return sum + weight * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  }, 0);

/** Words below some contrast in a part of the page, each with its own. */
function faint(least, part) {
  const found = new Map();
  for (const place of document.querySelectorAll(part)) {
    for (const e of [place, ...place.querySelectorAll("*")]) {
      const words = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
      if (!words || !isSeen(e) || e.closest(":disabled, .unseen, script, option") || e.closest("noscript")) continue;
      const style = getComputedStyle(e);
      const below = ground(e);
      const ink = over(colour(e instanceof SVGElement ? style.fill : style.color), below);
      const [a, b] = [luminance(ink), luminance(below)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < least) found.set(words.slice(0, 40), ratio.toFixed(2));
    }
  }
  return [...found];
}
