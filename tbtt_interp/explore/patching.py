"""A corrupted prompt with activations of a clean one: each place by itself, several at once."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.analyses.patching import OF_HEADS, STREAMS
from tbtt_interp.errors import TbttError
from tbtt_interp.explore import maps
from tbtt_interp.explore.asking import (
    Hooks,
    HooksAt,
    Said,
    changed,
    cutting,
    only_there,
    place_of,
    putting,
    read,
    say,
    shown_tokens,
)
from tbtt_interp.explore.catalogue import Catalogue, Opened
from tbtt_interp.explore.parts import TOLD, Part
from tbtt_interp.explore.scene import Scene, scene_of
from tbtt_interp.explore.state import Edge, Pane, Patch
from tbtt_interp.interventions import run_with
from tbtt_interp.plots import short_site

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

ROWS = 4_096  # of a batch: a deep model's places are patched in several
CLOSE = 0.05  # nats of logit; a share of less would be noise


@dataclass(frozen=True, kw_only=True)
class Patched:
    """A clean and a corrupted prompt, asked for the first character in which answers differ.

    Attributes:
        shared: the answers' common beginning, fed to both.
        right, wrong: the clean answer's character and the corrupted one's.
        differences: the logit of right minus wrong, clean, corrupted, and with the patches.
        there: those of the pane's patches that this model has a place for.
        said: what the corrupted prompt is answered with the patches.
    """

    clean: Scene
    corrupt: Scene
    shared: tuple[int, ...]
    right: int
    wrong: int
    differences: tuple[float, float, float]
    there: tuple[Patch, ...]
    said: Said

    @property
    def recovered(self) -> float:
        """The share of the way from the corrupted difference to the clean one; nan of no way."""
        clean, corrupt, patched = self.differences
        apart = clean - corrupt
        return (patched - corrupt) / apart if abs(apart) > CLOSE else math.nan

    @property
    def tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What is read of the clean prompt, and of the corrupted one."""
        both = (self.clean.said, self.corrupt.said)
        first, second = ((*s.tokens[: s.asked], *self.shared) for s in both)
        return first, second


def _answer(scene: Scene) -> tuple[int, ...]:
    """The right answer where it is known; else what the model says without cuts."""
    if scene.known is None:
        return scene.before.answer
    return tuple(scene.task.vocabulary.encode(scene.known.answer))


def patched_of(catalogue: Catalogue, pane: Pane, prompt: str, corrupt: str) -> Patched:
    """Both prompts, and the second with the pane's patches.

    Raises:
        TbttError: if they do not align, or have one answer.
    """
    clean = scene_of(catalogue, pane, prompt)
    other = scene_of(catalogue, pane, corrupt)
    lengths = clean.said.asked, other.said.asked
    if lengths[0] != lengths[1]:
        raise TbttError(
            f"the clean prompt {clean.text!r} has {lengths[0]} characters and the corrupted one "
            f"{other.text!r} has {lengths[1]}: give two of equal length, so that positions align"
        )
    answers = _answer(clean), _answer(other)
    differing = [k for k, (a, b) in enumerate(zip(*answers, strict=False)) if a != b]
    if not differing:
        raise TbttError(
            f"{clean.text!r} and {other.text!r} have the same answer: give two that differ, since "
            "the logit difference is between answers"
        )
    place = differing[0]
    found = Patched(
        clean=clean, corrupt=other, shared=answers[0][:place], right=answers[0][place],
        wrong=answers[1][place], differences=(0.0, 0.0, 0.0), said=other.said,
        there=tuple(p for p in pane.patches if has_place(clean.opened.model, p)),
    )  # fmt: skip
    source = (*clean.said.tokens[: clean.said.asked], *answers[0])
    with changed(clean.opened, ()) as model:
        put = putting(model, source, found.there, pane.cuts)

        def hooks_at(start: int, end: int) -> Hooks:
            return [*cutting(pane.cuts, start), *put(start, end)]

        asked = list(other.said.tokens[: other.said.asked])
        ends = frozenset(clean.task.vocabulary.encode("".join(sorted(clean.task.terminators))))
        said = say(model, asked, ends, hooks_at)
        start = max(0, len(found.tokens[0]) - model.cfg.n_ctx)
        plain: HooksAt = lambda start, end: cutting(pane.cuts, start)  # noqa: E731
        differences = [
            _difference(model, tokens[start:], hooks(start, len(tokens)), found)
            for tokens, hooks in zip(
                (*found.tokens, found.tokens[1]), (plain, plain, hooks_at), strict=True
            )
        ]
    return dataclasses.replace(found, differences=tuple(differences), said=said)


