"""Models as folders of GPT2LMHeadModel, which transformers and transformers.js load, and back.

A folder has the weights as safetensors, a character tokenizer and a generation config. What
transformers does not ask for (task, held-out pairs, step) stands in config.json, "tbtt_interp".
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tbtt_interp import files
from tbtt_interp.bounds import NUMBERS, SEED, STEPS, check_shape, check_whole
from tbtt_interp.errors import TbttError, brief
from tbtt_interp.integrity import read_json
from tbtt_interp.model import (
    EPSILON,
    Parameters,
    Shape,
    is_bias,
    one_model,
    parameter_shapes,
    stack_parameters,
)
from tbtt_interp.nanogpt import HEAD, MASKS, from_nanogpt, imported_run, to_nanogpt
from tbtt_interp.pretrained.card import gpt2_card
from tbtt_interp.runs import Run, RunConfig, check_free
from tbtt_interp.tasks import PUBLISHED_HELD_OUT, TASKS, Task, load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.tasks.corpus import read_corpus, write_corpus
from tbtt_interp.versions import versions

WEIGHTS, OWN = "model.safetensors", "tbtt_interp"
SIZES = {
    "n_layer": "layers", "n_head": "heads", "n_embd": "d_model", "n_inner": "d_mlp",
    "n_positions": "n_ctx", "vocab_size": "d_vocab",
}  # fmt: skip
KIND = {
    "model_type": "gpt2", "activation_function": "gelu", "layer_norm_epsilon": EPSILON,
    "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}  # fmt: skip
IMPLIED = KIND | {"activation_function": "gelu_new", "tie_word_embeddings": True}  # by GPT2Config
UNSAID = {"task": None, "framing": "file", "size": "gpt2", "seed": 0, "step": 0, "held_out": (),
          "order_seed": None, "answer_seed": None, "bias": False}  # fmt: skip
WITH_BIAS = re.compile(r".*\.(ln_\w+|c_\w+)\.weight")
INPUT_FIRST = re.compile(r".*\.(c_attn|c_proj|c_fc)\.weight")  # a Linear's has output by input


def export_huggingface(
    run: Run, out: Path, *, seeds: Sequence[int] | None = None, steps: Sequence[int] | None = None
) -> list[Path]:
    """The folders of a run's models for transformers, with a model card, all or none.

    Args:
        out: a new folder, which gets one folder per seed: `seed-0`, or `seed-0/step-000250` where
            several steps are asked for.
        seeds: None is every seed that did not diverge.
        steps: of kept checkpoints; None is the last.
    """
    check_free(out)
    steps = [max(run.checkpoints, default=0)] if steps is None else list(steps)
    seeds = run.sound_seeds(steps[-1]) if seeds is None else list(seeds)
    places = {
        f"seed-{seed}" + f"/step-{step:06d}" * (len(steps) > 1): (seed, step)
        for seed in seeds for step in steps
    }  # fmt: skip

    def fill(draft: Path) -> None:
        stacked = {step: run.parameters(step) for step in steps}
        for place, (seed, step) in places.items():
            parameters = one_model(stacked[step], run.seed_index(seed))
            _write_model(draft / place, run, seed, step, parameters)
        if run.tasks[0].order_is_given:
            write_corpus(run.tasks[0], draft / "corpus.tsv")
        card = gpt2_card(run, out.name, list(places))
        files.write_whole(draft / "README.md", card.encode())

    files.write_folder(out, fill)
    return [out / place for place in places]


def _write_model(folder: Path, run: Run, seed: int, step: int, parameters: Parameters) -> None:
    from safetensors.torch import save

    folder.mkdir(parents=True)
    k, config, shape, tokenizer = run.seed_index(seed), run.config, run.shape, run.tokenizer()
    task, end = run.tasks[k], tokenizer.eos_token_id
    ends = sorted(task.vocabulary.encode("".join(task.terminators)))
    special = {"bos_token_id": None, "eos_token_id": ends if len(ends) > 1 else end,
               "pad_token_id": end}  # fmt: skip
    origin = {
        "task": config.task, "framing": config.framing, "size": config.size, "seed": seed,
        "step": step, "held_out": config.held_out[k], "order_seed": config.order_seeds[k],
        "answer_seed": config.answer_seeds and config.answer_seeds[k], "bias": shape.bias,
    }  # fmt: skip
    longest = max(len(example.answer) for example in task.examples)
    tables = {
        "config": {
            "architectures": ["GPT2LMHeadModel"], **KIND,
            **{name: getattr(shape, ours) for name, ours in SIZES.items()},
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "dtype": "float32",
            "attn_implementation": "eager",  # sums in our order: in float32, too, the same logits
            "tie_word_embeddings": shape.tied, **special, OWN: origin,
        },
        "generation_config": {"do_sample": False, "max_new_tokens": longest, **special},
        "tokenizer": json.loads(tokenizer.backend_tokenizer.to_str()),
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": shape.n_ctx,
            "eos_token": tokenizer.eos_token, "pad_token": tokenizer.eos_token,
            "padding_side": "left", "truncation_side": "left",
            "clean_up_tokenization_spaces": False,
        },
    }  # fmt: skip
    for name, table in tables.items():
        files.write_json(folder / f"{name}.json", table)
    files.write_whole(folder / WEIGHTS, save(to_gpt2(parameters, shape), {"format": "pt"}))


def to_gpt2(parameters: Parameters, shape: Shape) -> dict[str, Tensor]:
    """A model's parameters as GPT2LMHeadModel has them, with zeros for biases that are not there.

    >>> from tbtt_interp.model import initial_parameters
    >>> shape = Shape(layers=1, heads=1, d_model=14, d_mlp=28, n_ctx=9, d_vocab=17)
    >>> to_gpt2(initial_parameters(shape, seed=0), shape)["transformer.h.0.mlp.c_fc.weight"].shape
    torch.Size([14, 28])
    """
    state = to_nanogpt(parameters, replace(shape, tied=True))
    del state[HEAD]
    for name, value in list(state.items()):
        if INPUT_FIRST.fullmatch(name):
            state[name] = value.T.contiguous()
        if WITH_BIAS.fullmatch(name):
            state.setdefault(name.removesuffix("weight") + "bias", value.new_zeros(len(value)))
    return state if shape.tied else state | {HEAD: parameters["unembed.W_U"].T.contiguous()}


def from_gpt2(state: Mapping[str, Tensor], shape: Shape, source: object) -> Parameters:
    """The inverse of `to_gpt2`, exact to the bit."""
    theirs = {
        name: value.T if INPUT_FIRST.fullmatch(name) else value
        for name, value in state.items()
        if name != HEAD and (shape.bias or not name.endswith(".bias"))
    }
    parameters = from_nanogpt(theirs, replace(shape, tied=True), source)
    return parameters if shape.tied else parameters | {"unembed.W_U": state[HEAD].T.contiguous()}


class _Model(NamedTuple):
    """A folder of one model, read and checked."""

    folder: Path
    shape: Shape
    vocabulary: str
    origin: Mapping[str, Any]
    parameters: Parameters


def import_huggingface(
    folder: Path, out: Path, *, task: str | None = None,
    held_out: Iterable[Pair] = PUBLISHED_HELD_OUT,
) -> Run:  # fmt: skip
    """A run from a folder of GPT2LMHeadModel, of one model or one per seed, whole or not at all.

    Only JSON, safetensors and a corpus are read.

    Args:
        task: the task that the models are evaluated on; None is the one that they name.
        held_out: its pairs that were not trained on, where a task is given.
    Raises:
        TbttError: if the models are no GPT-2 of characters with exact GELU, or differ in shape.
    """
    check_free(out)
    found = [path for below in ("", "seed-*/", "seed-*/step-*/")
             for path in sorted(folder.glob(below + WEIGHTS))]  # fmt: skip
    if not found:
        what = f"{folder} has no {WEIGHTS}, nor has a folder seed-* in it"
        raise TbttError(f"{what}: give a folder that save_pretrained or tbtt export wrote")
    size = sum(path.stat().st_size for path in found)
    check_whole(f"the size of the models in {folder}, in bytes,", size, 0, 4 * NUMBERS)
    models = {}
    for model in (_read_model(path.parent) for path in found):
        models[model.origin["seed"], model.origin["step"]] = model
    seeds, steps = ([*dict.fromkeys(place[k] for place in models)] for k in (0, 1))
    if not len(found) == len(models) == len(seeds) * len(steps):
        raise TbttError(f"{folder} has not one model per seed and step: import them one by one")
    first, last = models[seeds[0], steps[0]], max(steps)
    for other in models.values():
        same = [(m.shape, m.vocabulary, *map(m.origin.get, ("task", "framing", "size")))
                for m in (first, other)]  # fmt: skip
        if same[0] != same[1]:
            what = f"{first.folder} and {other.folder} differ in shape, characters or task"
            raise TbttError(f"{what}: import them one by one")
    origins = [models[seed, last].origin for seed in seeds]
    answers = tuple(origin["answer_seed"] for origin in origins)
    try:
        pairs = [tuple(held_out) if task else tuple(map(tuple, o["held_out"])) for o in origins]
        config = RunConfig(
            task=task or str(first.origin["task"]), framing=first.origin["framing"],
            size=first.origin["size"], shape=vars(first.shape), vocabulary=first.vocabulary,
            seeds=tuple(seeds), held_out=tuple(pairs), steps=last, recipe=None,
            order_seeds=tuple(origin["order_seed"] for origin in origins),
            environment={"imported_from": folder.name}, versions=versions(),
            answer_seeds=None if task or None in answers else answers,
        )  # fmt: skip
    except (TypeError, TbttError) as error:
        raise TbttError(f"{first.folder / 'config.json'} names no models of ours ({error}): give "
                        "--task, or export them again") from error  # fmt: skip
    stacked = {step: stack_parameters([models[seed, step].parameters for seed in seeds])
               for step in steps}  # fmt: skip
    task_of_models = _task(folder, config, is_given=task is not None)
    return imported_run(out, config, task_of_models, stacked)


def _task(folder: Path, config: RunConfig, *, is_given: bool) -> Task:
    """The task of imported models: a given one, the corpus beside them, or one known by name."""
    if not is_given and (corpus := folder / "corpus.tsv").is_file():
        task = read_corpus(corpus)
    elif is_given or config.task in TASKS:
        task = load_task(config.task, held_out=config.held_out[0])
    else:
        what = f"{folder} does not say which known task its models are for"
        raise TbttError(f"{what}: give --task, a task's name or a text file")
    if strange := sorted({*task.vocabulary.characters} - {*config.vocabulary}):
        what = f"the tokenizer in {folder} lacks {''.join(strange)!r} of task '{config.task}'"
        raise TbttError(f"{what}: give the task that the models were trained on")
    return task


def _read_model(folder: Path) -> _Model:
    """One model; its tensors are read once their shapes are those that its config.json says."""
    path = folder / "config.json"
    _, table = read_json(path)
    config = IMPLIED | (table if isinstance(table, dict) else {})
    for name, own in KIND.items():
        if config[name] != own:
            what = f"{path} has {name} {brief(config[name])}, where these models have {own!r}"
            raise TbttError(f"{what}: give a model that tbtt export wrote, or one of its kind")
    said = config.get(OWN)
    origin = UNSAID | (said if isinstance(said, dict) else {})
    sizes: dict[str, Any] = {ours: config.get(name) for name, ours in SIZES.items()}
    if sizes["d_mlp"] is None and type(sizes["d_model"]) is int:
        sizes["d_mlp"] = 4 * sizes["d_model"]
    try:
        check_whole("seed", origin["seed"], 0, SEED)
        check_whole("step", origin["step"], 0, STEPS)
        sizes |= {"tied": config["tie_word_embeddings"], "bias": origin["bias"]}
        check_shape(sizes)
        shape = Shape(**sizes)
    except TbttError as error:
        raise TbttError(f"{path} names no model: {error}") from error
    vocabulary = _characters(folder / "tokenizer.json", shape.d_vocab)
    empty = {n: torch.empty(s, device="meta") for n, s in parameter_shapes(shape).items()}
    expected = {name: tuple(value.shape) for name, value in to_gpt2(empty, shape).items()}
    stored = {name: size for name, size in files.stored_shapes(folder / WEIGHTS).items()
              if not name.endswith(MASKS)}  # fmt: skip
    for name in {**expected, **stored}:
        if (size := stored.get(name, "absent")) != (own := expected.get(name, "absent")):
            what = f"{folder / WEIGHTS} has {name} {size}, its config.json says {own}"
            raise TbttError(f"{what}: export it again")
    state = {n: x for n, x in files.read_tensors(folder / WEIGHTS).items() if n in expected}
    if not all(value.isfinite().all() for value in state.values()):
        what = f"{folder / WEIGHTS} has values that are not finite"
        raise TbttError(f"{what}: it diverged, so give another seed or an earlier step")
    if any(value.any() for name, value in state.items() if is_bias(name)):
        shape = replace(shape, bias=True)
    return _Model(folder, shape, vocabulary, origin, from_gpt2(state, shape, folder / WEIGHTS))


def _characters(path: Path, d_vocab: int) -> str:
    """The vocabulary of a tokenizer of characters."""
    _, table = read_json(path)
    model = table.get("model") if isinstance(table, dict) else None
    known = model.get("vocab") if isinstance(model, dict) and not model.get("merges") else None
    if isinstance(known, dict):
        characters = {number: text for text, number in known.items() if type(number) is int}
        text = "".join(characters.get(number, "") for number in range(d_vocab))
        if len(known) == len(text) == d_vocab and all(len(one) == 1 for one in known):
            return text
    what = f"{path} is no tokenizer of {d_vocab:,} single characters, as its config.json says"
    raise TbttError(f"{what}: give a model with a token per character, not of words or subwords")
