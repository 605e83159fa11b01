"""Activation patching between two prompts that a person types, or all labelled pairs of prompts.

Source: Meng et al. 2022, Locating and Editing Factual Associations in GPT, section 2; Zhang and
Nanda 2024, Towards Best Practices of Activation Patching in Language Models.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from tbtt_interp.analyses.pairs import chosen_pairs
from tbtt_interp.analyses.patching import (
    answer_scores,
    locations_of,
    patched_scores,
    patching_table,
)
from tbtt_interp.errors import TbttError
from tbtt_interp.interventions import answer_logits
from tbtt_interp.prompts import PromptBatch
from tbtt_interp.runs import Run, load_run
from tbtt_interp.seeds import Models
from tbtt_interp.tasks import Prompts, TokenizerEncoder, Vocabulary

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

    from tbtt_interp.seeds import ModelsLike

Texts = str | Sequence[str]


def activation_patching(
    models: "ModelsLike", *, clean: Texts | None = None, corrupted: Texts | None = None,
    answers: tuple[str, str] | None = None, null: Texts | None = None,
    sites: Sequence[str] | None = None, encoder: Any = None, prompts: Prompts | None = None,
    n_pairs: int | None = None, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """How far one activation of the clean run restores the clean answer in the corrupted run.

    The answer is one token, and its score the clean answer's logit minus the corrupted one's.
    Without `clean` and `corrupted`, labelled prompts are patched in all pairs that differ in one
    label, with two nulls and means over models: `patching_table`.

    Args:
        models: a run, a model, or several models.
        clean, corrupted: one prompt each, or as many of both; a pair has as many tokens.
        answers: the clean and the corrupted answer; None is what each model itself says next.
        null: other prompts of the same length to patch from; None is no null.
        sites: hook names; None is the residual stream, what is added to it, and each head.
        encoder: a tokenizer of any library, for models without one.
        prompts: labelled, as in `Models.of`; None is the run's own.
        n_pairs, seed: how many of the labelled pairs, drawn at random; None is all.
    Returns:
        One row per model, site, head, position (-1 is the last; missing is all of them) and pair:
        `effect`, the change of the score in nats; `total_effect`, clean minus corrupted;
        `fraction_restored`; and `null_fraction`, the same for patches from `null`.

    >>> from tbtt_interp import load_run
    >>> table = activation_patching(load_run("arithmetic-small-line").model(), clean="<3+4=",
    ...                             corrupted="<3+5=", sites=["blocks.0.hook_resid_pre"])
    >>> table.set_index("pos")["fraction_restored"][-2].item()
    1.0
    """
    if clean is None and corrupted is None:
        chosen = Models.of(models, prompts=prompts, encoder=encoder)
        pairs = chosen_pairs(chosen, count=n_pairs, seed=seed)
        return patching_table(chosen, pairs, sites=sites, seed=seed)
    if clean is None or corrupted is None:
        raise TbttError("clean and corrupted go together: give both, or neither for all pairs")
    sources, bases = _listed(clean), _listed(corrupted)
    others = None if null is None else _listed(null)
    if not len(sources) == len(bases) == len(bases if others is None else others) > 0:
        raise TbttError("clean, corrupted and null need equally many prompts, and at least one")
    if isinstance(models, Models) and encoder is None:
        encoder = models.shared_prompts.vocabulary
    if encoder is not None and not isinstance(encoder, Vocabulary | TokenizerEncoder):
        encoder = TokenizerEncoder(encoder)
    rows = []
    for number, model in enumerate(_models(models)):
        for k, (source, base) in enumerate(zip(sources, bases, strict=True)):
            texts = [source, base, *([] if others is None else [others[k]])]
            found = _patched(model, texts, answers, sites, encoder)
            rows += [{"model": number, "clean": source, "corrupted": base, **row} for row in found]
    return pd.DataFrame(rows)


def _listed(texts: Texts) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _models(given: "ModelsLike") -> "list[HookedTransformer]":
    given = load_run(given) if isinstance(given, str | Path) else given
    if isinstance(given, Models | Run):
        return list(Models.of(given).models)
    return [given] if isinstance(given, torch.nn.Module) else list(given)


def _patched(
    model: "HookedTransformer", texts: list[str], answers: tuple[str, str] | None,
    sites: Sequence[str] | None, encoder: Any,
) -> list[dict[str, object]]:  # fmt: skip
    """The rows of one model and pair; the texts are the clean one, the corrupted, and a null."""
    tokens = [_tokens(model, text, encoder) for text in texts]
    for text, one in zip(texts, tokens, strict=True):
        if len(one) != len(tokens[0]):
            raise TbttError(
                f"{texts[0]!r} has {len(tokens[0])} tokens and {text!r} {len(one)}: patching goes "
                "position by position, so give prompts with as many tokens"
            )
    if answers is None:
        with torch.no_grad():
            said = model(torch.tensor(tokens[:2]))[:, -1].argmax(-1).tolist()
    else:
        said = [_tokens(model, answer, encoder, begins=False)[0] for answer in answers]
    if said[0] == said[1]:
        raise TbttError(
            f"both {texts[0]!r} and {texts[1]!r} have the same answer, so there is nothing to "
            "restore: give answers=(CLEAN, CORRUPTED), or other prompts"
        )
    clean, corrupted, *others = (PromptBatch.of_tokens([(t, said[:1])], model.cfg.n_ctx)
                                 for t in tokens)  # fmt: skip

    def score(logits: Tensor) -> Tensor:
        return answer_scores(logits, *(torch.tensor([token]) for token in said))[0, 0]

    before, after = (score(answer_logits(model, batch)) for batch in (corrupted, clean))
    total = float(after - before)
    locations = locations_of(model, corrupted, sites)
    effects, *nulls = (patched_scores(model, corrupted, batch, locations, score) - before
                       for batch in (clean, *others))  # fmt: skip
    return [
        {"site": at.hook, "head": at.head, "pos": at.pos, "effect": float(effects[k]),
         "total_effect": total, "fraction_restored": float(effects[k]) / total,
         "null_fraction": float(nulls[0][k]) / total if nulls else None}
        for k, at in enumerate(locations)
    ]  # fmt: skip


def _tokens(
    model: "HookedTransformer", text: str, encoder: Any, *, begins: bool = True
) -> list[int]:
    """A text's tokens, with the model's token for a beginning where it has one."""
    if encoder is not None:
        tokens = encoder.encode(text)
    elif model.tokenizer is None:
        raise TbttError("this model has no tokenizer: give encoder=, such as a Vocabulary")
    else:
        prepend = model.cfg.default_prepend_bos if begins else False
        tokens = model.to_tokens(text, prepend_bos=prepend, truncate=False)[0].tolist()
    if not 0 < len(tokens) <= model.cfg.n_ctx:
        raise TbttError(f"{text!r} has {len(tokens)} tokens: give 1 to {model.cfg.n_ctx}")
    return tokens
