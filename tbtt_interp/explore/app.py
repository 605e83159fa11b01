"""The explorer as a Dash application: an address in, a page out, a click to the next address."""

import dataclasses
import logging
from typing import Any

import flask
from dash import Dash, Input, Output, ctx, no_update, set_props
from dash import State as Given

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.catalogue import Catalogue, Which
from tbtt_interp.explore.elements import in_words, message
from tbtt_interp.explore.frame import examples, frame
from tbtt_interp.explore.state import PANES, Pane, State, read_address
from tbtt_interp.explore.views import Views
from tbtt_interp.model import count_parameters

CHOICES = ("prompt", "corrupt", "view", "shown", "into")
TITLED = 70  # pixels that a title takes where a figure stands by itself
LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")


def first_state(catalogue: Catalogue) -> State:
    """The opening view: the smallest beside the largest on what was held out, if that is there."""
    runs = {name: catalogue.run(name) for name in catalogue.names}
    files = {n: r for n, r in runs.items() if r.config.framing == "file"} or runs
    sums = {n: r for n, r in files.items() if "operator" in r.tasks[0].prompts()} or files
    order = sorted(sums, key=lambda name: count_parameters(runs[name].shape))
    order = [name for name in order if runs[name].config.task == runs[order[0]].config.task]
    task = runs[order[0]].tasks[0]
    prompts = [e.prompt for e in task.examples if e.held_out] or [task.examples[0].prompt]
    prompt = prompts[0]
    alike = [e for e in task.examples if len(e.prompt) == len(prompt) and e.prompt != prompt]
    answer = next(e.answer for e in task.examples if e.prompt == prompt)
    others = [e.prompt for e in alike if e.answer != answer and not e.held_out]
    near = [p for p in others if sum(a != b for a, b in zip(p, prompt, strict=True)) == 1]
    return State(
        prompt=prompt, corrupt=(near or others or [prompt])[0],
        panes=(Pane(run=order[0]), Pane(run=order[-1])),
    )  # fmt: skip


