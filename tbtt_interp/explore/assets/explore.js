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
  if (focused && document.activeElement === document.body) {
    document.querySelector(focused)?.focus({ preventScroll: true });
  }
  for (const graph of document.querySelectorAll("figure .js-plotly-plot:not([data-heard])")) {
    if (!graph.on) continue; // not drawn yet
    graph.dataset.heard = "";
    graph.on("plotly_click", ({ points: [{ customdata }] }) => {
      const { pane } = graph.closest("figure").dataset;
      if (customdata?.[0]) send({ pane, act: customdata[0] });
    });
  }
}).observe(document, { childList: true, characterData: true, subtree: true });

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
    const scale = image === "png" ? 2 : 1;
    window.Plotly.downloadImage(graph, { format: image, filename: name, width, height, scale });
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
