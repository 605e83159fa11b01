"""What of the page stays, whatever is on screen: controls, and places for what comes and goes."""

from typing import Any

from dash import dcc, html

from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.elements import attributes, button
from tbtt_interp.explore.state import PANES, VIEWS
from tbtt_interp.tasks import Task

SHOWN_WORDS = {"prompt": "this prompt", "equations": "mean over prompts like it",
               "roles": "mean by role", "QK": "QK circuit", "OV": "OV circuit"}  # fmt: skip


def frame(catalogue: Catalogue) -> html.Div:
    """All of the page that stays: what stands in it comes with the address."""
    return html.Div(
        [
            dcc.Location(id="address", refresh=False),
            dcc.Store(id="written"),
            dcc.Store(id="event"),
            html.Div(id="done", hidden=True),
            html.Div(id="link", hidden=True),
            html.Div(id="heard", className="unseen", **attributes(aria_live="polite")),
            html.Header(
                [
                    html.Div([
                        html.H1("tbtt explorer"),
                        html.P("Two models on one prompt: where they look, what writes the answer, "
                               "and whether it is the rule."),
                    ]),
                    html.Button(
                        "Copy link", id="copy", title="Copy an address that shows the same",
                        **attributes(data_copy="link"),
                    ),
                ]
            ),
            html.Div(
                [
                    _labelled("Prompt", dcc.Input(
                        id="prompt", type="text", debounce=0.15, spellCheck=False,
                        autoComplete="off",
                    )),
                    html.Div(_labelled("Corrupted prompt", dcc.Input(
                        id="corrupt", type="text", debounce=0.15, spellCheck=False,
                        autoComplete="off",
                    )), className="only-patching"),
                    html.Div(id="examples"),
                ],
                className="asking",
            ),
            html.Div(
                [
                    _choice("view", "View", {view: view.capitalize() for view in VIEWS}, "tabs"),
                    html.Div(_choice("shown", "Attention of", SHOWN_WORDS),
                             className="only-attention"),
                    html.Div(_choice("into", "A click opens in", {p: p.upper() for p in PANES}),
                             className="only-ladder"),
                ],
                className="choices",
            ),
            html.Div(id="broken"),
            html.Div(id="problems"),
            html.Div(id="shared"),
            html.Main([_pane(catalogue, name) for name in PANES], className="panes"),
        ],
        id="page",
    )  # fmt: skip


def _labelled(text: str, control: Any) -> html.Label:
    return html.Label([html.Span(text), control], className="labelled")


def _choice(name: str, title: str, words: dict[str, str], style: str = "") -> html.Fieldset:
    return html.Fieldset(
        [
            html.Legend(title),
            dcc.RadioItems(
                id=name, options=[{"value": k, "label": v} for k, v in words.items()], inline=True,
                value=next(iter(words)),
            ),
        ],
        className=f"choice {style}",
    )  # fmt: skip


def _pane(catalogue: Catalogue, name: str) -> html.Section:
    return html.Section(
        [
            html.H2(f"Model {name.upper()}"),
            html.Div(
                [
                    _labelled("Run", dcc.Dropdown(
                        id={"type": "run", "pane": name}, options=catalogue.names,
                        clearable=False, className="run",
                    )),
                    _labelled("Seed", dcc.Dropdown(
                        id={"type": "seed", "pane": name}, clearable=False, searchable=False,
                        className="seed",
                    )),
                    html.Div([
                        html.Span("Training step", id={"type": "step-words", "pane": name}),
                        dcc.Slider(
                            id={"type": "step", "pane": name}, min=0, max=1, step=1, marks=None,
                            updatemode="drag", allow_direct_input=False,
                        ),
                    ], className="steps", role="group",
                       **attributes(aria_label=f"Training step of model {name.upper()}")),
                ],
                className="model",
            ),
            html.Div(id={"type": "body", "pane": name}, className="body"),
            dcc.Store(id={"type": "shown", "pane": name}),
        ],
        **attributes(aria_label=f"Model {name.upper()}"),
    )  # fmt: skip


def examples(task: Task) -> list[Any]:
    """A few prompts to begin with: held out, seen, and facts where there are any."""
    held_out = [e.prompt for e in task.examples if e.held_out][:2]
    seen = [e for e in task.examples if not e.held_out]
    by_group = {e.group: e.prompt for e in reversed(seen[: len(seen) * 3 // 4])}
    chips = [(p, "held out") for p in held_out] + [(p, "seen") for p in by_group.values()]
    return [
        html.Span("Try"),
        *(button("page", f"prompt {prompt}", [prompt, html.Small(side)],
                 f"ask {prompt}, {side}") for prompt, side in chips),
    ]  # fmt: skip
