"""nanoGPT checkpoints as runs, and back: the same numbers under other names.

nanoGPT keeps each projection as a Linear's weight, output by input, with queries, keys and values
in one; HookedTransformer keeps input by output, and a head axis.
"""

import io
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tbtt_interp.errors import TbttError
from tbtt_interp.model import Parameters, Shape, one_model, parameter_shapes, stack_parameters
from tbtt_interp.runs import (
    Run,
    RunConfig,
    check_free,
    checkpoint_path,
    create_run,
    load_run,
    versions,
    write_json,
    write_tensors,
    write_whole,
)
from tbtt_interp.tasks import PUBLISHED_HELD_OUT, Task, Vocabulary, load_task
from tbtt_interp.tasks.arithmetic import Pair

COMPILED = "_orig_mod."  # the prefix of torch.compile
NAMES = {
    "embed.W_E": "transformer.wte.weight",
    "pos_embed.W_pos": "transformer.wpe.weight",
    "ln_final.w": "transformer.ln_f.weight",
    "ln_final.b": "transformer.ln_f.bias",
}
BLOCK_NAMES = {
    "ln1.w": "ln_1.weight",
    "ln1.b": "ln_1.bias",
    "attn.W_O": "attn.c_proj.weight",
    "attn.b_O": "attn.c_proj.bias",
    "ln2.w": "ln_2.weight",
    "ln2.b": "ln_2.bias",
    "mlp.W_in": "mlp.c_fc.weight",
    "mlp.b_in": "mlp.c_fc.bias",
    "mlp.W_out": "mlp.c_proj.weight",
    "mlp.b_out": "mlp.c_proj.bias",
}


def import_checkpoint(
    checkpoint: Path,
    task: str,
    out: Path,
    *,
    text: Path | None = None,
    held_out: Iterable[Pair] | None = None,
) -> Run:
    """A run of one model from a nanoGPT checkpoint.

    Args:
        task: what its answers are counted on; its characters are the vocabulary, sorted.
        text: the text that the model was trained on, if its characters are others.
        held_out: operand pairs that it was not trained on; None is the published {5, 7}.
    Raises:
        TbttError: if the file is no such checkpoint, would run code on loading, or does not fit the
            vocabulary; nothing is written then.
    """
    check_free(out)
    loaded_task = load_task(task, held_out=PUBLISHED_HELD_OUT if held_out is None else held_out)
    vocabulary = loaded_task.vocabulary if text is None else _vocabulary(text)
    if strange := sorted(set(loaded_task.vocabulary.characters) - set(vocabulary.characters)):
        raise TbttError(
            f"{text} lacks the characters {''.join(strange)!r} of task '{task}': "
            "give the text that the model was trained on"
        )
    state, arguments = read_nanogpt(checkpoint)
    shape = _shape(arguments, state, checkpoint)
    if shape.d_vocab != len(vocabulary):
        raise TbttError(
            f"{checkpoint} has {shape.d_vocab} tokens and task '{task}' {len(vocabulary)} "
            "characters: give the text it was trained on as --text FILE"
        )
    parameters = from_nanogpt(state, shape, checkpoint)
    parameters = {name: value.float() for name, value in parameters.items()}
    config = RunConfig(
        task=task,
        framing="file",
        size=f"L{shape.layers}H{shape.heads}D{shape.d_model}",
        shape=vars(shape),
        vocabulary=vocabulary.characters,
        seeds=(0,),
        held_out=(_held_out(loaded_task),),
        order_seeds=(None,),
        steps=int(arguments.get("iter_num", 0)),
        recipe=None,
        environment={"imported_from": checkpoint.name},
        versions=versions(),
    )
    run = create_run(out, config, loaded_task if loaded_task.order_is_given else None)
    write_tensors(checkpoint_path(out, config.steps), stack_parameters([parameters]))
    write_json(
        out / "summary.json", {"steps": config.steps, "seconds": 0.0, "seeds": [{"seed": 0}]}
    )
    return load_run(run.folder)


def export_checkpoint(
    run: Run, path: Path, *, seed: int | None = None, step: int | None = None
) -> None:
    """Writes one model of a run as a nanoGPT checkpoint (`model`, `model_args`)."""
    shape = run.shape
    if shape.d_mlp % shape.d_model:
        raise TbttError(
            f"nanoGPT's MLP is a whole multiple of the width, and {run.folder} has {shape.d_mlp} "
            f"for {shape.d_model}: it cannot be written for nanoGPT"
        )
    arguments = {
        "n_layer": shape.layers,
        "n_head": shape.heads,
        "n_embd": shape.d_model,
        "block_size": shape.n_ctx,
        "bias": shape.bias,
        "vocab_size": shape.d_vocab,
        "dropout": 0.0,
        "mlp_expansion": shape.d_mlp // shape.d_model,
    }
    at = max(run.checkpoints, default=0) if step is None else step
    state = to_nanogpt(one_model(run.parameters(step), run.place(seed)), shape)
    buffer = io.BytesIO()
    torch.save({"model": state, "model_args": arguments, "iter_num": at}, buffer)
    write_whole(path, buffer.getvalue())


