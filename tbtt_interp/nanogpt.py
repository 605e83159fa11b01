"""nanoGPT checkpoints as runs, and back: the same numbers under other names.

nanoGPT stores each projection as a Linear's weight, output by input, with queries, keys and values
in one tensor; HookedTransformer stores input by output, with a head axis.
"""

import io
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from tbtt_interp import files, runs
from tbtt_interp.bounds import SIZES, STEPS, check_whole
from tbtt_interp.errors import TbttError
from tbtt_interp.integrity import write_summary
from tbtt_interp.model import Parameters, Shape, one_model, parameter_shapes, stack_parameters
from tbtt_interp.runs import Run, RunConfig, check_free, create_run
from tbtt_interp.tasks import PUBLISHED_HELD_OUT, Task, Vocabulary, load_task
from tbtt_interp.tasks.arithmetic import Pair
from tbtt_interp.versions import versions

CODE = "loading it would run code, or it is no torch checkpoint"
PLAIN = "save it again with tensors and plain values alone (torch.save of model and model_args)"
KNOWN = re.compile(  # what the pickle of a checkpoint may name
    r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)"
)
PICKLE = 2**18  # bytes; GPT-2 medium with its optimizer has half of them
TRAINED = "give the model_args that it was trained with"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HEAD, TIED = "lm_head.weight", "transformer.wte.weight"  # one tensor in nanoGPT
ARGUMENTS = {
    "n_layer": "layers", "n_head": "heads", "n_embd": "d_model", "mlp_expansion": "d_mlp",
    "block_size": "n_ctx", "vocab_size": "d_vocab",
}  # fmt: skip
MASKS = (".attn.bias", ".attn.masked_bias")  # causal masks, without flash attention
COMPILED = "_orig_mod."  # torch.compile puts it before every name
SAME = "... -> ..."  # patterns of einops, from HookedTransformer to nanoGPT
NAMES = {
    "embed.W_E": (TIED, SAME), "pos_embed.W_pos": ("transformer.wpe.weight", SAME),
    "ln_final.w": ("transformer.ln_f.weight", SAME), "ln_final.b": ("transformer.ln_f.bias", SAME),
}  # fmt: skip
BLOCK_NAMES = {
    "ln1.w": ("ln_1.weight", SAME), "ln1.b": ("ln_1.bias", SAME),
    "ln2.w": ("ln_2.weight", SAME), "ln2.b": ("ln_2.bias", SAME),
    **{f"attn.W_{role}": ("attn.c_attn.weight", "h d e -> (h e) d") for role in "QKV"},
    **{f"attn.b_{role}": ("attn.c_attn.bias", "h e -> (h e)") for role in "QKV"},
    "attn.W_O": ("attn.c_proj.weight", "h e d -> d (h e)"), "attn.b_O": ("attn.c_proj.bias", SAME),
    "mlp.W_in": ("mlp.c_fc.weight", "d m -> m d"), "mlp.b_in": ("mlp.c_fc.bias", SAME),
    "mlp.W_out": ("mlp.c_proj.weight", "m d -> d m"), "mlp.b_out": ("mlp.c_proj.bias", SAME),
}  # fmt: skip


def import_checkpoint(
    checkpoint: Path, task: str, out: Path, *, text: Path | None = None,
    held_out: Iterable[Pair] = PUBLISHED_HELD_OUT,
) -> Run:  # fmt: skip
    """A run of one model from a nanoGPT checkpoint, whole or not at all.

    Args:
        task: the task that the model is evaluated on; its characters, sorted, are the vocabulary.
        text: the text that the model was trained on, if its characters differ from the task's.
    """
    check_free(out)
    loaded_task = load_task(task, held_out=held_out)
    vocabulary = loaded_task.vocabulary if text is None else _vocabulary(text)
    if strange := sorted(set(loaded_task.vocabulary.characters) - set(vocabulary.characters)):
        what = f"{text} lacks the characters {''.join(strange)!r} of task '{task}'"
        raise TbttError(f"{what}: give the text that the model was trained on")
    state, arguments = read_nanogpt(checkpoint)
    shape = _shape(arguments, state, checkpoint)
    if shape.d_vocab != len(vocabulary):
        raise TbttError(
            f"{checkpoint} has {shape.d_vocab} tokens and task '{task}' {len(vocabulary)} "
            "characters: give the text it was trained on as --text FILE, or its --task"
        )
    parameters = {n: x.float() for n, x in from_nanogpt(state, shape, checkpoint).items()}
    steps = arguments["iter_num"] if type(arguments["iter_num"]) is int else 0
    config = RunConfig(
        task=task, framing="file", size=f"L{shape.layers}H{shape.heads}D{shape.d_model}",
        shape=vars(shape), vocabulary=vocabulary.characters, seeds=(0,),
        held_out=(_held_out(loaded_task),), order_seeds=(None,), recipe=None,
        steps=min(max(steps, 0), STEPS),
        environment={"imported_from": checkpoint.name}, versions=versions(),
    )  # fmt: skip
    return imported_run(out, config, loaded_task, {config.steps: stack_parameters([parameters])})


