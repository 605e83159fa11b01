"""What stands in a pane: the prompt, the answer, and what can be done to the model."""

import math
from typing import Any

from dash import html

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.asking import shown_tokens
from tbtt_interp.explore.attention import patterns_of
from tbtt_interp.explore.elements import attributes, button, message, pressed
from tbtt_interp.explore.patching import Patched
from tbtt_interp.explore.scene import Scene, count_right
from tbtt_interp.explore.state import Edge, Pane
from tbtt_interp.plots import short_site
from tbtt_interp.tasks import Task

FALLEN = 40  # characters off the left end that are shown
SHOWN = 200  # characters of a prompt that cannot be read


def unreadable(text: str, task: Task) -> list[Any]:
    """A prompt with the characters marked that this model has no token for."""
    known = task.vocabulary.index
    strange = sorted(set(text) - known.keys())
    first = next(k for k, c in enumerate(text) if c not in known)
    start = max(0, min(first - FALLEN, len(text) - SHOWN))
    around = text[start : start + SHOWN]
    shown = [c if c in known else html.Mark(c if c.isprintable() else repr(c)) for c in around]
    shown = ["…"] * (start > 0) + shown + ["…"] * (start + SHOWN < len(text))
    names = ", ".join(repr(c) for c in strange[:8]) + (", …" if len(strange) > 8 else "")
    return [
        html.P(shown, className="typed"),
        message(
            f"This model has no token for {names}: its characters are "
            f"{task.vocabulary.characters!r}."
        ),
    ]