def _difference(
    model: "HookedTransformer", window: Sequence[int], hooks: Hooks, found: Patched
) -> float:
    logits = run_with(model, torch.tensor([list(window)]), only_there(hooks, model))
    return float(_logit_difference(logits, found.right, found.wrong))


def sites_of(model: "HookedTransformer") -> list[str]:
    """Where activations can be put in, first to last."""
    every = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers)
             for part in (STREAMS[0], *OF_HEADS, *STREAMS[1:])]  # fmt: skip
    return [site for site in every if site in model.hook_dict]


def has_place(model: "HookedTransformer", patch: Patch) -> bool:
    """Whether a model has the site of a patch, and the head: another pane's may."""
    if patch.site not in sites_of(model):
        return False
    heads = range(model.cfg.n_heads) if patch.site.endswith(OF_HEADS) else (None,)
    return patch.head in heads


def patching_parts(found: Patched, pane: Pane) -> list[Part]:
    """The map of all places."""
    clean, corrupt = found.tokens
    start = max(0, len(clean) - found.clean.run.shape.n_ctx)
    shares = _map(
        found.clean.opened, pane.cuts, clean[start:], corrupt[start:],
        found.right, found.wrong, start,
    )  # fmt: skip
    vocabulary = found.clean.task.vocabulary
    names = [
        a if a == b else f"{b}→{a}"
        for a, b in zip(
            shown_tokens(vocabulary, clean), shown_tokens(vocabulary, corrupt), strict=True
        )
    ]
    apart = found.differences[0] - found.differences[1]
    rows, lines = [], {}
    for patch, moved in shares:
        line = lines.setdefault((patch.site, patch.head), len(lines))
        rows.append({
            "row": line, "column": patch.pos, "column_name": names[patch.pos],
            "row_name": short_site(patch.site) + ("" if patch.head is None else f".{patch.head}"),
            "value": moved / apart if abs(apart) > CLOSE else float("nan"), "effect": moved,
            "mark": "●" if patch in pane.patches else "", "act": f"patch {patch}",
        })  # fmt: skip
    right, wrong = shown_tokens(vocabulary, [found.right, found.wrong])
    return [
        Part(
            name="patching", title=f"Recovered of the logit difference {right} − {wrong}, each "
            "place by itself",
            table=pd.DataFrame(rows),
            draw=partial(
                maps.cell_map, titles=("site", "token"), unit="share recovered", signed=True,
                bounds=(-1.0, 1.0), hover={"effect": "%{…:+.2f} nats of logit"},
            ),
            of=TOLD,
            note="Click a cell to put the clean run's activation there, and again to take it "
            "out. ● is in place below; the map is of each place alone.",
        )
    ]  # fmt: skip


@lru_cache(maxsize=64)
def _map(
    opened: Opened,
    cuts: tuple[Edge, ...],
    clean: tuple[int, ...],
    corrupt: tuple[int, ...],
    right: int,
    wrong: int,
    start: int,
) -> list[tuple[Patch, float]]:
    """How many nats each place by itself moves the corrupted run's logit difference."""
    with changed(opened, cuts, start) as model:
        sites = sites_of(model)
        source = read(model, clean, sites)
        places = [
            Patch(site, head, pos + start)
            for site in sites
            for head in (range(model.cfg.n_heads) if site.endswith(OF_HEADS) else (None,))
            for pos in range(len(corrupt))
        ]
        tokens = torch.tensor([corrupt])
        before = _logit_difference(model(tokens), right, wrong)
        moved: list[float] = []
        for first in range(0, len(places), ROWS):
            some = places[first : first + ROWS]
            hooks = [
                (site, partial(_put, site=site, places=some, source=source[site], start=start))
                for site in dict.fromkeys(patch.site for patch in some)
            ]
            logits = run_with(model, tokens.expand(len(some), -1), hooks)
            moved += (_logit_difference(logits, right, wrong) - before).tolist()
    return list(zip(places, moved, strict=True))


def _put(values: Tensor, *, site: str, places: list[Patch], source: Tensor, start: int) -> Tensor:
    """Each place of this site in a row of its own."""
    values = values.clone()
    for row, patch in enumerate(places):
        if patch.site == site:
            place = place_of(patch.site, patch.head, patch.pos - start)
            values[(row, *place)] = source[(0, *place)]
    return values


def _logit_difference(
    logits: Float[Tensor, "row pos d_vocab"], right: int, wrong: int
) -> Float[Tensor, " row"]:
    return logits[:, -1, right] - logits[:, -1, wrong]
