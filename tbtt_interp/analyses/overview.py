"""Every analysis at quick settings, and what was found, furthest from its null first."""

import dataclasses
from collections.abc import Callable
from functools import partial

import pandas as pd

from tbtt_interp import figures
from tbtt_interp.analyses.additivity import analyse_additivity
from tbtt_interp.analyses.findings import Result, Tell, silent
from tbtt_interp.analyses.old_attention import analyse_attention
from tbtt_interp.analyses.old_pairs import Pairs, chosen_pairs
from tbtt_interp.analyses.old_patching import analyse_patching
from tbtt_interp.analyses.old_paths import analyse_paths
from tbtt_interp.analyses.order import analyse_order
from tbtt_interp.analyses.parts import Parts
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run

SAID = 25
TOKENS = 1_500  # of the pairs that are patched, where `patching` by itself takes all
FEWEST = 16  # pairs at least


def _some(subject: Subject, seed: int) -> Pairs:
    """As many pairs as have TOKENS in all, or FEWEST."""
    pairs = chosen_pairs(subject, few=FEWEST)
    probe = pairs.sample(FEWEST, seed)
    each = probe.questions(probe.clean).tokens.numel() / len(probe)
    return pairs.sample(max(FEWEST, int(TOKENS / each)), seed)


def _quick_patching(subject: Subject, *, parts: Parts, seed: int) -> Result:
    return analyse_patching(subject, _some(subject, seed), parts=parts, seed=seed)


def _quick_paths(subject: Subject, *, parts: Parts, seed: int) -> Result:
    return analyse_paths(subject, _some(subject, seed), parts=parts, seed=seed)


def _quick_order(subject: Subject, *, parts: Parts, seed: int) -> Result:
    last = subject.layers - 1
    sites = [f"blocks.{last}.attn.hook_z", f"blocks.{last}.hook_mlp_out"]
    return analyse_order(subject, sites=sites, parts=parts, seed=seed)


QUICK: dict[str, Callable[..., Result]] = {
    "patching": _quick_patching,
    "paths": _quick_paths,
    "attention": analyse_attention,
    "additivity": analyse_additivity,
    "order": _quick_order,
}


def analyse_overview(
    subject: Subject | Run, *, parts: Parts | None = None, tell: Tell = silent, seed: int = 0
) -> Result:
    """What every analysis finds that can be asked of these models.

    Those that cannot are said, with their own reason.

    Returns:
        a table of findings with the name of their `analysis`; each analysis has its own tables
        only when it is run by itself.
    """
    subject, parts = Subject.of(subject), parts or Parts()
    found, findings, notes = [], [], []
    for number, (name, analyse) in enumerate(QUICK.items()):
        try:
            result = analyse(subject, parts=parts.inside(name), seed=seed)
        except TbttError as error:
            notes.append(f"Not asked, {name}: {error}.")
        else:
            found.append(result.findings_table().assign(analysis=name))
            findings += [
                dataclasses.replace(finding, what=f"{name}: {finding.what}")
                for finding in result.findings
            ]
        tell(number + 1, len(QUICK))
    table = pd.concat(found, ignore_index=True)
    far = (table["effect"] - table["null"]).abs().sort_values(ascending=False).index
    table = table.loc[far, ["analysis", *(c for c in table.columns if c != "analysis")]]
    groups = table.groupby("analysis", sort=False)
    shown = groups.agg(findings=("what", "size"), beyond_their_null=("beyond", "sum"))
    return Result(
        name="overview",
        tables={"overview": table},
        shown=shown.reset_index(),
        figures={"overview": partial(figures.overview, table)},
        findings=findings,
        notes=[
            "Effects are shares of all there could be, so that they can be ranked by how far they "
            "are from their nulls. Some pairs are patched; run an analysis by itself for all.",
            *notes,
        ],
        said=SAID,
    )
