"""Every analysis by name, with the question it answers and the options that it takes.

An entry is a function `f(run, *, option=default) -> Result`. The first line of its docstring is its
question, the rest further examples beside `tbtt analyses NAME RUN`; an option's help is the text in
its `Annotated` type. The command line is made from that. To add an analysis, write its module and
one entry here; from outside the package, call `register_analysis`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from tbtt_interp.results import Result
    from tbtt_interp.runs import Run
    from tbtt_interp.seeds import Models

    Source = Run | Models
    Analysis = Callable[..., Result]

ANALYSES: "dict[str, Analysis]" = {}


def register_analysis(analysis: "Analysis", name: str | None = None) -> "Analysis":
    """The analysis, now known to the command line and to `overview`.

    Args:
        name: None is the function's own, with hyphens.
    Raises:
        TbttError: if another analysis has that name, or this one has no docstring.
    """
    name = analysis.__name__.replace("_", "-") if name is None else name
    if name in ANALYSES and ANALYSES[name] is not analysis:
        raise TbttError(f"there is an analysis '{name}' already: give another name")
    if not analysis.__doc__:
        raise TbttError(f"analysis '{name}' has no docstring: its first line is the question")
    ANALYSES[name] = analysis
    return analysis


PAIRS = "How many pairs, drawn at random. [all;"
Sites = Annotated[list[str] | None, "A hook point, repeatable. [all]"]


@register_analysis
def patching(
    run: "Source",
    *,
    clean: Annotated[str | None, "One pair alone: the clean prompt, as in 3+4."] = None,
    corrupted: Annotated[str | None, "Its corrupted prompt, as in 3+9."] = None,
    held_out: Annotated[str | None, "Only clean equations of a held-out pair, as in 5,7."] = None,
    pairs: Annotated[int | None, f"{PAIRS} 64 beyond a million parameters]"] = None,
    site: Sites = None,
) -> "Result":
    """Which activation, at which position, decides the answer when it is patched in?

    tbtt analyses patching runs/arithmetic-medium-file --clean "3+4" --corrupted "3+9"
    """
    from tbtt_interp.analyses.patching import analyse_patching

    return analyse_patching(
        run, clean=clean, corrupted=corrupted, held_out=held_out, n_pairs=pairs, sites=site
    )


@register_analysis
def paths(
    run: "Source",
    *,
    pairs: Annotated[int | None, f"{PAIRS} 16 beyond a million parameters]"] = None,
) -> "Result":
    """Along which edges and paths does a difference reach the answer, and which suffice?"""
    from tbtt_interp.analyses.path_patching import analyse_paths

    return analyse_paths(run, n_pairs=pairs)


@register_analysis
def attention(run: "Source") -> "Result":
    """Where do heads attend, and what does the answer lose without it?"""
    from tbtt_interp.analyses.attention import analyse_attention

    return analyse_attention(run)


@register_analysis
def attribution(run: "Source") -> "Result":
    """Which parts write the answer, and from which stream on can it be read?"""
    from tbtt_interp.analyses.attribution import analyse_attribution

    return analyse_attribution(run)


@register_analysis
def geometry(
    run: "Source",
    *others: "Source",
    dimensions: Annotated[int, "Compare wider models in random projections of this width."] = 14,
) -> "Result":
    """How are operands represented: as a number line, in circles, the same for both?

    tbtt analyses geometry runs/arithmetic-medium-file runs/arithmetic-large-file --out out/
    """
    from tbtt_interp.analyses.geometry import analyse_geometry

    return analyse_geometry(run, *others, dimensions=dimensions)


@register_analysis
def additivity(
    run: "Source",
    *,
    site: Annotated[
        list[str] | None,
        "A hook point, with .0 behind for its first head, or logits; repeatable. "
        "[z, streams and MLPs of each layer, and logits]",
    ] = None,
    position: Annotated[
        list[int] | None, "Counted from the prompt's last token, -1; repeatable. [-1]"
    ] = None,
) -> "Result":
    """A rule or a table: how much of each activation is f(a) + g(b), and is that enough?

    tbtt analyses additivity runs/arithmetic-medium-file --position -2 --position -1 --out out/
    """
    from tbtt_interp.analyses.additivity import analyse_additivity

    return analyse_additivity(run, sites=site, positions=position or (-1,))


@register_analysis
def order(run: "Source", *, site: Sites = None) -> "Result":
    """Which line follows which: how much of the file's order is memorized, and what does it do?

    tbtt analyses order runs/arithmetic-large-file --site blocks.0.attn.hook_z
    """
    from tbtt_interp.analyses.line_order import analyse_order

    return analyse_order(run, sites=site)


@register_analysis
def memorization(
    run: "Source",
    *,
    site: Annotated[
        str | None, "Where a rule's directions are kept or left out. [the last hook_resid_mid]"
    ] = None,
) -> "Result":
    """How much is memorized: bits stored, and the loss with and without a rule's directions?"""
    from tbtt_interp.analyses.memorization import analyse_memorization

    return analyse_memorization(run, site=site)


@register_analysis
def das(
    run: "Source",
    *,
    variable: Annotated[list[str] | None, "As a, b, answer or carry; repeatable. [all]"] = None,
    site: Annotated[list[str] | None, "A hook point, repeatable. [residual streams]"] = None,
    position: Annotated[
        list[int] | None,
        "Counted from the prompt's last token, -1; repeatable. [the operands' and -1]",
    ] = None,
    rank: Annotated[
        int | None, "Directions that are interchanged. [by the variable's values]"
    ] = None,
) -> "Result":
    """Which directions carry an operand, the answer or the carry (distributed alignment search)?

    tbtt analyses das runs/arithmetic-medium-file --variable answer --rank 1
    """
    from tbtt_interp.probes.das import analyse_das

    return analyse_das(run, variable, sites=site, positions=position, rank=rank)


@register_analysis
def overview(run: "Source") -> "Result":
    """What does every analysis find, at quick settings, ranked by distance from the null?"""
    from tbtt_interp.analyses.overview import analyse_overview

    return analyse_overview(run)