def read_nanogpt(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's tensors and arguments, without running anything that it holds.

    Raises:
        TbttError: if it is not there, not a checkpoint, or would run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TbttError(
            f"{path} was refused: loading it would run code, or it is no torch checkpoint. "
            "Only tensors and plain values are read"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TbttError(f"{path} cannot be read as a torch checkpoint: {reason}") from error
    if not isinstance(content, dict) or not {"model", "model_args"} <= content.keys():
        raise TbttError(
            f"{path} is no nanoGPT checkpoint: it needs the entries model and model_args"
        )
    state = {name.removeprefix(COMPILED): tensor for name, tensor in content["model"].items()}
    return state, {**content["model_args"], "iter_num": content.get("iter_num", 0)}


def from_nanogpt(state: Mapping[str, Tensor], shape: Shape, source: object = "it") -> Parameters:
    """A nanoGPT model's parameters under HookedTransformer's names and shapes."""
    found: dict[str, Tensor] = {}
    try:
        for name in parameter_shapes(shape):
            found[name] = _from(name, state, shape)
    except KeyError as error:
        raise TbttError(f"{source} has no tensor {error}, which its model_args ask for") from error
    for name, size in parameter_shapes(shape).items():
        if tuple(found[name].shape) != size:
            raise TbttError(
                f"{source} has {name} of shape {tuple(found[name].shape)}, "
                f"its model_args say {size}"
            )
    head = state.get("lm_head.weight")
    if head is not None and not torch.equal(head, state[NAMES["embed.W_E"]]):
        raise TbttError(f"{source} has an output embedding of its own: only tied models are known")
    return found


def to_nanogpt(parameters: Parameters, shape: Shape) -> dict[str, Tensor]:
    """The inverse of `from_nanogpt`, exact to the bit."""
    state: dict[str, Tensor] = {}
    for name, value in parameters.items():
        layer, _, inner = name.removeprefix("blocks.").partition(".")
        if name in NAMES:
            state[NAMES[name]] = value.clone()
        elif inner in BLOCK_NAMES:
            state[f"transformer.h.{layer}.{BLOCK_NAMES[inner]}"] = _as_linear(inner, value).clone()
    for layer in range(shape.layers):
        block = f"blocks.{layer}.attn"
        weight = [rearrange(parameters[f"{block}.W_{r}"], "h d e -> (h e) d") for r in "QKV"]
        state[f"transformer.h.{layer}.attn.c_attn.weight"] = torch.cat(weight)
        if shape.bias:
            bias = [parameters[f"{block}.b_{r}"].flatten() for r in "QKV"]
            state[f"transformer.h.{layer}.attn.c_attn.bias"] = torch.cat(bias)
    state["lm_head.weight"] = state[NAMES["embed.W_E"]]
    return state


def _as_linear(inner: str, value: Tensor) -> Tensor:
    if inner == "attn.W_O":
        return rearrange(value, "h e d -> d (h e)").contiguous()
    return value.T.contiguous() if inner.startswith("mlp.W_") else value


def _from(name: str, state: Mapping[str, Tensor], shape: Shape) -> Tensor:
    if name in NAMES:
        return state[NAMES[name]].contiguous()
    layer, inner = name.removeprefix("blocks.").split(".", 1)
    block = f"transformer.h.{layer}"
    if inner in BLOCK_NAMES:
        value = state[f"{block}.{BLOCK_NAMES[inner]}"]
        if inner == "attn.W_O":
            value = rearrange(value, "d (h e) -> h e d", h=shape.heads)
        elif inner.startswith("mlp.W_"):
            value = value.T
        return value.contiguous()
    role = "QKV".index(inner[-1])
    if inner.startswith("attn.W_"):
        value = state[f"{block}.attn.c_attn.weight"].chunk(3)[role]
        return rearrange(value, "(h e) d -> h d e", h=shape.heads).contiguous()
    value = state[f"{block}.attn.c_attn.bias"].chunk(3)[role]
    return rearrange(value, "(h e) -> h e", h=shape.heads).contiguous()


def _shape(arguments: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> Shape:
    try:
        width = arguments["n_embd"]
        return Shape(
            layers=arguments["n_layer"],
            heads=arguments["n_head"],
            d_model=width,
            d_mlp=arguments.get("mlp_expansion", 4) * width,
            n_ctx=arguments["block_size"],
            d_vocab=arguments["vocab_size"],
            bias=bool(arguments.get("bias", "transformer.ln_f.bias" in state)),
        )
    except (KeyError, TypeError) as error:
        raise TbttError(f"{path} has model_args that name no model ({error})") from error


def _vocabulary(text: Path) -> Vocabulary:
    try:
        return Vocabulary.of([text.read_text(encoding="utf-8")])
    except (OSError, UnicodeDecodeError) as error:
        raise TbttError(f"text {text} cannot be read ({error})") from error


def _held_out(task: Task) -> tuple[tuple[int, int], ...]:
    operands = [(e.labels.get("a"), e.labels.get("b")) for e in task.examples if e.held_out]
    return tuple(
        sorted(
            {(a, b) for a, b in operands if isinstance(a, int) and isinstance(b, int) and a <= b}
        )
    )