def imported_run(
    folder: Path, config: RunConfig, task: Task, stacked: Mapping[int, Parameters]
) -> Run:
    """A complete run of models that were trained elsewhere, from their parameters by step."""

    def fill(draft: Path) -> None:
        for step, parameters in stacked.items():
            runs.write_checkpoint(draft, config, step, parameters)
        rows = [{"seed": seed} for seed in config.seeds]
        summary = {"steps": config.steps, "seconds": 0.0, "seeds": rows}
        write_summary(draft, summary, stacked[config.steps])

    return create_run(folder, config, task, fill)


def export_checkpoint(
    run: Run, path: Path, *, seed: int | None = None, step: int | None = None
) -> None:
    """Writes one model of a run as a nanoGPT checkpoint (`model`, `model_args`)."""
    shape = run.shape
    if not shape.tied:
        raise TbttError(
            f"nanoGPT ties its embeddings, and {run.folder} has two: it cannot be written for "
            "nanoGPT; give --to huggingface"
        )
    if shape.d_mlp % shape.d_model:
        raise TbttError(
            f"nanoGPT's MLP is a whole multiple of the width, and {run.folder} has {shape.d_mlp} "
            f"for {shape.d_model}: it cannot be written for nanoGPT; give --to huggingface"
        )
    arguments = {
        "n_layer": shape.layers, "n_head": shape.heads, "n_embd": shape.d_model,
        "block_size": shape.n_ctx, "bias": shape.bias, "vocab_size": shape.d_vocab,
        "dropout": 0.0, "mlp_expansion": shape.d_mlp // shape.d_model,
    }  # fmt: skip
    at = max(run.checkpoints, default=0) if step is None else step
    state = to_nanogpt(one_model(run.parameters(step), run.seed_index(seed)), shape)
    buffer = io.BytesIO()
    torch.save({"model": state, "model_args": arguments, "iter_num": at}, buffer)
    files.write_new(path, buffer.getvalue())


