// What is clicked is sent to the server one thing after another, each when the one before is done:
// so none is lost, however fast one clicks.
const waiting = [];
let sent = 0;
let isBusy = false;

function next() {
  if (isBusy || !waiting.length) return;
  isBusy = true;
  sent += 1;
  const number = sent;
  window.dash_clientside.set_props("event", { data: { ...waiting.shift(), number } });
  setTimeout(() => number === sent && isBusy && done(), 5000); // the server may be gone
}

function done() {
  isBusy = false;
  next();
}

function send(event) {
  waiting.push(event);
  next();
}

// What is clicked is drawn anew with the pane around it: who came by keyboard stays there.
let focused = "";
document.addEventListener("focusin", ({ target }) => {
  const { pane, act } = target.dataset;
  focused = act ? `[data-pane="${pane}"][data-act="${CSS.escape(act)}"]` : "";
});
document.addEventListener("pointerdown", () => (focused = ""));

new MutationObserver((changes) => {
  if (changes.some(({ target }) => (target.id ?? target.parentNode?.id) === "done")) done();
  for (const graph of document.querySelectorAll("figure .js-plotly-plot:not([data-heard])")) {
    if (!graph.on) continue; // not drawn yet
    graph.dataset.heard = "";
    graph.on("plotly_click", ({ points: [{ customdata }] }) => {
      const { pane } = graph.closest("figure").dataset;
      if (customdata?.[0]) send({ pane, act: customdata[0] });
    });
    if (graph._fullData[0].type === "heatmap") byKeyboard(graph);
    fit(graph);
  }
  if (focused && document.activeElement === document.body) {
    document.querySelector(focused)?.focus({ preventScroll: true });
  }
}).observe(document, { childList: true, characterData: true, subtree: true });

function fit(graph) {
  fitNumbers(graph);
  fitPanels(graph);
}

// A map's numbers are small, and its scale goes, where they would run into each other.
function fitNumbers(graph) {
  const [map] = graph._fullData;
  if (map.type !== "heatmap" || !map.texttemplate) return;
  const isNarrow = graph.clientWidth < 400;
  if (isNarrow === (graph.isNarrow ?? false)) return;
  graph.isNarrow = isNarrow;
  graph.size ??= map.textfont.size;
  const size = isNarrow ? 9 : graph.size;
  window.Plotly.restyle(graph, { showscale: !isNarrow, "textfont.size": size }, [0]);
}

// Panels that stand side by side go one below the other where there is no room.
function fitPanels(graph) {
  const panels = Object.keys(graph._fullLayout).filter((key) => /^xaxis\d*$/.test(key));
  if (panels.length < 2) return;
  const isNarrow = graph.clientWidth < 200 * panels.length;
  graph.wide ??= { height: graph._fullLayout.height, domains: panels.map((x) => graph._fullLayout[x].domain) };
  if (isNarrow === (graph.isStacked ?? false)) return;
  graph.isStacked = isNarrow;
  const { height, domains } = graph.wide;
  const change = { height: isNarrow ? 0.8 * height * panels.length : height };
  panels.forEach((x, at) => {
    const top = 1 - at / panels.length;
    change[`${x}.domain`] = isNarrow ? [0, 1] : domains[at];
    change[`${x.replace("x", "y")}.domain`] = isNarrow ? [top - 0.68 / panels.length, top] : [0, 1];
  });
  graph.closest(".graph").style.height = `${change.height}px`;
  window.Plotly.relayout(graph, change);
}
window.addEventListener("resize", () => document.querySelectorAll("figure [data-heard]").forEach(fit));

// A map's cells by keyboard: arrows go from cell to cell, Enter does what a click does.
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const places = {}; // where one is in each map, also when it is drawn anew

function byKeyboard(graph) {
  const { id } = graph.closest(".graph");
  const { dataset, firstChild } = graph.closest("figure");
  graph.tabIndex = 0;
  graph.setAttribute("role", "application");
  const how = "arrows go from cell to cell, Enter does what a click does";
  graph.setAttribute("aria-label", `${firstChild.firstChild.textContent}: ${how}`);
  graph.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
    const { x, y, customdata } = graph._fullData[0];
    const inside = (at, of) => Math.min(Math.max(at, 0), of.length - 1);
    const place = places[id] ?? { row: 0, column: -1 };
    const step = ARROWS[event.key];
    if (event.key === "Enter" && id in places) {
      const act = customdata[inside(place.row, y)][inside(place.column, x)]?.[0];
      if (act) send({ pane: dataset.pane, act });
      focused = `[id='${id}'] .js-plotly-plot`;
    } else if (step) {
      const [row, column] = [inside(place.row + step[0], y), inside(place.column + step[1], x)];
      places[id] = { row, column };
      window.Plotly.Fx.hover(graph, [{ xval: x[column], yval: y[row] }]);
      const where = customdata[row][column]?.[1]?.replace(/<\/?b>/g, "");
      const value = graph._fullData[0].z[row][column];
      document.getElementById("heard").textContent =
        Number.isFinite(value) ? `${where}: ${value.toFixed(3)}` : "no cell";
    } else return;
    event.preventDefault();
  });
}

// What is typed or dragged is one page to come back to, not one for each key or place passed.
const push = window.history.pushState.bind(window.history);
let typing = null;
window.history.pushState = (...given) => {
  const { activeElement } = document;
  const goesOn = activeElement?.matches("input:not([type=radio]), [role=slider]");
  if (goesOn && activeElement === typing) window.history.replaceState(...given);
  else push(...given);
  typing = goesOn ? activeElement : null;
};
for (const ends of ["focusout", "pointerdown"]) {
  document.addEventListener(ends, ({ target }) => target.closest?.("[role=slider]") || (typing = null), true);
}
window.addEventListener("popstate", () => (typing = null));

document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  const { act, pane, copy, image, name } = pressed.dataset;
  if (act) send({ pane, act });
  if (copy) copyAddress(pressed);
  if (image) {
    const graph = pressed.closest("figure").querySelector(".js-plotly-plot");
    if (!graph) return; // not drawn yet
    const { clientWidth: width, clientHeight: height } = graph;
    const { title, of } = pressed.dataset;
    const text = `${title}<br><sup>${of}</sup>`;
    const { margin } = graph.layout;
    const layout = {
      ...graph.layout, title: { text, font: { size: 15 }, x: 0.02, y: 1, yanchor: "top", pad: { t: 24 } },
      margin: { ...margin, t: (margin?.t ?? 40) + 50 },
    };
    const scale = image === "png" ? 2 : 1;
    const options = { format: image, filename: name, width, height: height + 50, scale };
    window.Plotly.downloadImage({ data: graph.data, layout }, options);
  }
});

function copyAddress(button) {
  const { origin, pathname } = window.location;
  const href = origin + pathname + document.getElementById("link").textContent;
  const said = () => {
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy link"), 1500);
  };
  const shown = () => window.prompt("Copy this address", href);
  if (navigator.clipboard) navigator.clipboard.writeText(href).then(said, shown);
  else shown(); // not on this machine and not encrypted
}
