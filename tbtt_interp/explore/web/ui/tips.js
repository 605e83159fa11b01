/** One tip for whatever is hovered or focused, and the row and column of a token that is. */

/** @typedef {{left: number, right: number, top: number, bottom: number}} Box */

const tipElement = () => /** @type {HTMLElement} */ (document.getElementById("tip"));

/** Shows a text above a place on screen, or below where there is no room. @param {Box} box @param {string} text */
export function showTip(box, text) {
  const tip = tipElement();
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.max(6, Math.min((box.left + box.right - tip.offsetWidth) / 2, innerWidth - tip.offsetWidth - 6));
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 4 ? above : box.bottom + 6) + scrollY}px`;
}

/** Hides the tip. */
export function hideTip() {
  tipElement().hidden = true;
}

/** What has a tip: its `data-tip` or, for a cell of a map, its name. */
export const TIPPED = "[data-tip], .cell[aria-label]";

/** @param {Element} element */
export const tipOf = (element) => element.getAttribute("data-tip") ?? element.getAttribute("aria-label") ?? "";

/** Shows an element's tip beside it. */
export function startTips() {
  const follow = (/** @type {Event} */ event) => {
    const target = /** @type {Element} */ (event.target);
    if (!(target instanceof Element)) return;
    const found = target.closest(TIPPED);
    if (found) showTip(found.getBoundingClientRect(), tipOf(found));
    else if (!target.closest("canvas.flow")) hideTip();
    light(target);
  };
  document.addEventListener("pointerover", follow);
  document.addEventListener("focusin", follow);
  document.addEventListener("pointerout", hideTip);
  document.addEventListener("focusout", hideTip);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
}

/** Lights the row and the column of a hovered token in its pane's map. @param {Element} target */
function light(target) {
  for (const old of document.querySelectorAll(".hover")) old.classList.remove("hover");
  const token = target.closest("[data-light]");
  const pane = token?.closest("section");
  if (!token || !pane) return;
  const k = token.getAttribute("data-light");
  for (const cell of pane.querySelectorAll("[data-lights] rect.cell")) {
    const [row, column] = (cell.getAttribute("data-key") ?? "").split("/").slice(-2);
    if (row === k || column === k) cell.classList.add("hover");
  }
}
