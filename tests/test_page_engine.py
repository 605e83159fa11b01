"""The page's JavaScript computes what TransformerLens computes, and trains as torch does."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tbtt_interp.model import Shape, hooked_transformer, initial_parameters, one_model
from tbtt_interp.runs import Run, load_run, shipped_runs

NODE = shutil.which("node")
HERE = Path(__file__).with_name("page")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node: apt-get install nodejs")
TOLERANCE = 1e-3  # of the largest logit; the page computes in float64, TransformerLens in float32


def ran(script: str, given: Any) -> Any:
    """What a script prints as JSON for this input."""
    done = subprocess.run(
        [str(NODE), str(HERE / script)], input=json.dumps(given), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@cache  # to make one takes a tenth of a second
def model_of(shape: Shape) -> Any:
    """A HookedTransformer of this shape, to be given weights."""
    return hooked_transformer(initial_parameters(shape, seed=0), shape)


def case(run: Run, step: int, path: Path, *, sites: bool, share: bool = True) -> dict[str, Any]:
    """A checkpoint's models, and their logits (with `sites`, all activations) on a few prompts."""
    task, stacked, expected, models = run.tasks[0], run.parameters(step), {}, []
    prompts = [e.line[: run.shape.n_ctx] for e in task.examples[:: len(task.examples) // 4]]
    length = min(map(len, prompts))
    model = model_of(run.shape)
    tokens = torch.tensor([task.vocabulary.encode(text[:length]) for text in prompts])
    for index, seed in enumerate(run.seeds):
        weights = one_model(stacked, index)
        model.load_state_dict({"unembed.W_U": weights["embed.W_E"].T, **weights}, strict=False)
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens)
        found = dict(cache.items()) if sites else {}
        found |= {"tokens": tokens, "logits": logits}
        expected |= {f"{seed}/{n}": x.float().contiguous().clone() for n, x in found.items()}
        models.append({"name": str(seed), "index": index})
    save_file(expected, path)
    return {
        "shape": dict(run.config.shape), "weights": str(run.checkpoints[step]), "models": models,
        "expected": str(path), "share": share,
    }  # fmt: skip


def test_every_shipped_model_has_transformer_lens_s_logits(tmp_path: Path) -> None:
    cases = [
        case(run, step, tmp_path / f"{name}-{step}.safetensors", sites=False)
        for name, folder in shipped_runs().items() for run in [load_run(folder)]
        for step in run.checkpoints
    ]  # fmt: skip
    assert len(cases) > 200
    assert ran("golden.mjs", cases)["logits"] < TOLERANCE


def test_every_hook_point_has_transformer_lens_s_activations(deep_run: Run, tmp_path: Path) -> None:
    runs = [deep_run, *(load_run(f) for n, f in shipped_runs().items() if "over" not in n)]
    cases = [
        case(run, run.config.steps, tmp_path / f"{k}.safetensors", sites=True, share=bool(k % 2))
        for k, run in enumerate(runs)
    ]
    worst = ran("golden.mjs", cases)
    assert "blocks.attn.hook_pattern" in worst and "ln_final.hook_scale" in worst
    assert {site: x for site, x in worst.items() if not x < TOLERANCE} == {}