def read_nanogpt(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A checkpoint's tensors and arguments; raises a TbttError rather than run any code in it."""
    try:
        _check_archive(path)
        # tensors stay on disk until they are used, and no size is taken from the pickle
        content = torch.load(os.fspath(path), map_location="cpu", weights_only=True, mmap=True)
    except TbttError:
        raise
    except pickle.UnpicklingError as error:
        raise TbttError(f"{path} was refused ({CODE}): {PLAIN}") from error
    except Exception as error:  # a hostile pickle can raise any
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"{path} cannot be read as a torch checkpoint ({reason})"
        raise TbttError(f"{what}: give nanoGPT's ckpt.pt, or a folder for transformers") from error
    parts = [content.get(k) if isinstance(content, dict) else None for k in ("model", "model_args")]
    if not all(isinstance(part, dict) for part in parts):
        what = f"{path} is no nanoGPT checkpoint, which has the entries model and model_args"
        raise TbttError(f"{what}: give the ckpt.pt that nanoGPT's train.py wrote")
    state = {str(name).removeprefix(COMPILED): tensor for name, tensor in content["model"].items()}
    for name, tensor in state.items():
        if isinstance(tensor, Tensor) and tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise TbttError(f"{path} has {name} of {kind}: save it again with .float() tensors")
    tensors = [x for name, x in state.items() if isinstance(x, Tensor) and name != HEAD]
    claimed, size = sum(x.numel() * x.element_size() for x in tensors), path.stat().st_size
    if claimed > size:
        raise TbttError(f"{path} claims tensors of {claimed:,} bytes and is a file of {size:,}")
    return state, {**content["model_args"], "iter_num": content.get("iter_num")}


def _check_archive(path: Path) -> None:
    """Refuses an archive that unpacks to more than its own size, or whose pickle needs more names.

    torch itself would unpack compressed entries, and allocate what a pickle asks for.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > size:
            raise TbttError(f"{path} was refused: it unpacks to more bytes than it has")
        for entry in entries:
            if not entry.filename.endswith(".pkl"):
                continue
            if entry.file_size > PICKLE:
                what = f"its {entry.filename} has {entry.file_size:,} bytes"
                raise TbttError(f"{path} was refused: {what}, at most {PICKLE:,} are read")
            for operation, argument, _ in pickletools.genops(archive.read(entry)):
                is_plain = operation.name not in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4")
                if not is_plain or (
                    operation.name == "GLOBAL" and not KNOWN.fullmatch(str(argument))
                ):
                    raise TbttError(f"{path} was refused ({CODE}): {PLAIN}")


def from_nanogpt(
    state: Mapping[str, Any], shape: Shape, source: object = "the state"
) -> Parameters:
    """A nanoGPT model's parameters under HookedTransformer's names and shapes."""
    empty = {k: torch.empty(size, device="meta") for k, size in parameter_shapes(shape).items()}
    for name, expected in to_nanogpt(empty, shape).items():
        found = state.get(name, state[TIED] if name == HEAD and TIED in state else None)
        if not isinstance(found, Tensor):
            what = f"{source} has no tensor {name}, which its model_args ask for"
            raise TbttError(f"{what}: {TRAINED}")
        if (size := tuple(found.shape)) != (own := tuple(expected.shape)):
            what = f"{source} has {name} of shape {size}, its model_args say {own}"
            raise TbttError(f"{what}: {TRAINED}")
        if not found.isfinite().all():
            what = f"{source} has {name} with values that are not finite"
            raise TbttError(f"{what}: it diverged, so give an earlier checkpoint")
    if more := [name for name in state if name not in to_nanogpt(empty, shape)
                and not name.endswith(MASKS)]:  # fmt: skip
        raise TbttError(f"{source} has {more[0]}, which its model_args do not have: {TRAINED}")
    if HEAD in state and not torch.equal(state[HEAD], state[TIED]):
        what = f"{source} has an output embedding of its own, and nanoGPT ties it"
        raise TbttError(f"{what}: give the model as a folder for transformers")
    parameters = {}
    for name in empty:
        theirs, pattern = _counterpart(name)
        value = (
            state[theirs].chunk(3)["QKV".index(name[-1])] if "c_attn" in theirs else state[theirs]
        )
        ours, mirrored = pattern.split(" -> ")
        heads = {"h": shape.heads} if "h" in pattern else {}
        parameters[name] = rearrange(value, f"{mirrored} -> {ours}", **heads).contiguous()
    return parameters


def to_nanogpt(parameters: Parameters, shape: Shape) -> dict[str, Tensor]:
    """The inverse of `from_nanogpt`, exact to the bit."""
    parts: dict[str, list[Tensor]] = {}
    for name in parameter_shapes(shape):  # in whose order queries, keys and values are joined
        theirs, pattern = _counterpart(name)
        parts.setdefault(theirs, []).append(rearrange(parameters[name], pattern))
    state = {name: torch.cat(values).contiguous() for name, values in parts.items()}
    return state | {HEAD: state[TIED]}


def _counterpart(name: str) -> tuple[str, str]:
    """The nanoGPT tensor that has a HookedTransformer parameter, and the pattern between them."""
    if name in NAMES:
        return NAMES[name]
    _, layer, inner = name.split(".", 2)
    theirs, pattern = BLOCK_NAMES[inner]
    return f"transformer.h.{layer}.{theirs}", pattern


def _shape(arguments: Mapping[str, Any], state: Mapping[str, Any], path: Path) -> Shape:
    given = {"mlp_expansion": 4, **arguments}
    try:
        for name, ours in ARGUMENTS.items():
            check_whole(name, given.get(name), 1, SIZES[ours])
        layers, heads, width, expansion, n_ctx, d_vocab = (given[name] for name in ARGUMENTS)
        bias = given.get("bias", "transformer.ln_f.bias" in state)
        return Shape(layers=layers, heads=heads, d_model=width, d_mlp=expansion * width,
                     n_ctx=n_ctx, d_vocab=d_vocab, bias=bias)  # fmt: skip
    except TbttError as error:
        raise TbttError(f"{path} has model_args that name no model: {error}") from error


def _vocabulary(text: Path) -> Vocabulary:
    try:
        return Vocabulary.of([text.read_text(encoding="utf-8")])
    except (OSError, UnicodeDecodeError) as error:
        what = f"text {text} cannot be read ({error})"
        raise TbttError(f"{what}: give the text that the model was trained on") from error


def _held_out(task: Task) -> tuple[Pair, ...]:
    """The held-out operand pairs, the smaller operand first."""
    operands = [(e.labels.get("a"), e.labels.get("b")) for e in task.examples if e.held_out]
    return tuple(sorted({(a, b) for a, b in operands
                         if isinstance(a, int) and isinstance(b, int) and a <= b}))  # fmt: skip
