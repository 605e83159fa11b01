"""The page's JavaScript computes what TransformerLens computes, and trains as torch does."""

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import tbtt_interp as tbtt
from tbtt_interp.analyses import graph
from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.explore.bundle import WEB, join_modules
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.run_tables import catalogue_table
from tbtt_interp.interventions import Hook, edit, split_inputs
from tbtt_interp.model import (
    Shape,
    count_parameters,
    initial_parameters,
)
from tbtt_interp.model_tables import models_table
from tbtt_interp.prompts import PromptSet
from tbtt_interp.runs import Run, load_run, shipped_runs
from tbtt_interp.tasks import Stream, load_task
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.step import TorchStack

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


def case(run: Run, step: int, path: Path, *, share: bool) -> dict[str, Any]:
    """A checkpoint's models, and their activations and logits on a few prompts."""
    task, expected, models = run.tasks[0], {}, []
    prompts = [e.line[: run.shape.n_ctx] for e in task.examples[:: len(task.examples) // 4]]
    length = min(map(len, prompts))
    tokens = torch.tensor([task.vocabulary.encode(text[:length]) for text in prompts])
    for index, seed in enumerate(run.seeds[:2]):
        with torch.no_grad():
            logits, cache = run.model(seed, step).run_with_cache(tokens)
        found = {**cache, "tokens": tokens, "logits": logits}
        expected |= {f"{seed}/{n}": x.float().contiguous().clone() for n, x in found.items()}
        models.append({"name": str(seed), "index": index})
    save_file(expected, path)
    return {
        "shape": dict(run.config.shape), "weights": str(run.checkpoints[step]), "models": models,
        "expected": str(path), "share": share,
    }  # fmt: skip


def test_every_hook_point_has_transformer_lens_s_activations(deep_run: Run, tmp_path: Path) -> None:
    """Of a deep model, and of two of every run that ships, at its first and last checkpoint."""
    runs = [deep_run, *map(load_run, shipped_runs().values())]
    cases = [
        case(run, step, tmp_path / f"{k}-{step}.safetensors", share=bool(k % 2))
        for k, run in enumerate(runs) for step in (min(run.checkpoints), max(run.checkpoints))
    ]  # fmt: skip
    worst = ran("golden.mjs", cases)
    assert {"blocks.attn.hook_pattern", "ln_final.hook_scale", "logits"} <= worst.keys()
    assert {site: x for site, x in worst.items() if not x < TOLERANCE} == {}


def test_training_in_the_page_is_torch_s(tmp_path: Path) -> None:
    """The loss, its gradients, and the weights after twelve steps with decay and clipping."""
    shape = Shape(layers=2, heads=2, d_model=8, d_mlp=12, n_ctx=9, d_vocab=17)
    task, weights = load_task("arithmetic"), tmp_path / "weights.safetensors"
    start = {n: 3 * x[None] for n, x in initial_parameters(shape, seed=1).items()}
    save_file(start, weights)
    flags = {"training.steps": 20, "training.weight_decay": 0.1, "framing": "line"}
    training = resolve_recipe("quick", flags).training
    stream = Stream(lines=task.lines, vocabulary=task.vocabulary, framing="line", window=9,
                    batch=None, seed=0)  # fmt: skip
    double = {name: value.double() for name, value in start.items()}
    stack = TorchStack(double, shape, training, [stream], torch.device("cpu"))
    loss = stack.loss([stream.draw(0)]).sum()
    loss.backward()
    gradients = {n: x.grad[0].clone() for n, x in stack.parameters.items() if x.grad is not None}
    stack.advance(0, 12)
    lines = [task.vocabulary.encode(line) for line in task.lines]
    out = tmp_path / "found.json"
    given = {"shape": vars(shape), "weights": str(weights), "lines": lines, "steps": 12,
             "settings": {**vars(training), "batch": 0}, "out": str(out)}  # fmt: skip
    assert ran("gradients.mjs", given)["loss"] == pytest.approx(loss.item(), rel=1e-9)
    found = json.loads(out.read_text())
    for name, expected in gradients.items():
        own = torch.tensor(found["gradients"][name]).view_as(expected)
        assert float((own - expected).abs().max() / expected.abs().max()) < 1e-6, name
        after = torch.tensor(found["weights"][name]).view_as(expected)
        assert torch.allclose(after.double(), stack.parameters[name][0], atol=1e-6), name


@pytest.mark.parametrize("name", ["line_run", "deep_run"])
def test_paths_carry_what_path_patching_says(name: str, request: pytest.FixtureRequest) -> None:
    """Of one layer every path and edge, of more some; several at once; a neuron by its weights."""
    run: Run = request.getfixturevalue(name)
    model, encode = run.model(), run.task.vocabulary.encode
    pairs = one_pair(PromptSet.of_seed(run, run.seeds[0]), "3+4", "8-2")
    base, source = pairs.batch(pairs.corrupted), pairs.batch(pairs.clean)
    with split_inputs(model), torch.no_grad():
        paths = graph.PathPatching(model, base, source, pairs.corrupted_tokens)

        def restored(hooks: Sequence[Hook]) -> float:
            none = paths.differences()
            return float(((paths.differences(hooks) - none) / paths.total_effects())[0])

        whole = graph.paths_of(model) or [(), ("q 0.1",), ("MLP 1",), ("v 0.2", "MLP 1"),
                                          ("MLP 0", "k 1.2", "MLP 1")]  # fmt: skip
        addresses = ["-".join(["embed", *map(_in_address, path)]) for path in whole]
        hooks = [paths.path_hooks(path) for path in whole]
        expected = {text: restored(hook) for text, hook in zip(addresses, hooks, strict=True)}
        together = restored([*hooks[1], *hooks[2]])
        for sender in ("head 0.0", "MLP 0"):
            edge = paths.edge_hooks([graph.Edge(sender, "logits", None)])
            expected[_in_address(sender)] = restored(edge)
        site = "blocks.0.mlp.hook_post"
        theirs, own = (model.run_with_cache(batch.tokens)[1][site] for batch in (source, base))
        moved = (theirs - own)[..., 5:6] * model.blocks[0].mlp.W_out[5]
        at = graph.ends_of(model)[1][graph.LOGITS]
        expected["neuron0.5"] = restored([edit(at, moved.add)])
    lists = [[text] for text in expected] + [addresses[1:3]]
    given = {
        "shape": dict(run.config.shape), "weights": str(run.checkpoints[run.config.steps]),
        "clean": encode("<3+4="), "corrupt": encode("<8-2="), "paths": lists,
        "right": encode("7")[0], "wrong": encode("6")[0],
    }  # fmt: skip
    found = ran("paths.mjs", given)
    assert found == pytest.approx([*expected.values(), together], abs=1e-3)
    assert len({round(share, 3) for share in found}) > len(found) / 2


def _in_address(part: str) -> str:
    """A component of the library's graph as the page's address has it."""
    return part.replace("MLP ", "mlp").replace(" ", "")


def test_the_modules_join_into_one_script_and_are_short(tmp_path: Path) -> None:
    for name in ("main.js", "worker.js"):
        (tmp_path / name).write_text(join_modules(name))
        subprocess.run([str(NODE), "--check", str(tmp_path / name)], check=True)
    for path in [*WEB.rglob("*.js"), *WEB.glob("*.css")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_the_page_s_ladder_is_the_models_table(line_run: Run, file_run: Run, deep_run: Run) -> None:
    runs = [line_run, file_run, deep_run]
    for run, row in zip(
        runs, catalogue_table(Catalogue.of([run.folder for run in runs]))["runs"], strict=True
    ):
        assert row["weights"] == count_parameters(run.shape)
        table = models_table([run])
        final = pd.DataFrame.from_dict(row["final"], orient="index").astype(float)
        for name, column in (("seen", "seen_accuracy"), ("held_out", "held_out_accuracy"),
                             ("order", "order_known")):  # fmt: skip
            expected = table[column].astype(float).tolist()
            assert final[name].tolist() == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_a_notebook_shows_the_page_in_a_frame(line_run: Run) -> None:
    shown = tbtt.show(line_run, height=700)._repr_html_()
    assert shown.startswith("<iframe srcdoc=") and "height: 700px" in shown
    assert "page-data" in shown and "<script" not in shown, "the page is escaped"
    with pytest.raises(tbtt.TbttError, match="there is no run to explore"):
        tbtt.show("nowhere")


WHOLE = {
    "view": "probes", "prompt": "⏎<5+7=", "corrupt": "a=b&c", "shown": "roles", "rule": "zeroed",
    "filter": "carry", "probe": "carry@blocks.0.attn.hook_z.1@-2", "step": "2500", "place": "1",
    "pins": "3,4", "a.run": "my run", "a.seed": "3", "a.layer": "1", "a.head": "2",
    "a.cuts": "0.0.4.1,1.2.3.3", "a.off": "head.0.1,neuron.1.12,mlp.0.0",
    "a.patches": "blocks.0.attn.hook_z.0@4,blocks.1.hook_resid_pre@0", "b.run": "x",
}  # fmt: skip


def test_an_address_says_all_that_is_on_screen() -> None:
    parts = [WHOLE, *({"prompt": "5", "a.run": "", "b.run": "", k: v} for k, v in WHOLE.items())]
    addresses = [f"#{urlencode(one)}" for one in parts]
    for given, found in zip(parts, ran("address.mjs", addresses), strict=True):
        assert found["problems"] == []
        assert dict(parse_qsl(found["address"][1:], keep_blank_values=True)) == given


def test_no_address_is_too_strange() -> None:
    chance, letters = random.Random(0), "ab.=&%#@,-0129é\x00 view"
    strange = ["#" + "".join(chance.choices(letters, k=chance.randrange(60))) for _ in range(500)]
    assert len(ran("address.mjs", strange)) == 500


def test_what_means_nothing_in_an_address_is_said_and_left_out() -> None:
    problems = {
        "#view=maps": "view “maps” is unknown: choose story",
        "#a.cuts=0.0.1.4": "a query sees no key after it",
        "#b.seed=-1": "“-1” is no number from 0",
        "#c.seed=1": "the address has no pane c",
        "#a.colour=red": "the address has a.colour, which the page does not know",
        "#probe=carry@x@1": "“carry@x@1” is no probe",
    }
    empty, *found = ran("address.mjs", ["", *problems])
    for page, said in zip(found, problems.values(), strict=True):
        assert said in page["problems"][0] and len(page["problems"]) == 1
        assert page["address"] == empty["address"]
