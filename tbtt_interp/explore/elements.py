"""What the page is made of again and again: buttons, sentences, figures."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dash import dcc, html

from tbtt_interp.explore.parts import Part

LONG = 40  # characters of what a figure is of
GRAPH: Any = {"displayModeBar": False, "responsive": True}


def attributes(**named: Any) -> dict[str, Any]:
    """Attributes whose names have dashes.

    >>> attributes(aria_label="pin 3")
    {'aria-label': 'pin 3'}
    """
    return {name.replace("_", "-"): value for name, value in named.items()}


def pressed(is_on: bool) -> dict[str, Any]:
    """Whether a button that switches something is on."""
    return attributes(aria_pressed=str(is_on).lower())


def button(pane: str, action: str, text: Any, title: str, **more: Any) -> html.Button:
    """A button that does something to a pane, or to the page; with words for who cannot see it.

    What it does is sent by the page's script, one thing after another, so that none is lost.
    """
    does = attributes(data_pane=pane, data_act=action, aria_label=title)
    return html.Button(text, title=title, **does, **more)


def message(text: str, kind: str = "problem") -> html.P:
    """A sentence in place of what cannot be shown."""
    return html.P(
        text, className=f"message {kind}", role="alert" if kind == "problem" else "status"
    )


def in_words(provenance: Mapping[str, Any]) -> str:
    """What a figure is of, in a line; a long prompt by its end."""
    short = {k: v if len(str(v)) <= LONG else f"…{str(v)[-LONG:]}" for k, v in provenance.items()}
    return ", ".join(f"{name} {value}" for name, value in short.items())


def figure(
    part: Part, pane: str, address: str, provenance: Mapping[str, Any] = MappingProxyType({})
) -> html.Figure:
    """A part as a figure, with its words above and its files below.

    Args:
        provenance: what it is of, for files that leave the page.
    """
    drawn: Any = part.figure
    file = f"figure/{pane}/{part.name}"
    return html.Figure(
        [
            html.Figcaption([html.H3(part.title), html.P(part.note)]),
            dcc.Graph(
                id={"type": "figure", "pane": pane, "name": part.name},
                figure=drawn, config=GRAPH, className="graph",
                style={"height": drawn.layout.height},  # before it is drawn, too
            ),
            html.Div(
                [
                    html.Span("Download"),
                    *(html.Button(kind.upper(), title=f"{part.title}, as {kind.upper()}",
                                  **attributes(data_image=kind, data_name=f"{part.name}-{pane}",
                                               data_title=part.title, data_of=in_words(provenance)))
                      for kind in ("png", "svg")),
                    *(html.A(kind.upper(), href=f"{file}.{kind}{address}", download="",
                             title=f"{part.title}, as {kind.upper()}")
                      for kind in ("csv", "html")),
                ],
                className="files",
            ),
        ],
        **attributes(data_pane=pane),
    )  # fmt: skip
