"""What a causal model answers when a variable of one prompt is put into another, and such pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from tbtt_interp.activations import as_list
from tbtt_interp.errors import TbttError, unknown
from tbtt_interp.probes.features import is_built_in
from tbtt_interp.probes.labels import operand_grid, pair_groups
from tbtt_interp.prompts import PromptSet
from tbtt_interp.tasks import Example

TRAINED = 2 / 3  # share of the pairs of operands whose equations are learned from
STRICT = 0.05  # least share of pairs whose counterfactual answer is the variable's alone
DAS, PERMUTED = "DAS", "permuted_labels"

Counterfactuals = Int[np.ndarray, "base source"]


def counterfactuals(prompts: PromptSet) -> dict[str, Counterfactuals]:
    """By variable, the first answer token of each base with the variable of each source.

    Variables are the operands, the answer and, of sums, the carry. -1 where the counterfactual is
    held out, or not known.

    Raises:
        TbttError: if the prompts do not spell out a complete grid of labelled operands.
    """
    examples = prompts.examples
    names, operands = operand_grid(examples)
    if not names:
        raise TbttError(
            "DAS needs prompts that spell out labelled operands, every value of one with every "
            "value of the other, as the task arithmetic has them"
        )
    first = prompts.batch().first_tokens().answer_token.numpy()
    known = np.where(prompts.held_out, -1, first)
    keys = [tuple(e.labels[name] for name in names) for e in examples]
    number, found = {key: k for k, key in enumerate(keys)}, {}
    for name in operands:
        at = names.index(name)
        found[name] = np.array([
            [known[number[base[:at] + source[at : at + 1] + base[at + 1 :]]] for source in keys]
            for base in keys
        ])  # fmt: skip
    found["answer"] = np.tile(first, (len(examples), 1))
    if all(is_built_in(e) and "value" in e.labels for e in examples):
        values: dict[tuple[Any, Any], set[int]] = {
            (e.labels["operator"], e.labels["value"]): set() for e in examples
        }
        for e, token in zip(examples, first, strict=True):
            values[e.labels["operator"], e.labels["value"]].add(int(token))
        if all(len(tokens) == 1 for tokens in values.values()):  # answers are the sums
            found["carry"] = np.array(
                [[_carried(base, source, values) for source in examples] for base in examples]
            )
    return found


def _carried(base: Example, source: Example, tokens: dict[tuple[Any, Any], set[int]]) -> int:
    """The first token of the base's units with the source's carry; -1 where no sum is that."""
    if not ("carry" in base.labels and "carry" in source.labels):
        return -1
    value = int(base.labels["units"]) + 10 * int(source.labels["carry"])
    return min(tokens.get(("+", value), {-1}))


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """A causal variable, or one permutation of it, with the pairs to learn and to score it on."""

    variable: str
    kind: str  # DAS or PERMUTED
    rank: int
    target: Counterfactuals
    values: Int[np.ndarray, " example"]  # of the variable, by number; -1 where there is none
    learned: Bool[np.ndarray, " example"]  # which examples training pairs are of
    train: Int[np.ndarray, "pair 2"]  # base and source
    test: Int[np.ndarray, "tested 2"]


def alignments(
    prompts: PromptSet, width: int, *, variables: Any = None, rank: int | None = None,
    has_null: bool = True, seed: int = 0,
) -> list[Alignment]:  # fmt: skip
    """Each variable, and with a null its permuted labels; those that change no answer are left out.

    Args:
        rank: None is one less than the variable's values, and at most half the width.
    """
    generator, every = prompts.random(seed, 0xDA5), counterfactuals(prompts)
    chosen = list(every) if variables is None else as_list(variables)
    if strange := [name for name in chosen if name not in every]:
        raise unknown("variable", strange[0], every)
    group = pair_groups(prompts.examples)
    learned = generator.permutation(group.max() + 1)[group] < TRAINED * (group.max() + 1)
    parts = [learned & prompts.seen, ~learned & prompts.seen]
    order = np.arange(len(group))
    for part in parts:
        order[part] = generator.permutation(order[part])
    first, found = every["answer"][0], []
    for name in chosen:
        labels = [token if name == "answer" else e.labels.get(name, "none")
                  for e, token in zip(prompts.examples, first.tolist(), strict=True)]  # fmt: skip
        kinds = sorted({*labels} - {"none"}, key=str)
        values = np.array([-1 if label == "none" else kinds.index(label) for label in labels])
        size = min(len(kinds) - 1, width // 2) if rank is None else min(rank, width)
        others = [of for of in every.values() if (of != every[name]).any()]
        for kind, source in ((DAS, np.arange(len(group))), (PERMUTED, order))[: 1 + has_null]:
            target, rivals = every[name][:, source], [of[:, source] for of in others]
            train, test = (_pairs(target, first, rivals, part, generator) for part in parts)
            if len(train) and len(test):
                found.append(Alignment(
                    variable=name, kind=kind, rank=max(1, size), target=target, train=train,
                    test=test, values=values[source], learned=parts[0],
                ))  # fmt: skip
    return found


def _pairs(
    target: Counterfactuals, first: Int[np.ndarray, " example"], rivals: Sequence[Counterfactuals],
    part: Bool[np.ndarray, " example"], generator: np.random.Generator,
) -> Int[np.ndarray, "pair 2"]:  # fmt: skip
    """Pairs within a part of the examples, shuffled, that tell a variable from all others.

    Their counterfactual answer is not the base's. Nor is it that of another variable, such as the
    source's answer, unless there are too few such pairs.
    """
    is_other = (target >= 0) & (target != first[:, None]) & part & part[:, None]
    is_strict = is_other & np.all([target != rival for rival in rivals], axis=0)
    chosen = is_strict if is_strict.sum() > STRICT * is_other.sum() else is_other
    return generator.permutation(np.argwhere(chosen))