class Explorer:
    """Views behind a server."""

    def __init__(self, catalogue: Catalogue, hosts: tuple[str, ...] = LOCAL) -> None:
        self.catalogue = catalogue
        self.views = Views(catalogue)
        self.first = first_state(catalogue)
        self.hosts = hosts
        self.app = Dash(
            __name__, title="tbtt explorer", update_title="", serve_locally=True,
            suppress_callback_exceptions=True, add_log_handler=False, on_error=self.broke,
            meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
        )  # fmt: skip
        self.app.layout = frame(catalogue)
        self._callbacks()
        self._routes()

    def read(self, address: str | None) -> State:
        """The state that an address shows."""
        return read_address(address or "", self.first)

    def _callbacks(self) -> None:
        app = self.app
        there = (
            Output("address", "search"), Output("written", "data"), Output("broken", "children"),
        )  # fmt: skip
        app.callback(
            *there, Output("done", "children"),
            Input("event", "data"), Given("address", "search"),
            prevent_initial_call=True,
        )(self.steer)  # fmt: skip
        app.callback(
            output=[Output(o.component_id, o.component_property, allow_duplicate=True)
                    for o in there],
            inputs={
                "choices": {name: Input(name, "value") for name in CHOICES},
                "models": {
                    kind: [Input({"type": kind, "pane": pane}, "value") for pane in PANES]
                    for kind in ("run", "seed", "step")
                },
            },
            state={"address": Given("address", "search")},
            prevent_initial_call=True,
        )(self.choose)  # fmt: skip
        app.callback(
            output={
                "choices": {name: Output(name, "value") for name in CHOICES},
                "style": Output("page", "className"),
                "problems": Output("problems", "children"),
                "shared": Output("shared", "children"),
                "examples": Output("examples", "children"),
                "link": Output("link", "children"),
            },
            inputs={"address": Input("address", "search")},
            state={
                "written": Given("written", "data"),
                "shown": {name: Given(name, "value") for name in CHOICES},
            },
        )(self.settle)
        for pane in PANES:
            self._pane_callbacks(pane)

    def _pane_callbacks(self, pane: str) -> None:
        number = PANES.index(pane)

        def body(address: str | None, tick: object, shown: str | None) -> tuple[Any, Any]:
            state = self.read(address)
            now = repr((state.view, state.prompt, state.corrupt, state.shown, state.panes[number]))
            if now == shown and ctx.triggered_id == "address":  # the other pane's affair
                return no_update, no_update
            return self.views.body(state, pane, address or ""), now

        self.app.callback(
            Output({"type": "body", "pane": pane}, "children"),
            Output({"type": "shown", "pane": pane}, "data"),
            Input("address", "search"),
            Input({"type": "tick", "pane": pane}, "n_intervals", allow_optional=True),
            Given({"type": "shown", "pane": pane}, "data"),
            on_error=lambda error: ([message(self.logged(error))], None),
        )(body)

        def model(address: str | None, *shown: Any) -> list[Any]:
            return self.model(self.read(address), pane, list(shown))

        of = {"type": "run", "pane": pane}, {"type": "seed", "pane": pane}
        step = {"type": "step", "pane": pane}
        self.app.callback(
            Output(of[0], "value"), Output(of[1], "options"), Output(of[1], "value"),
            Output(step, "max"), Output(step, "value"), Output(step, "disabled"),
            Output({"type": "step-words", "pane": pane}, "children"),
            Input("address", "search"),
            Given(of[0], "value"), Given(of[1], "value"), Given(step, "value"),
        )(model)  # fmt: skip

    def logged(self, error: Exception) -> str:
        """What nobody foresaw, in a sentence; all of it is in the log."""
        logging.getLogger(__name__).error("The explorer broke.", exc_info=error)
        return (
            f"Something broke in the explorer ({type(error).__name__}: {error}). What was asked is "
            "in the address, and what happened in the terminal that it was started from."
        )

    def broke(self, error: Exception) -> None:
        """Says in the page that something broke; a pane says it in its own place."""
        set_props("broken", {"children": message(self.logged(error))})
        if ctx.triggered_id == "event":
            set_props(
                "done", {"children": f"{ctx.inputs['event.data']['number']}"}
            )  # hear the next

    def model(self, state: State, pane: str, shown: list[Any]) -> list[Any]:
        """What a pane's own controls show: its run, seeds and steps."""
        settings = state.panes[PANES.index(pane)]
        try:
            run = self.catalogue.run(settings.run)
            seed = settings.seed if settings.seed in run.seeds else run.seeds[0]
            steps = list(self.catalogue.steps(settings.run, seed))
        except TbttError:
            return [settings.run, *[no_update] * 5, "Training step"]
        which = self._which(settings)  # None where the address has a seed or step that is not there
        now = [settings.run, *([seed, steps.index(which.step)] if which else shown[1:])]
        name, chosen, place = (
            no_update if str(a) == str(b) else a for a, b in zip(now, shown, strict=True)
        )
        words = "Training step"
        if which:
            words += f" {which.step:,}, {steps.index(which.step) + 1} of {len(steps)}"
        seeds = [{"value": s, "label": str(s)} for s in run.seeds]
        return [name, seeds, chosen, max(len(steps) - 1, 0), place, len(steps) < 2, words]

    def settle(
        self, address: str | None, written: str | None, shown: dict[str, Any]
    ) -> dict[str, Any]:
        """What is of the whole page; its controls only if an address was opened, not clicked for.

        What a person has typed since is newer than what would come back of it.
        """
        state = self.read(address)
        by_hand = written is not None and written == (address or "")
        if not by_hand:  # and it is not when one comes back to it
            set_props("written", {"data": None})
        choices = {
            name: no_update if by_hand or getattr(state, name) == now else getattr(state, name)
            for name, now in shown.items()
        }
        which, chips = self._which(state.panes[0]), []
        if which is not None:
            run = self.catalogue.run(which.run)
            chips = examples(run.tasks[run.seed_index(which.seed)])
        return {
            "choices": choices, "style": f"view-{state.view}", "examples": chips,
            "problems": [message(problem) for problem in state.problems],
            "shared": self.views.shared(state, address or ""), "link": self.full(state),
        }  # fmt: skip

    def steer(self, event: dict[str, Any], address: str | None) -> tuple[Any, ...]:
        """The address after a click, what broke before taken away, and the click's number."""
        state = before = self.read(address)
        try:
            pane = state.into if event["act"].startswith("open ") else event["pane"]
            state = self.after(state, pane, event["act"])
        except TbttError:
            pass  # of a moment ago: what is there now stays
        found, _, broken = self._written(before, state)
        return found, None, broken, event["number"]  # the controls are to follow

    def choose(
        self, choices: dict[str, Any], models: dict[str, list[Any]], address: str | None
    ) -> tuple[Any, ...]:
        """The address after a control was set, and what broke before taken away."""
        state = before = self.read(address)
        for name, value in choices.items():  # all: of two at once the page keeps one answer
            if value is not None:
                state = state.choose(name, value)
        for event in ctx.triggered:
            identity, value = ctx.triggered_prop_ids[event["prop_id"]], event["value"]
            if value is None or isinstance(identity, str):
                continue
            try:
                verb, pane = identity["type"], identity["pane"]
                argument = self._step(state, pane, int(value)) if verb == "step" else value
                state = self.after(state, pane, f"{verb} {argument}")
            except TbttError:
                continue  # the pane says what is wrong
        return self._written(before, state)

    def _written(self, before: State, after: State) -> tuple[Any, Any, Any]:
        """The address, where it is another, twice; and nothing that is broken."""
        if after == before:
            return no_update, no_update, no_update
        address = self.full(after)
        return address, address, []

    def full(self, state: State) -> str:
        """The address that shows this wherever these runs are open, and when they have gone on."""
        panes = [
            dataclasses.replace(pane, seed=which.seed, step=which.step) if which else pane
            for pane in state.panes
            for which in [self._which(pane)]
        ]
        return dataclasses.replace(state, panes=tuple(panes), problems=()).address(self.first)

    def after(self, state: State, pane: str, action: str) -> State:
        """The state after something was done in a pane, or to the page.

        Raises:
            TbttError: if that means nothing here.
        """
        verb, _, argument = action.partition(" ")
        if not action:
            return state
        if pane == "page":
            return state.choose(verb, argument)
        settings = state.panes[PANES.index(pane)]
        if self._is_so(settings, verb, argument):
            return state
        settings = settings.act(verb, argument)
        if (
            verb == "seed" and self._which(settings) is None
        ):  # most steps are kept of one seed alone
            settings = dataclasses.replace(settings, step=None)
        return state.with_pane(PANES.index(pane), settings)

    def _is_so(self, pane: Pane, verb: str, argument: str) -> bool:
        """Whether a control only says what its pane shows."""
        if verb == "run":
            return argument == pane.run
        which = self._which(pane) if verb in ("seed", "step") else None
        return which is not None and argument == str(getattr(which, verb))

    def _step(self, state: State, pane: str, place: int) -> int:
        """The training step at a place of a pane's slider."""
        settings = state.panes[PANES.index(pane)]
        which = self.catalogue.which(settings.run, settings.seed, None)
        steps = list(self.catalogue.steps(which.run, which.seed))
        return steps[min(place, len(steps) - 1)]

    def _which(self, pane: Pane) -> Which | None:
        try:
            return self.catalogue.which(pane.run, pane.seed, pane.step)
        except TbttError:
            return None

    def _routes(self) -> None:
        server = self.app.server

        @server.before_request
        def refuse_strangers() -> Any:
            """A page elsewhere must not read this one by calling its own name 127.0.0.1."""
            host = flask.request.host.rsplit(":", 1)[0]
            if self.hosts and host not in self.hosts:
                return flask.Response(f"{host} is not this server's name\n", 403)
            return None

        @server.route("/figure/<pane>/<name>.<kind>")
        def file(pane: str, name: str, kind: str) -> Any:
            state = self.read(flask.request.query_string.decode(errors="replace"))
            try:
                if pane not in (*PANES, "page") or kind not in ("csv", "html"):
                    raise TbttError("there is no such file: take one from the page")
                part = self.views.part(state, pane, name)
                provenance = self.views.provenance(state, pane, part)
            except TbttError as error:
                return flask.Response(f"{error}\n", 404, mimetype="text/plain")
            if kind == "csv":
                table = part.data.assign(figure=part.title, **provenance)
                content, mime = table.to_csv(index=False), "text/csv"
            else:
                title = {"text": f"{part.title}<br><sup>{in_words(provenance)}</sup>", "x": 0.02}
                drawn: Any = part.figure
                drawn.update_layout(title=title, height=drawn.layout.height + TITLED)
                drawn.update_layout(margin={"t": (drawn.layout.margin.t or 0) + TITLED})
                content, mime = drawn.to_html(include_plotlyjs=True), "text/html"
            headers = {"Content-Disposition": f'attachment; filename="{name}-{pane}.{kind}"'}
            return flask.Response(content, mimetype=mime, headers=headers)
