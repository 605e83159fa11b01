"""Inputs from Hypothesis: recipes, corpora, config.json, safetensors headers and prompts."""

import json
from collections.abc import Callable
from typing import Any

from faults.attack import HUGE, Attack
from faults.commands import command
from faults.run_folders import GOOD, TENSORS, config_of, read_run, tensor_file
from faults.texts import corpus, toml
from hypothesis import strategies as st

from tbtt_interp.tasks import FRAMINGS
from tbtt_interp.train.recipe import SCHEMA

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([0, 1, 2, -1, HUGE, 2**63, 10**30, "..", "../x", "\x1b[2J", "arithmetic"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return {"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan", "null": '""'}.get(
        text := json.dumps(value), text)  # fmt: skip


def fuzz_recipe(pairs: list[tuple[str, Any]]) -> Attack:
    return toml("\n".join(f"{key} = {as_toml(value)}" for key, value in dict(pairs).items()))


def fuzz_config(change: dict[str, Any]) -> Attack:
    return lambda: (config_of(change), read_run(GOOD))


def fuzz_header(given: tuple[dict[str, Any], bytes]) -> Attack:
    return lambda: ((GOOD / TENSORS).write_bytes(tensor_file(*given)), read_run(GOOD))


CHARACTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ROWS = st.lists(st.lists(CHARACTERS | st.sampled_from(["true", "1", ""]), min_size=2, max_size=4),
                max_size=8)  # fmt: skip
TABLES = ROWS.map(lambda rows: "\n".join("\t".join(row) for row in [["prompt", "answer"], *rows]))
CORPORA = st.tuples(st.just(".txt"), CHARACTERS | st.lists(CHARACTERS).map("\n".join),
                    st.sampled_from(FRAMINGS)) | st.tuples(
    st.sampled_from([".tsv", ".csv"]), TABLES | CHARACTERS, st.sampled_from(FRAMINGS))  # fmt: skip
FIELDS = st.sampled_from([
    "task", "framing", "size", "shape", "vocabulary", "seeds", "held_out", "order_seeds", "steps",
    "recipe", "environment", "versions", "answer_seeds", "other"])  # fmt: skip
ENTRY = st.fixed_dictionaries({
    "dtype": st.sampled_from(["F32", "F64", "I64", "C64", "BF16", "F8_E4M3", "x"]) | VALUES,
    "shape": st.lists(st.integers(-1, 2**64), max_size=4) | VALUES,
    "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3) | VALUES,
})  # fmt: skip
NAMES = st.sampled_from(["embed.W_E", "pos_embed.W_pos", "ln_final.w", "__metadata__", "x"])
FUZZED: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Attack]]] = {
    "recipes": (st.lists(st.tuples(st.sampled_from(sorted(SCHEMA)), VALUES), max_size=4),
                fuzz_recipe),
    "corpora": (CORPORA, lambda given: corpus(*given)),
    "config.json": (st.dictionaries(FIELDS, VALUES, max_size=3), fuzz_config),
    "safetensors headers": (
        st.tuples(st.dictionaries(NAMES, ENTRY | VALUES, max_size=3), st.binary(max_size=64)),
        fuzz_header),
    "prompts": (st.text(max_size=60), lambda prompt: command("ask", str(GOOD), "--", prompt)),
}  # fmt: skip
