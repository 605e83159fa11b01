"""Where a model looks: on this prompt, on all equations, by role; and QK and OV circuits."""

from functools import lru_cache, partial
from itertools import product

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tbtt_interp.analyses.heads import ov_circuit, qk_circuit, token_names, used_tokens
from tbtt_interp.analyses.token_roles import RoleBatch, prompt_roles
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import TOKENS_AT_ONCE
from tbtt_interp.explore import maps
from tbtt_interp.explore.asking import changed, read
from tbtt_interp.explore.catalogue import Opened
from tbtt_interp.explore.parts import Part
from tbtt_interp.explore.scene import Scene
from tbtt_interp.explore.state import Edge, Pane
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run

CUT = "✕"
LOOKS = ("query", "key")


def pattern_site(layer: int) -> str:
    """Where a layer's attention is."""
    return f"blocks.{layer}.attn.hook_pattern"


def patterns_of(scene: Scene) -> Float[Tensor, "layer head query key"]:
    """Every head's attention in the window, its edges cut."""
    return _patterns(scene.opened, scene.cuts, *scene.window)


@lru_cache(maxsize=256)
def _patterns(
    opened: Opened, cuts: tuple[Edge, ...], tokens: tuple[int, ...], start: int
) -> Float[Tensor, "layer head query key"]:
    with changed(opened, cuts, start) as model:
        sites = [pattern_site(layer) for layer in range(model.cfg.n_layers)]
        cache = read(model, tokens, sites)
    return torch.stack([cache[site][0] for site in sites])


def head_of(scene: Scene, pane: Pane) -> tuple[int, int]:
    """The layer and head that a pane looks at.

    Raises:
        TbttError: if its model has none such.
    """
    shape = scene.run.shape
    if pane.layer >= shape.layers or pane.head >= shape.heads:
        raise TbttError(
            f"there is no head {pane.layer}.{pane.head} in this model: layers are 0 to "
            f"{shape.layers - 1}, heads 0 to {shape.heads - 1}"
        )
    return pane.layer, pane.head


def attention_parts(scene: Scene, pane: Pane, shown: str) -> list[Part]:
    """What the attention view shows of a model.

    Args:
        shown: one of SHOWN; see `State`.
    """
    layer, head = head_of(scene, pane)
    if shown in ("QK", "OV"):
        return [circuit_part(scene, layer, head, shown)]
    if shown == "roles":
        return [roles_part(scene, layer, head)]
    if shown == "equations":
        return [equations_part(scene, layer, head)]
    return [*heads_part(scene, pane), prompt_part(scene, layer, head)]


def prompt_part(scene: Scene, layer: int, head: int) -> Part:
    """One head on this prompt, each token that is read as a query."""
    start, names = scene.lost, scene.read_names
    table = _edges(patterns_of(scene)[layer, head], names, start, scene.cuts, (layer, head))
    return Part(
        name="attention", title=f"Head {layer}.{head} on this prompt", table=table,
        draw=_draw, note="Click a cell to cut that edge, and again to undo it.",
    )  # fmt: skip


_draw = partial(maps.cell_map, titles=LOOKS, unit="attention", bounds=(0.0, 1.0))


