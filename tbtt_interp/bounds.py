"""Limits of what files and flags may ask for, so that a small file never takes the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

from tbtt_interp.errors import TbttError, brief, is_folder_name, unknown

FRAMINGS = ("file", "shuffled", "line", "aligned", "cut")
MODELS = 10_000  # side by side in one run
STEPS = 10**12
SEED = 2**33  # above every seed that recipes and sweeps give
SIZES = {
    "layers": 256, "heads": 1_024, "d_model": 16_384, "d_mlp": 65_536, "n_ctx": 8_192,
    "d_vocab": 65_536,
}  # fmt: skip
NUMBERS = 2**29  # parameters and attention masks of one model: 2 GB in float32
WINDOW = 1_024  # characters of context in training
CORPUS = 2**25  # bytes of a corpus's file
CELLS = 2**25  # of a table of lines or windows by characters: 270 MB
LOGITS = 2**24  # of one model's training step
JSON = 2**24  # bytes of a run's configuration or summary
PARAMETERS = 2**30  # of all models in training: 17 GB with gradients and moments


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raises a TbttError unless a value is a whole number from low to high.

    >>> check_whole("seeds", 10**9, 1, 100)
    Traceback (most recent call last):
    tbtt_interp.errors.TbttError: seeds must be at most 100, got 1000000000
    """
    if type(value) is not int:
        raise TbttError(f"{name} is {brief(value)}, must be a whole number")
    if value < low:
        raise TbttError(f"{name} must be at least {low:,}, got {brief(value)}")
    if value > high:
        raise TbttError(f"{name} must be at most {high:,}, got {brief(value)}")


def check_shape(sizes: Mapping[str, object]) -> None:
    """Raises a TbttError where a model's sizes are no sizes, or are too large together."""
    if strange := sizes.keys() - {*SIZES, "bias", "tied"}:
        raise unknown("size", min(map(str, strange)), [*SIZES, "bias", "tied"])
    for name, most in SIZES.items():
        check_whole(name, sizes.get(name), 1, most)
    layers, heads, d_model, d_mlp, n_ctx, d_vocab = (int(str(sizes[name])) for name in SIZES)
    for name in ("bias", "tied"):
        if type(sizes.get(name, False)) is not bool:
            raise TbttError(f"{name} is {brief(sizes[name])}, must be true or false")
    if d_model % heads:
        raise TbttError(
            f"d_model {d_model} does not divide into {heads} heads: give a multiple of the heads"
        )
    a_layer = 4 * d_model**2 + 2 * d_model * d_mlp + n_ctx**2
    if (numbers := layers * a_layer + (n_ctx + 2 * d_vocab) * d_model) > NUMBERS:
        raise TbttError(
            f"a model of {layers} layers, width {d_model:,}, MLP {d_mlp:,}, window {n_ctx:,} and "
            f"{d_vocab:,} tokens has {numbers:,} numbers, of which at most {NUMBERS:,} are "
            "allowed: make it smaller"
        )


def check_config(config: Mapping[str, Any]) -> None:
    """Raises a TbttError where a field of a run's configuration is no possible one.

    Lists are tuples here; the recipe is checked where it is used.
    """

    def check(name: str, is_possible: bool, allowed: str) -> None:
        if not is_possible:
            raise TbttError(f"{name} is {brief(config[name])}, must be {allowed}")

    def each(name: str, low: int, *, may_be_none: bool = False) -> None:
        values: Sequence[Any] = config[name]
        check(name, type(values) is tuple and len(values) == len(config["seeds"]),
              "a list with an entry per seed")  # fmt: skip
        for value in values:
            if not (may_be_none and value is None):
                check_whole(f"an entry of {name}", value, low, SEED)

    for name in ("task", "framing", "size", "vocabulary"):
        check(name, type(config[name]) is str, "a text")
    for name in ("shape", "environment", "versions"):
        check(name, isinstance(config[name], Mapping), "a table")
    check("recipe", config["recipe"] is None or isinstance(config["recipe"], Mapping), "a table")
    check("framing", config["framing"] in FRAMINGS, f"one of {', '.join(FRAMINGS)}")
    check("size", is_folder_name(config["size"]), "a word for folders' names")
    check_shape(config["shape"])
    characters, d_vocab = config["vocabulary"], config["shape"]["d_vocab"]
    check("vocabulary", len(set(characters)) == len(characters) == d_vocab,
          f"{d_vocab} different characters, as its shape says")  # fmt: skip
    check_whole("steps", config["steps"], 0, STEPS)
    check("seeds", 1 <= len(config["seeds"]) <= MODELS, f"a list of 1 to {MODELS:,}")
    each("seeds", 0)
    check("seeds", len(set(config["seeds"])) == len(config["seeds"]), "different numbers")
    each("order_seeds", 0, may_be_none=True)
    if config["answer_seeds"] is not None:
        each("answer_seeds", 0)
    pairs = config["held_out"]
    check("held_out", len(pairs) == len(config["seeds"]), "a list with a set of pairs per seed")
    for pair in (pair for of_seed in pairs for pair in of_seed):
        if len(pair) != 2:
            raise TbttError(f"held_out has {brief(pair)} that is no pair of operands")
        for operand in pair:
            check_whole("an operand of held_out", operand, -STEPS, STEPS)
