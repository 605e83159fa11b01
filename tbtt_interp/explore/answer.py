"""What a model answers, how it comes to it stream by stream, and what writes it."""

from functools import lru_cache, partial

import pandas as pd
import torch
import torch.nn.functional as F

from tbtt_interp.analyses.attribution import ALL, contributions, in_double
from tbtt_interp.analyses.logit_lens import residual_streams
from tbtt_interp.explore import maps
from tbtt_interp.explore.asking import changed, read, shown_tokens
from tbtt_interp.explore.catalogue import Opened
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.scene import Scene
from tbtt_interp.explore.state import Edge, Pane
from tbtt_interp.interventions import answer_logits
from tbtt_interp.plots import short_site
from tbtt_interp.prompts import PromptBatch

TOP = 5
BARS = 18  # drawn at most


def answer_parts(scene: Scene, pane: Pane) -> list[Part]:
    """What the answer view shows of a model."""
    return [top_part(scene), lens_part(scene), attribution_part(scene, pane.character)]


def top_part(scene: Scene) -> Part:
    """The likeliest next tokens after each token of the window."""
    tokens, start = scene.window
    with changed(scene.opened, scene.cuts, start) as model:
        logits = model(torch.tensor([tokens]))[0]
    best = logits.softmax(-1).topk(min(TOP, logits.shape[-1]))
    vocabulary = scene.task.vocabulary
    rows = []
    for pos, name in enumerate(scene.read_names):
        words = shown_tokens(vocabulary, best.indices[pos].tolist())
        rows += [
            {"row": rank + 1, "row_name": rank + 1, "column": pos + start, "column_name": name,
             "value": value, "text": word, "next": scene.names[pos + start + 1]}
            for rank, (word, value) in enumerate(
                zip(words, best.values[pos].tolist(), strict=True)
            )
        ]  # fmt: skip
    return Part(
        name="next", title="What comes next, after each token", table=pd.DataFrame(rows),
        draw=partial(
            maps.cell_map, titles=("rank", "after"), unit="probability", bounds=(0.0, 1.0),
            hover={"text": "token %{…}", "next": "in the text: %{…}"},
        ),
        note="The five likeliest tokens, the likeliest on top; dark is sure.",
    )  # fmt: skip


def lens_part(scene: Scene) -> Part:
    """Each stream read as if it were the last, at each token of the window."""
    tokens, start = scene.window
    with changed(scene.opened, scene.cuts, start) as model:
        streams = residual_streams(model)
        cache = read(model, tokens, streams)
        x = torch.stack([cache[stream][0] for stream in streams])
        final_norm = getattr(model, "ln_final", torch.nn.Identity())
        probabilities = model.unembed(final_norm(x)).softmax(-1)
    following = torch.tensor(scene.said.tokens[start + 1 : start + 1 + len(tokens)])
    said = probabilities.gather(-1, following.expand(len(streams), -1)[..., None]).squeeze(-1)
    best, first = probabilities.max(-1)
    names = scene.names[start:]
    rows = [
        {"row": k, "row_name": short_site(stream), "column": pos + start, "column_name": names[pos],
         "value": float(said[k, pos]), "text": shown_tokens(
             scene.task.vocabulary, [int(first[k, pos])])[0],
         "sure": float(best[k, pos]), "next": names[pos + 1]}
        for k, stream in enumerate(streams) for pos in range(len(tokens))
    ]  # fmt: skip
    return Part(
        name="lens", title="Logit lens: each stream read as if it were the last",
        table=pd.DataFrame(rows),
        draw=partial(
            maps.cell_map, titles=("stream", "at"), unit="probability",
            bounds=(0.0, 1.0),
            hover={"text": "says %{…}", "sure": "with %{…:.3f}", "next": "in the text: %{…}"},
        ),
        note="Written is what a stream says first; the colour is how likely what comes is to it.",
    )  # fmt: skip


@lru_cache(maxsize=24)
def _double(opened: Opened) -> Opened:
    with opened.alone:
        return Opened(in_double(opened.model))


def attribution_part(scene: Scene, character: int) -> Part:
    """What each part writes towards a character of the answer, against the next best one."""
    said = scene.said
    character = min(character, len(said.answer) - 1)
    table, against = _attribution(
        scene.opened, scene.cuts, said.tokens[: said.asked + character + 1], scene.run.shape.n_ctx
    )
    vocabulary = scene.task.vocabulary
    this, other = shown_tokens(vocabulary, [said.answer[character], against])
    asked = said.asked + character
    start = max(0, asked - scene.run.shape.n_ctx)
    places = {pos: f"{scene.names[asked + pos]} ({asked + pos + 1})" for pos in range(-asked, 0)}
    named = [component.name(places) for component in table["component"]]
    table = table.assign(part=named).drop(columns="component")
    whole = float(table["value"].iloc[-1])
    table = table[:-1]
    table = table[table["value"] != 0]
    shown = table.reindex(table["value"].abs().sort_values(ascending=False).index)[:BARS]
    rest = float(table["value"].sum() - shown["value"].sum())
    if len(shown) < len(table):
        shown = pd.concat([shown, pd.DataFrame([{"part": "the rest", "value": rest}])])
    lost = f" The first {start} tokens are out of the window." if start else ""
    return Part(
        name="attribution", title=f"What writes {this} and not {other}: {whole:+.2f} in all",
        table=shown.reset_index(drop=True),
        draw=partial(maps.signed_bars, unit="nats of logit"),
        note="Direct logit attribution: all parts sum to the logit difference between the "
        f"character that was said and the next best.{lost}",
    )  # fmt: skip


@lru_cache(maxsize=256)
def _attribution(
    opened: Opened, cuts: tuple[Edge, ...], tokens: tuple[int, ...], n_ctx: int
) -> tuple[pd.DataFrame, int]:
    """What each component writes of the last token's logit minus the next best's; that token."""
    double = _double(opened)
    prompt, answer = list(tokens[:-1]), list(tokens[-1:])
    batch = PromptBatch.of_tokens([(prompt, answer)], n_ctx)
    with changed(double, cuts, max(0, len(prompt) - n_ctx)) as model:
        logits = answer_logits(model, batch)
        right = F.one_hot(torch.tensor(answer), logits.shape[1]).to(logits)
        against = logits.masked_fill(right > 0, -torch.inf).argmax(-1)
        found = contributions(model, batch, right - F.one_hot(against, logits.shape[1]))
    hidden = {"neuron"}
    if opened.model.cfg.n_heads > 1:
        heads = {c: v for c, v in found.items() if c.kind == "head"}
        found = heads | found
        hidden |= {"attention"}
    else:
        hidden |= {"head"}
    found = {c: v for c, v in found.items() if c.kind not in hidden}
    has_places = {c._replace(pos=None) for c in found if c.pos is not None}
    kept = [c for c in found if c.pos is not None or c not in has_places]
    kept.sort(key=lambda c: c.kind == ALL)
    rows = [{"component": c, "value": float(found[c])} for c in kept]
    return pd.DataFrame(rows), int(against)
