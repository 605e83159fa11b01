"""The codes of operands: what stands for each value, in the embeddings and at a prompt's end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from tbtt_interp.activations import read_texts, record
from tbtt_interp.analyses.codes import centred
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.errors import TbttError

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

FEWEST = 4  # values of which order means anything
EMBEDDINGS = "hook_embed"
SITES = ("hook_attn_out", "hook_resid_mid", "hook_resid_post")


class Name(NamedTuple):
    """Which code: of an operand under an operator, at a site; of the embeddings, under none."""

    site: str
    operator: str
    operand: str

    def __str__(self) -> str:
        return f"{self.operand} of a{self.operator}b" if self.operator else self.operand


@dataclass(frozen=True, kw_only=True)
class Code:
    """A vector for each value of an operand.

    Attributes:
        share: of the variance over all prompts of the operator, what this code makes; nan of the
            embeddings. The rest is the other operand's, and what only both together decide.
        chance: what the share is on average where activations have nothing to do with operands.
    """

    values: Float[np.ndarray, " value"]
    vectors: Float[np.ndarray, "value d"]
    share: float = np.nan
    chance: float = np.nan


def operand_codes(subject: Subject, model: "HookedTransformer") -> dict[Name, Code]:
    """The embeddings of the values, where each is one token, and what each adds at a prompt's end.

    The latter is the mean over the other operand at the prompt's last position, in what attention
    writes and in the streams of each layer; over all prompts, held out or not.

    Raises:
        TbttError: if there is no grid of operands, or an operand has no values with an order.
    """
    grid = subject.grid()
    values = sorted({v for operands in grid.values() for some in operands for v in some}, key=str)
    if min(len(some) for operands in grid.values() for some in operands) < FEWEST or not all(
        isinstance(value, int | float) for value in values
    ):
        raise TbttError(
            f"the operands here have no order to speak of: geometry needs {FEWEST} numbers at "
            "least as values of a and of b"
        )
    values = sorted(values)
    found: dict[Name, Code] = {}
    tokens = [subject.vocabulary.encode(str(value)) for value in values]
    if all(len(token) == 1 for token in tokens):
        rows = model.W_E[[token[0] for token in tokens]].detach().double().cpu().numpy()
        found[Name(EMBEDDINGS, "", "digits")] = Code(values=np.array(values, float), vectors=rows)
    examples = [e for e in subject.examples if e.labels.get("operator") in grid]
    place = {tuple(e.labels[k] for k in ("operator", "a", "b")): n for n, e in enumerate(examples)}
    texts, lengths = read_texts([e.prompt for e in examples], subject.vocabulary, subject.n_ctx)
    names = [f"blocks.{layer}.{site}" for layer in range(subject.layers) for site in SITES]
    names = [name for name in names if name in model.hook_dict]
    held = record([model], texts, sites=names, lengths=lengths)
    for site in names:
        last = held[site][0, range(len(examples)), lengths - 1].double().numpy()
        for operator, (a, b) in grid.items():
            x = centred(last[[place[operator, i, j] for i in a for j in b]])
            over = x.reshape(len(a), len(b), -1)
            for operand, some, axis in (("a", a, 1), ("b", b, 0)):
                vectors = over.mean(axis)
                made, of = over.shape[axis] * (vectors**2).sum(), (x**2).sum()
                found[Name(site, operator, operand)] = Code(
                    values=np.array(some, float), vectors=vectors,
                    share=float(made / of) if of else np.nan,
                    chance=(len(some) - 1) / (len(x) - 1),
                )  # fmt: skip
    return found