def strip(scene: Scene, pane: Pane, name: str) -> html.Div:
    """The text token by token, and below it what each pinned one looks at."""
    names, asked, first = scene.names, scene.said.asked, scene.lost
    end = first + len(scene.read_names)
    tokens: list[Any] = []
    if first:
        fallen = names[:first]
        shown = "".join(fallen)
        if first > FALLEN:
            ends = shown[: FALLEN // 2], shown[-FALLEN // 2 :]
            shown = f"{ends[0]} … {first - FALLEN:,} characters … {ends[1]}"
        tokens.append(html.Del(shown, title="off the window's left end: the model does not see it"))
    for k in range(first, len(names) - 1):
        pinned = k in pane.pins
        words = f"{'unpin' if pinned else 'pin'} {names[k]}, token {k + 1}"
        tokens.append(button(
            name, f"pin {k}", names[k], words, className="token" + " said" * (k >= asked),
            disabled=k >= end, **pressed(pinned),
        ))  # fmt: skip
    tokens.append(html.Span(names[-1], className="token said last"))
    label = attributes(aria_label="prompt and answer")
    rows: list[Any] = [html.Div(tokens, className="strip", role="group", **label)]
    if first:
        rows.append(message(
            f"The prompt has {asked:,} characters and the window {scene.run.shape.n_ctx}: what is "
            f"struck out falls off its left end.", "note",
        ))  # fmt: skip
    if scene.later:
        rows.append(message(
            f"The answer's end, {scene.later!r}, is said from windows that have slid on, which are "
            "not in the figures.", "note",
        ))  # fmt: skip
    pattern = patterns_of(scene)
    shape = scene.run.shape
    if pane.layer < shape.layers and pane.head < shape.heads:
        rows += [
            _pinned(scene, pane, name, pin, pattern[pane.layer, pane.head].tolist(), first)
            for pin in pane.pins if first <= pin < end
        ]  # fmt: skip
    return html.Div(rows)


def _pinned(
    scene: Scene, pane: Pane, name: str, pin: int, pattern: list[list[float]], start: int
) -> html.Div:
    """What one query looks at, drawn on the prompt; each token cuts its edge."""
    keys: list[Any] = []
    for key in range(start, pin + 1):
        edge = Edge(pane.layer, pane.head, pin, key)
        weight, is_cut = pattern[pin - start][key - start], edge in pane.cuts
        words = f"{'undo the cut' if is_cut else 'cut the edge'} from {scene.names[pin]} to " \
                f"{scene.names[key]}, which has {weight:.2f}"  # fmt: skip
        keys.append(button(
            name, f"cut {edge}",
            [scene.names[key], html.Small("✕" if is_cut else f"{weight:.2f}")], words,
            className="token weight", **pressed(is_cut),
            style={"backgroundColor": f"rgba(0, 114, 178, {0.85 * weight:.3f})",
                   "color": "white" if weight > 0.55 else "inherit"},
        ))  # fmt: skip
    legend = f"{scene.names[pin]} ({pin + 1}) looks at"
    return html.Div([html.Span(legend), *keys], className="strip pinned")


def heads_picker(scene: Scene, pane: Pane, name: str) -> list[Any]:
    """A button for each head, a row a layer, where there is a choice."""
    shape = scene.run.shape
    if shape.layers * shape.heads == 1 and (pane.layer, pane.head) == (0, 0):
        return []
    rows = [
        html.Div([
            html.Span(f"layer {layer}"),
            *(button(name, f"head {layer}.{head}", str(head), f"layer {layer}, head {head}",
                     **pressed((layer, head) == (pane.layer, pane.head)))
              for head in range(shape.heads)),
        ])
        for layer in range(shape.layers)
    ]  # fmt: skip
    return [html.Div([html.Span("Head"), html.Div(rows)], className="heads")]


def answer(scene: Scene, name: str) -> html.Div:
    """What the model says, how sure it is, and whether it is right, before and after the cuts."""
    said = scene.said
    cells = [
        html.Span([character, html.Small(f"{p:.3f}")], className="token")
        for character, p in zip(scene.names[said.asked :], said.probabilities, strict=True)
    ]
    lines: list[Any] = [
        html.Div(
            [
                html.Div(cells, className="completion",
                         title="each character of the answer with its probability"),
                html.Span(verdict(scene), className="verdict"),
                html.Span(f"margin {scene.margin:+.2f}", className="margin", title=(
                    "nats of logit between the right character and the best other one, at their "
                    "smallest" if scene.known else "nats of logit to the next best character")),
                *([] if said.ended else [html.Span("not ended", className="verdict")]),
            ],
            className="answer",
        )
    ]  # fmt: skip
    lines.append(html.P(_counts(scene), className="counts"))
    if scene.cuts:
        lines.append(html.P(
            f"Without the cuts: {shown_answer(scene)}, margin {scene.margin_before:+.2f}.",
            className="before",
        ))  # fmt: skip
        chips = [
            button(name, f"cut {edge}", f"{_edge(scene, edge)} ✕", f"undo the cut {edge}")
            for edge in scene.cuts
        ]
        lines.append(html.Div(
            [html.Span("Cut:"), *chips, button(name, "restore cuts", "undo all", "undo all cuts")],
            className="chips",
        ))  # fmt: skip
    return html.Div(lines)


def shown_answer(scene: Scene) -> str:
    """The answer without cuts, as it is shown."""
    return "".join(shown_tokens(scene.task.vocabulary, scene.before.answer))


def _edge(scene: Scene, edge: Edge) -> str:
    names = [
        f"{scene.names[k]} ({k + 1})" if k < len(scene.names) else f"token {k + 1}"
        for k in (edge.query, edge.key)
    ]
    return f"{edge.layer}.{edge.head}: {names[0]} → {names[1]}"


def verdict(scene: Scene) -> str:
    """Whether the answer is right, and whether the model was trained on the prompt."""
    if scene.known is None:
        return "not of the task, so nobody knows the answer"
    right = scene.answer(scene.said) == scene.known.answer
    side = "held out from this model" if scene.known.held_out else "seen in training"
    return f"{'right' if right else 'wrong'}, {side}"


def _counts(scene: Scene) -> str:
    place = scene.run.seed_index(scene.which.seed)
    try:
        now = count_right(scene.opened, scene.run, place, scene.cuts)
        before = count_right(scene.opened, scene.run, place, ())
    except TbttError as error:
        return f"Of all prompts: {error}."
    said = [
        f"{side} {rate}" + (f" (before: {before[side]})" if scene.cuts else "")
        for side, rate in now.items()
    ]
    return f"Of all prompts it answers: {', '.join(said)}."


def patched(found: Patched, pane: Pane, name: str) -> html.Div:
    """Both prompts, the patches, and what they do."""
    vocabulary = found.clean.task.vocabulary
    clean, corrupt, now = found.differences
    right, wrong = (vocabulary.decode([t]) for t in (found.right, found.wrong))
    answers = [
        "".join(shown_tokens(vocabulary, said.answer))
        for said in (found.clean.said, found.corrupt.said, found.said)
    ]
    rows = [
        ("clean", found.clean.text, answers[0], clean, 1.0),
        ("corrupted", found.corrupt.text, answers[1], corrupt, 0.0),
        ("patched", found.corrupt.text, answers[2], now, found.recovered),
    ]
    chips = [
        button(name, f"patch {patch}",
               f"{_place(found, patch)}{'' if patch in found.there else ', not in this model'} ✕",
               f"take the patch {patch} out")
        for patch in pane.patches
    ]  # fmt: skip
    undo = [button(name, "restore patches", "undo all", "take all patches out")] if chips else []
    return html.Div(
        [
            html.Div(html.Table(
                [
                    html.Thead(html.Tr([html.Th(x) for x in (
                        "run", "prompt", "answer", f"logit {right} − {wrong}", "recovered")])),
                    html.Tbody([
                        html.Tr([html.Th(run), html.Td(prompt), html.Td(text, className="answered"),
                                 html.Td(f"{difference:+.2f}"), html.Td(_share(share))],
                                className=run)
                        for run, prompt, text, difference, share in rows
                    ]),
                ],
                className="patched",
            ), className="wide"),
            html.Div(
                [html.Span("Patches:"), *(chips or [html.Em("none: click a cell below")]), *undo],
                className="chips",
            ),
        ]
    )  # fmt: skip


def _share(share: float) -> str:
    return f"{share:.2f}" if math.isfinite(share) else "–"


def _place(found: Patched, patch: Any) -> str:
    names = found.corrupt.names
    token = f"{names[patch.pos]} ({patch.pos + 1})" if patch.pos < len(names) else patch.pos + 1
    head = "" if patch.head is None else f" head {patch.head}"
    return f"{short_site(patch.site)}{head} at {token}"


def characters(scene: Scene, pane: Pane, name: str) -> html.Div:
    """A button for each character of the answer, to be attributed."""
    chosen = min(pane.character, len(scene.said.answer) - 1)
    return html.Div(
        [
            html.Span("Attribute"),
            *(button(name, f"character {k}", character, f"character {k + 1} of the answer",
                     className="token", **pressed(k == chosen))
              for k, character in enumerate(scene.names[scene.said.asked :])),
        ],
        className="strip",
    )  # fmt: skip


def places(scene: Scene, pane: Pane, name: str) -> html.Div:
    """A button for each position that every prompt has, to be probed."""
    shortest = min(len(example.prompt) for example in scene.task.examples)
    shortest = min(shortest, scene.run.shape.n_ctx, scene.said.asked)
    return html.Div(
        [
            html.Span("Probe at"),
            *(button(name, f"place {pos}", scene.names[scene.said.asked + pos],
                     f"position {pos}, counted from the prompt's last",
                     className="token", **pressed(pos == pane.place))
              for pos in range(-shortest, 0)),
        ],
        className="strip",
    )  # fmt: skip