def _edges(
    pattern: Float[Tensor, "query key"],
    names: list[str],
    start: int,
    cuts: tuple[Edge, ...],
    head: tuple[int, int],
) -> pd.DataFrame:
    """A row an edge, with what a click on it does."""
    rows = []
    weights = pattern.tolist()
    for query, key in product(range(len(names)), repeat=2):
        if key > query:
            continue
        edge = Edge(*head, query + start, key + start)
        rows.append({
            "row": edge.query, "row_name": names[query], "column": edge.key,
            "column_name": names[key], "value": weights[query][key],
            "mark": CUT if edge in cuts else "", "act": f"cut {edge}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def heads_part(scene: Scene, pane: Pane) -> list[Part]:
    """All heads from one query, where there is more than one."""
    shape = scene.run.shape
    if shape.layers * shape.heads == 1:
        return []
    start, names, patterns = scene.lost, scene.read_names, patterns_of(scene)
    pinned = [pin - start for pin in pane.pins if 0 <= pin - start < len(names)]
    query = pinned[-1] if pinned else scene.said.asked - start - 1  # where the answer begins
    rows = [
        {"row": layer * shape.heads + head, "row_name": f"{layer}.{head}", "column": key + start,
         "column_name": names[key], "value": float(patterns[layer, head, query, key]),
         "act": f"head {layer}.{head}"}
        for layer, head, key in product(range(shape.layers), range(shape.heads), range(query + 1))
    ]  # fmt: skip
    return [
        Part(
            name="heads", title=f"All heads from {names[query]}", table=pd.DataFrame(rows),
            draw=partial(
                maps.cell_map, titles=("head", "key"), unit="attention", bounds=(0.0, 1.0)
            ),
            note="Click a row to look at that head; pin a token to look from it.",
        )
    ]  # fmt: skip


@lru_cache(maxsize=32)
def _every_prompt(run: Run) -> RoleBatch:
    """Every example by itself, with the role of each token."""
    return RoleBatch.of(PromptSet.of_seed(run, run.seeds[0]))


@lru_cache(maxsize=64)
def _every_pattern(
    opened: Opened, run: Run, cuts: tuple[Edge, ...], layer: int
) -> Float[Tensor, "row head query key"]:
    batch = _every_prompt(run).batch
    if cuts and not batch.fits.all():
        raise TbttError(
            "edges are cut, and some prompts are longer than the window with their answers, so "
            "that edges do not stand at one place in all of them: undo the cuts"
        )
    site = pattern_site(layer)
    with changed(opened, cuts) as model:
        parts = batch.tokens.split(max(1, TOKENS_AT_ONCE // batch.tokens.shape[1]))
        return torch.cat([model.run_with_cache(p, names_filter=site)[1][site] for p in parts])


def equations_part(scene: Scene, layer: int, head: int) -> Part:
    """The mean over all examples whose prompts are made as this one is."""
    run, known = scene.run, scene.known
    examples, names = run.tasks[0].examples, run.tasks[0].varied
    roles = prompt_roles(known, names) if known is not None else None
    alike = [
        k for k, example in enumerate(examples)
        if len(example.prompt) == len(scene.text)
        and (roles is None or prompt_roles(example, names) == roles)
    ]  # fmt: skip
    every = _every_prompt(run)
    batch = every.batch
    rows = torch.isin(batch.row_example, torch.tensor(alike)) & (
        batch.last_prompt_pos == len(scene.text) - 1
    )
    if not rows.any():
        raise TbttError(
            "no equation of the task is made as this prompt is: show this prompt, or the mean by "
            "role"
        )
    pattern = _every_pattern(scene.opened, run, scene.cuts, layer)[rows, head]
    lengths = batch.lengths[rows]
    longest = int(lengths.max())
    there = (torch.arange(pattern.shape[1]) < lengths[:, None]).to(pattern)
    means = einsum(pattern, there, "row query key, row query -> query key") / there.sum(0)[:, None]
    first = rows.nonzero()[int(lengths.argmax())]
    names = list(every.roles[int(first)][:longest])
    count = len(set(batch.row_example[rows].tolist()))
    table = _edges(means[:longest, :longest], names, 0, scene.cuts, (layer, head))
    return Part(
        name="attention", title=f"Head {layer}.{head}, mean over {count} prompts like this one",
        table=table, draw=_draw, note="Click a cell to cut that edge in every prompt.",
        of=("run", "seed", "step", "cut"),
    )  # fmt: skip


def roles_part(scene: Scene, layer: int, head: int) -> Part:
    """The mean over all examples by what stands at query and key."""
    every = _every_prompt(scene.run)
    pattern = _every_pattern(scene.opened, scene.run, scene.cuts, layer)[:, head]
    names, of_row = every.in_order(), every.batch.row_example
    is_role = torch.stack([every.mask(name) for name in names]).to(pattern)
    once = 1 / of_row.bincount()[of_row]  # of an example with many windows, each is a part
    sums = einsum(
        once, is_role, pattern, is_role, "row, q row query, row query key, k row key -> q k"
    )
    queries = einsum(once, is_role, "row, q row query -> q")
    means = sums / queries[:, None]
    examples = [len(set(of_row[mask.any(1)].tolist())) for mask in is_role.bool()]
    rows = [
        {"row": q, "row_name": names[q], "column": k, "column_name": names[k],
         "value": float(means[q, k]), "examples": examples[q]}
        for q, k in product(range(len(names)), repeat=2)
        if float(sums[q, k]) > 0
    ]  # fmt: skip
    return Part(
        name="attention", title=f"Head {layer}.{head} by role, mean over all "
        f"{len(scene.task.examples)} examples",
        table=pd.DataFrame(rows),
        of=("run", "seed", "step", "cut"),
        draw=partial(_draw, hover={"examples": "over %{…} examples"}),
        note="A role's keys are summed: attention on all of a country's letters is one number.",
    )  # fmt: skip


def circuit_part(scene: Scene, layer: int, head: int, kind: str) -> Part:
    """A head's QK or OV circuit over the task's own tokens."""
    prompts = PromptSet.of_seed(scene.run, scene.run.seeds[0])
    tokens = used_tokens(prompts)
    names = token_names(prompts, tokens)
    circuit = qk_circuit if kind == "QK" else ov_circuit
    with torch.no_grad():
        values = torch.as_tensor(circuit(scene.opened.model, layer, head, tokens).AB).tolist()
    rows = [
        {"row": i, "row_name": names[i], "column": j, "column_name": names[j],
         "value": values[i][j], "text": ""}
        for i, j in product(range(len(names)), repeat=2)
    ]  # fmt: skip
    words = {
        "QK": (("query", "key"), "score", "Who would look at whom, positions left out."),
        "OV": (("looked at", "logit of"), "logit",
               "What looking there adds to each logit, positions left out."),
    }[kind]  # fmt: skip
    return Part(
        name="attention", title=f"{kind} circuit of head {layer}.{head}", table=pd.DataFrame(rows),
        draw=partial(maps.cell_map, titles=words[0], unit=words[1], signed=True), note=words[2],
        of=("run", "seed", "step"),
    )  # fmt: skip
