"""Activations at named sites, of every seed at once.

A site is a hook point by TransformerLens' name, such as `blocks.0.hook_resid_post`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.model import hooked_transformer, initial_parameters
from tbtt_interp.runs import Run
from tbtt_interp.tasks import Encoder

if TYPE_CHECKING:
    from transformer_lens import ActivationCache, HookedTransformer


@dataclass(frozen=True, kw_only=True)
class Activations:
    """Activations of several models by hook name, on the same texts, which are right-padded.

    Sites are `[seed, batch, pos, ...]`, and patterns `[seed, batch, head, query, key]`.
    """

    tokens: Int[Tensor, "batch pos"]
    lengths: Int[Tensor, " batch"]
    sites: Mapping[str, Float[Tensor, "seed batch ..."]]

    def __getitem__(self, site: str) -> Float[Tensor, "seed batch ..."]:
        if site not in self.sites:
            raise unknown_site(site, list(self.sites))
        return self.sites[site]


def site_names(model: "HookedTransformer") -> list[str]:
    """Every hook point that a forward pass of a model visits, in that order.

    >>> from tbtt_interp.model import Shape, hooked_transformer, initial_parameters
    >>> shape = Shape(layers=1, heads=1, d_model=14, d_mlp=14, n_ctx=9, d_vocab=17)
    >>> names = site_names(hooked_transformer(initial_parameters(shape, seed=0), shape))
    >>> names[:3], len(names)
    (['hook_embed', 'hook_pos_embed', 'blocks.0.hook_resid_pre'], 23)
    """
    with torch.no_grad():
        return list(model.run_with_cache(torch.zeros(1, 1, dtype=torch.long))[1])


def unknown_site(site: str, known: list[str]) -> TbttError:
    """The error for an unknown site, naming the nearest: there are too many sites to list."""
    near = get_close_matches(site, known, n=3, cutoff=0) if known else []
    nearest = f"the nearest are {listed(near)}; site_names() lists all" if near else "there is none"
    return TbttError(f"site '{site}' is not there: {nearest}")


def as_list(values: Any) -> list[Any]:
    """A site's name, or a position, or several of them, as a list.

    >>> as_list("hook_embed"), as_list((-2, -1))
    (['hook_embed'], [-2, -1])
    """
    return [values] if isinstance(values, str | int) else list(values)


def split_head(site: str) -> tuple[str, int | None]:
    """A site's hook name, and its head if the site ends in a number.

    >>> split_head("blocks.0.attn.hook_z.1"), split_head("hook_embed")
    (('blocks.0.attn.hook_z', 1), ('hook_embed', None))
    """
    name, _, last = site.rpartition(".")
    return (name, int(last)) if last.isdecimal() else (site, None)


def read_texts(
    texts: Sequence[str], vocabulary: Encoder, n_ctx: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, " batch"]]:
    """Texts as tokens, padded on the right, and their lengths in tokens.

    A text that is longer than the context loses its left end, as in nanoGPT.
    """
    if not texts or not all(texts):
        raise TbttError("there is no text, or an empty one: give prompts such as <3+4=")
    rows = [torch.tensor(vocabulary.encode(text)[-n_ctx:]) for text in texts]
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def record(
    models: Sequence["HookedTransformer"], tokens: Int[Tensor, "batch pos"], *,
    sites: Sequence[str] | None = None, lengths: Int[Tensor, " batch"] | None = None,
) -> Activations:  # fmt: skip
    """The activations of models of one shape on the same tokens; sites are hook names."""
    known = site_names(models[0])
    sites = known if sites is None else sites
    if strange := [site for site in sites if site not in known]:
        raise unknown_site(strange[0], known)
    caches = [cached(model, tokens, sites)[1] for model in models]
    if lengths is None:
        lengths = torch.full((len(tokens),), tokens.shape[1])
    stacked = {site: torch.stack([cache[site].cpu() for cache in caches]) for site in sites}
    return Activations(tokens=tokens, lengths=lengths, sites=stacked)


def cached(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], sites: Sequence[str]
) -> "tuple[Float[Tensor, 'batch pos d_vocab'], ActivationCache]":
    """A model's logits and its activations at some hooks, without gradients."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, names_filter=list(sites))
    return torch.as_tensor(logits), cache


def run_activations(
    run: Run, texts: Sequence[str] | None = None, *, sites: Sequence[str] | None = None,
    step: int | None = None,
) -> Activations:  # fmt: skip
    """The activations of every seed of a run, in the order of `run.seeds`.

    Args:
        texts: None is every prompt of the task with its answer.
        sites: hook names; None is all.
        step: of a kept checkpoint; None is the last.
    """
    task = run.tasks[0]
    texts = [e.prompt + e.answer for e in task.examples] if texts is None else texts
    tokens, lengths = read_texts(texts, task.vocabulary, run.shape.n_ctx)
    models = [run.model(seed, step) for seed in run.seeds]
    return record(models, tokens, sites=sites, lengths=lengths)


def untrained_models(run: Run) -> list["HookedTransformer"]:
    """Every seed's model at initialisation."""
    initial = (initial_parameters(run.shape, seed=seed) for seed in run.seeds)
    return [hooked_transformer(parameters, run.shape, run.tokenizer()) for parameters in initial]
