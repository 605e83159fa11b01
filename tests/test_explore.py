"""The explorer without a browser: addresses, and that its numbers are the library's own."""

import dataclasses
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tbtt_interp.analyses.ablation import answers_in
from tbtt_interp.analyses.contexts import contexts_of
from tbtt_interp.analyses.pairs import one_pair
from tbtt_interp.analyses.patching import Cell, patch_pairs
from tbtt_interp.analyses.subject import Subject
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.evaluate import complete
from tbtt_interp.explore import catalogue as opening
from tbtt_interp.explore.app import Explorer, first_state
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.ladder import ladder_part
from tbtt_interp.explore.patching import CLOSE, patched_of
from tbtt_interp.explore.probing import Jobs, reading_part
from tbtt_interp.explore.scene import count_right, scene_of
from tbtt_interp.explore.serving import listening
from tbtt_interp.explore.state import (
    SHOWN,
    VIEWS,
    Edge,
    Pane,
    Patch,
    Reading,
    State,
    read_address,
    read_patch,
)
from tbtt_interp.explore.views import Views
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.runs import Run
from tbtt_interp.scores import evaluate_run
from tbtt_interp.train.resolve import resolve_recipe
from tbtt_interp.train.training import train_models

counts = st.integers(0, 40)
edges = st.tuples(counts, counts, counts, counts).map(lambda e: (*e[:2], max(e[2:]), min(e[2:])))
patches = st.tuples(
    st.sampled_from(["blocks.0.attn.hook_z", "blocks.3.hook_resid_pre"]),
    st.one_of(st.none(), counts), counts,
)  # fmt: skip
panes = st.fixed_dictionaries({
    "run": st.text(max_size=9), "seed": st.one_of(st.none(), counts),
    "step": st.one_of(st.none(), counts), "layer": counts, "head": counts, "character": counts,
    "pins": st.lists(counts, unique=True), "cuts": st.lists(edges, unique=True),
    "patches": st.lists(patches, unique=True), "place": st.integers(-9, -1),
    "probe": st.one_of(st.none(), st.just(("carry", "blocks.0.attn.hook_z.1", -2))),
})  # fmt: skip
states = st.fixed_dictionaries({
    "view": st.sampled_from(VIEWS), "prompt": st.text(max_size=30),
    "corrupt": st.text(max_size=30), "shown": st.sampled_from(SHOWN),
    "into": st.sampled_from(["a", "b"]), "panes": st.tuples(panes, panes),
})  # fmt: skip


def built(given: dict) -> State:
    """Built here and not in a strategy: what checks types draws at random where to look."""
    kinds = {"cuts": Edge, "patches": Patch}
    found = []
    for pane in given["panes"]:
        many = {k: tuple(kind(*one) for one in pane[k]) for k, kind in kinds.items()}
        probe = Reading(*pane["probe"]) if pane["probe"] else None
        found.append(Pane(**pane | many | {"probe": probe, "pins": tuple(pane["pins"])}))
    return State(**given | {"panes": tuple(found)})


@given(state=states, first=states)
def test_an_address_says_all_that_is_on_screen(state: dict, first: dict) -> None:
    now, before = built(state), built(first)
    assert read_address(now.address(before), before) == now


@given(text=st.text(max_size=60))
def test_no_address_is_too_strange(text: str) -> None:
    assert isinstance(read_address(text, State()), State)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("?view=maps", "view 'maps' is unknown"),
        ("?a.cuts=0.0.1.4", "'a.cuts=0.0.1.4' says nothing: a query sees no key after it"),
        ("?b.seed=-1", "'b.seed=-1' says nothing: '-1' is not a number from 0"),
        ("?c.seed=1", "part of the address 'c.seed' is unknown"),
        ("?a.colour=red", "part of the address 'a.colour' is unknown"),
    ],
)
def test_what_means_nothing_in_an_address_is_said_and_left(address: str, said: str) -> None:
    state = read_address(address, State(prompt="3+4="))
    assert said in state.problems[0]
    assert dataclasses.replace(state, problems=()) == State(prompt="3+4=")


def test_doing_a_thing_twice_undoes_it() -> None:
    for action in ("pin 3", "cut 0.0.4.1", "patch blocks.0.hook_resid_mid@4", "probe carry@x@-1"):
        verb, _, argument = action.partition(" ")
        once = Pane().act(verb, argument)
        assert once != Pane()
        assert once.act(verb, argument) == Pane()


@pytest.fixture(scope="module")
def deep_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One model of two layers of two heads, hardly trained."""
    recipe = resolve_recipe(
        "quick",
        {"model.size": "L2H2D8M8", "seeds": 1, "training.steps": 4,
         "training.checkpoint_every": 2},
    )  # fmt: skip
    return train_models(recipe, tmp_path_factory.mktemp("runs") / "deep")


@pytest.fixture(scope="module")
def catalogue(line_run: Run, file_run: Run, facts_run: Run, deep_run: Run) -> Catalogue:
    return Catalogue.of([run.folder for run in (line_run, file_run, facts_run, deep_run)])


def test_what_is_said_is_what_the_library_completes(catalogue: Catalogue, line_run: Run) -> None:
    for seed in line_run.seeds:
        scene = scene_of(catalogue, Pane(run="line", seed=seed), "3+4")
        task = line_run.tasks[0]
        said = complete(
            line_run.parameters(), line_run.shape, "<3+4=", task.vocabulary, task.terminators
        )[line_run.place(seed)]
        assert scene.answer(scene.said) == said.text
        assert scene.said.probabilities == pytest.approx(said.probabilities, abs=1e-5)
        table = evaluate_run(line_run).table.query("seed == @seed and prompt == '<3+4='")
        assert scene.margin == pytest.approx(table["margin"].item(), abs=1e-4)


def test_a_prompt_longer_than_the_window_slides_in_it(catalogue: Catalogue, facts_run: Run) -> None:
    scene = scene_of(catalogue, Pane(run="facts"), "Capital of France is ")
    task = facts_run.tasks[0]
    said = complete(
        facts_run.parameters(), facts_run.shape, scene.text, task.vocabulary, task.terminators
    )[0]
    assert scene.answer(scene.said) == said.text
    margins = evaluate_run(facts_run).table.query("seed == 0 and prompt == @scene.text")["margin"]
    assert scene.margin == pytest.approx(margins.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["line", "deep"])
def test_cut_edges_cost_what_the_library_says(catalogue: Catalogue, name: str) -> None:
    run = catalogue.run(name)
    layer = run.shape.layers - 1
    head = run.shape.heads - 1
    pane = Pane(run=name).act("cut", f"{layer}.{head}.4.1")
    scene = scene_of(catalogue, pane, "3+4")
    model = run.model()
    example = next(e for e in run.tasks[0].examples if e.prompt == "<3+4=")
    subject = Subject.of_models([model], [example], run.tasks[0].vocabulary)
    questions = contexts_of(subject, 0, [0])[0].questions

    def without(pattern: torch.Tensor, hook: object) -> torch.Tensor:
        scores = pattern.clone()
        scores[:, head, 4, 1] = 0
        scores[:, head, 4] /= scores[:, head, 4].sum(-1, keepdim=True)
        return scores

    site = f"blocks.{layer}.attn.hook_pattern"
    with torch.no_grad():
        logits = model.run_with_hooks(questions.tokens, fwd_hooks=[(site, without)])
    assert scene.margin == pytest.approx(float(answers_in(logits, questions)[1][0]), abs=1e-4)
    assert scene.margin_before != pytest.approx(scene.margin, abs=1e-6)


def test_counts_over_all_prompts_are_the_evaluations(catalogue: Catalogue, line_run: Run) -> None:
    scene = scene_of(catalogue, Pane(run="line", seed=1), "3+4")
    found = count_right(scene.opened, scene.run, 1, ())
    table = evaluate_run(line_run).table.query("seed == 1")
    for side, is_held_out in (("seen", False), ("held out", True)):
        some = table[table["held_out"] == is_held_out]["right"]
        assert (found[side].hits, found[side].total) == (some.sum(), len(some))
    with pytest.raises(TbttError, match="longer than the window"):
        facts = scene_of(catalogue, Pane(run="facts").act("cut", "0.0.4.1"), "France")
        count_right(facts.opened, facts.run, 0, facts.cuts)


@pytest.mark.parametrize(("name", "corrupt"), [("line", "3+5"), ("line", "9+4"), ("deep", "3-4")])
def test_the_patching_map_is_the_librarys(catalogue: Catalogue, name: str, corrupt: str) -> None:
    """Of the first character in which the answers differ, every site, head and position."""
    pane = Pane(run=name)
    state = State(view="patching", prompt="3+4", corrupt=corrupt, panes=(pane, pane))
    table = Views(catalogue).parts(state, "a")[0].table
    run = catalogue.run(name)
    subject = Subject.of_run(run)
    pairs = one_pair(subject, "3+4", corrupt)
    place = [a == b for a, b in zip(
        subject.examples[pairs.clean[0]].answer, subject.examples[pairs.corrupt[0]].answer,
        strict=False)].index(False)  # fmt: skip
    patches = [read_patch(act.removeprefix("patch ")) for act in table["act"]]
    cells = [Cell(p.site, p.head, p.pos - 5) for p in patches]
    whole, moved = patch_pairs(run.model(), pairs, cells, "denoising", 0)
    np.testing.assert_allclose(table["effect"], moved[0, :, 0, place], rtol=1e-5, atol=1e-4)
    if abs(whole[0, place]) < CLOSE:  # a share of next to nothing is not shown
        assert table["value"].isna().all()
    else:
        np.testing.assert_allclose(
            table["value"], moved[0, :, 0, place] / whole[0, place], atol=1e-4
        )


def test_patching_everything_gives_the_clean_answer(catalogue: Catalogue) -> None:
    pane = Pane(run="line")
    for pos in range(5):
        pane = pane.act("patch", f"blocks.0.hook_resid_pre@{pos}")
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert found.recovered == pytest.approx(1.0, abs=1e-4)
    assert found.said.answer == found.clean.said.answer
    nothing = patched_of(catalogue, Pane(run="line"), "3+4", "8-2")
    assert nothing.recovered == 0
    assert nothing.said.answer == nothing.corrupt.said.answer


@pytest.mark.parametrize(
    ("prompt", "corrupt", "said"),
    [
        ("3+4", "<3+4=7", "of equal length"),
        ("3+4", "4+3", "have the same answer"),
        ("3+4", "", "the prompt is empty"),
    ],
)
def test_pairs_that_cannot_be_patched_say_why(
    catalogue: Catalogue, prompt: str, corrupt: str, said: str
) -> None:
    state = State(view="patching", prompt=prompt, corrupt=corrupt, panes=(Pane(run="line"),) * 2)
    with pytest.raises(TbttError, match=said):
        Views(catalogue).parts(state, "a")


@pytest.mark.parametrize("name", ["line", "deep", "facts"])
def test_attribution_sums_to_the_logit_difference(catalogue: Catalogue, name: str) -> None:
    prompt = "Capital of France is " if name == "facts" else "<3+4="
    for character in (0, 1):
        pane = Pane(run=name, character=character)
        state = State(view="answer", prompt=prompt, panes=(pane, pane))
        part = Views(catalogue).part(state, "a", "attribution")
        scene = scene_of(catalogue, pane, prompt)
        logits = scene.said.logits[min(character, len(scene.said.answer) - 1)]
        first, second = logits.topk(2).values.tolist()
        assert part.table["value"].sum() == pytest.approx(first - second, abs=1e-3)


def test_the_last_stream_says_what_the_model_says(catalogue: Catalogue) -> None:
    state = State(view="answer", prompt="<3+4=", panes=(Pane(run="deep"),) * 2)
    parts = {part.name: part.table for part in Views(catalogue).parts(state, "a")}
    last = parts["lens"].query("row == row.max()").set_index("column")["text"]
    best = parts["next"].query("row == 1").set_index("column")["text"]
    assert last.to_dict() == best.to_dict()


@pytest.mark.parametrize(
    ("name", "prompt"), [("deep", "3+4"), ("facts", "Capital of France is "), ("facts", "aaaa" * 9)]
)
def test_what_is_shown_was_read_where_the_answer_was_said(
    catalogue: Catalogue, name: str, prompt: str
) -> None:
    """Also of answers that do not end, and of prompts as long as the window, or longer."""
    views = Views(catalogue)
    state = State(view="answer", prompt=prompt, panes=(Pane(run=name),) * 2)
    scene = scene_of(catalogue, state.panes[0], prompt)
    table = views.part(state, "a", "next").table.query("row == 1").set_index("column")
    n_ctx = scene.run.shape.n_ctx
    inside = [k for k in range(len(scene.said.answer)) if scene.said.asked + k <= n_ctx] or [0]
    for k in inside:
        at = table.loc[scene.said.asked + k - 1]
        assert at["text"] == scene.names[scene.said.asked + k] == at["next"]
        assert at["value"] == pytest.approx(scene.said.probabilities[k], abs=1e-5)
    assert table.index.max() == scene.said.asked + inside[-1] - 1
    assert len(scene.later) == len(scene.said.answer) - len(inside)
    read = views.part(dataclasses.replace(state, view="attention"), "a", "attention").table
    assert read["row"].max() == table.index.max() and read["row"].min() == scene.lost


def test_means_over_prompts_are_means_of_prompts(catalogue: Catalogue) -> None:
    """By position over all equations, and by role; the last by hand from each prompt's pattern."""
    views, pane = Views(catalogue), Pane(run="deep", layer=1, head=1)
    run = catalogue.run("deep")
    model, task = run.model(), run.tasks[0]
    site = "blocks.1.attn.hook_pattern"
    by_hand = []
    for example in task.examples:
        tokens = torch.tensor([task.vocabulary.encode(example.prompt + example.answer[:-1])])
        with torch.no_grad():
            by_hand.append(model.run_with_cache(tokens)[1][site][0, 1])
    state = State(prompt="<3+4=", panes=(pane, pane))
    for shown in ("equations", "roles"):
        mine = dataclasses.replace(state, shown=shown)
        table = views.parts(mine, "a")[0].table
        for query, key, q, k in (("=", "a", 4, 1), ("b", "operator", 3, 2)):
            row = table[(table["row_name"] == query) & (table["column_name"] == key)]
            mean = float(torch.stack([pattern[q, k] for pattern in by_hand]).mean())
            assert row["value"].item() == pytest.approx(mean, abs=1e-5)


def test_a_probe_reads_the_prompt_without_having_learned_it(catalogue: Catalogue) -> None:
    pane = Pane(run="line").act("probe", "operator@blocks.0.hook_resid_post@-1")
    scene = scene_of(catalogue, pane, "3+4")
    assert pane.probe is not None
    table = reading_part(scene, pane.probe).table
    assert table.groupby("column")["value"].sum().to_numpy() == pytest.approx(np.ones(5))
    at_operator = table[(table["column"] == -3) & (table["row_name"] == "+")]
    assert at_operator["value"].item() > 0.99
    before = table[(table["column"] == -4) & (table["row_name"] == "+")]  # no token of it yet
    assert 0.3 < before["value"].item() < 0.7


def test_two_readers_of_one_model_do_not_disturb_each_other(catalogue: Catalogue) -> None:
    """Nothing is kept from before: the one by one is asked of models that are opened anew."""
    asked = [(k, f"{n}+{m}") for k in range(4) for n in range(5) for m in (k, k + 5)]
    found: dict[tuple[int, str], float] = {}

    def margin(k: int, prompt: str) -> float:
        return scene_of(catalogue, Pane(run="line").act("cut", f"0.0.4.{k}"), prompt).margin

    def ask(k: int) -> None:
        found.update({one: margin(*one) for one in asked if one[0] == k})

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opening._open.cache_clear()
    assert found == {one: margin(*one) for one in asked}
    assert len(set(found.values())) > len(asked) / 2
    model = catalogue.open(catalogue.which("line", 0, None)).model
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_run_that_goes_while_it_is_open_is_an_error(line_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(line_run.folder, tmp_path / "mine"))
    catalogue = Catalogue.of([folder])
    views = Views(catalogue)
    state = State(prompt="3+4", panes=(Pane(run="mine"),) * 2)
    assert views.parts(state, "a")
    last = max(line_run.checkpoints)
    path = folder / "checkpoints" / f"step-{last:06d}.safetensors"
    path.write_bytes(b"broken")
    with pytest.raises(TbttError, match="damaged"):
        views.parts(state, "a")
    shutil.rmtree(folder)
    with pytest.raises(TbttError, match="is gone"):
        views.parts(state, "a")
    assert "is gone" in str(views.body(state, "a", ""))


def test_a_checkpoint_that_is_written_meanwhile_is_there(line_run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(line_run.folder, tmp_path / "mine"))
    catalogue = Catalogue.of([folder])
    last, before = max(line_run.checkpoints), min(line_run.checkpoints)
    kept = folder / "checkpoints" / f"step-{before:06d}.safetensors"
    moved = kept.rename(tmp_path / "away")
    assert before not in catalogue.steps("mine", 0)
    moved.rename(kept)
    assert {before, last} <= catalogue.steps("mine", 0).keys()
    assert scene_of(catalogue, Pane(run="mine", step=before), "3+4").said


def test_what_another_model_has_no_place_for_is_said(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an address by hand, or kept from a deeper model."""
    views = Views(catalogue)
    pane = Pane(run="line", patches=(
        Patch("blocks.1.attn.hook_z", 2, 4), Patch("blocks.0.attn.hook_z", None, 4),
        Patch("blocks.0.hook_resid_pre", 3, 4), Patch("blocks.0.attn.hook_result", None, 4),
        Patch("blocks.0.hook_resid_pre", None, 4),
    ))  # fmt: skip
    state = State(view="patching", prompt="3+4", corrupt="8-2", panes=(pane, pane))
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert found.there == pane.patches[-1:]
    assert str(views.body(state, "a", "")).count("not in this model") == 4
    monkeypatch.setattr(Jobs, "_run", lambda self, key, job, make: None)
    reading = Reading("carry", "blocks.0.attn.hook_z.1", -1)
    for wrong, said in (
        ({"probe": reading}, "there is no head 1"), ({"place": -9}, "is not in every prompt")
    ):  # fmt: skip
        state = State(view="probes", prompt="3+4", panes=(Pane(run="line", **wrong),) * 2)
        page = str(views.body(state, "a", ""))
        assert said in page and "Probe at" in page
    state = State(prompt="3+4", panes=(Pane(run="line", layer=1, head=2),) * 2)
    page = str(views.body(state, "a", ""))
    assert "there is no head 1.2" in page and "layer 0, head 0" in page


def test_a_way_of_nothing_is_not_divided_by(catalogue: Catalogue) -> None:
    """Every edge into = is cut, so that both prompts are read alike."""
    pane = Pane(run="line")
    for key in range(4):
        pane = pane.act("cut", f"0.0.4.{key}")
    found = patched_of(catalogue, pane, "3+4", "8-2")
    assert math.isnan(found.recovered)
    state = State(view="patching", prompt="3+4", corrupt="8-2", panes=(pane, pane))
    assert Views(catalogue).parts(state, "a")[0].table["value"].isna().all()


def test_a_model_from_elsewhere_does_not_take_the_ladder_away(
    line_run: Run, tmp_path: Path
) -> None:
    export_checkpoint(line_run, tmp_path / "theirs.pt", seed=0)
    import_checkpoint(tmp_path / "theirs.pt", "arithmetic", tmp_path / "theirs")
    catalogue = Catalogue.of([line_run.folder, tmp_path / "theirs"])
    part, problems = ladder_part(catalogue, first_state(catalogue))
    assert set(part.table["run"]) == {"line"}
    assert problems == [
        "theirs: it was not trained here, so that what it answers was not written down"
    ]


def test_a_job_that_nobody_waits_for_any_more_is_not_begun() -> None:
    jobs, begun = Jobs(), []
    with jobs.one:  # one is being made
        left, kept = (jobs.get(name, partial(_noted, begun, name)) for name in ("left", "kept"))
        left.asked -= 1_000
        kept.asked += 1_000
    for _ in range(200):
        if kept.is_done and "left" not in jobs.known:
            break
        time.sleep(0.05)
    assert begun == ["kept"] and kept.is_done and not left.is_done
    assert jobs.get("left", partial(_noted, begun, "left")) is not left, "who comes back is heard"


def _noted(begun: list[str], name: str, tell: Callable[[int, int], None]) -> pd.DataFrame:
    begun.append(name)
    return pd.DataFrame()


def test_only_open_runs_are_ever_read(catalogue: Catalogue, line_run: Run) -> None:
    for name in (str(line_run.folder), "../line", "/etc/passwd"):
        with pytest.raises(TbttError, match="is not open here"):
            catalogue.run(name)
    with pytest.raises(TbttError, match=r"no models come with this package|there is no run"):
        Catalogue.of([Path("nowhere")])


def test_the_opening_view_is_small_beside_large(catalogue: Catalogue) -> None:
    first = first_state(catalogue)
    assert first.prompt == "<5+7="
    assert len(first.corrupt) == len(first.prompt)
    sizes = [catalogue.run(pane.run).shape.d_model for pane in first.panes]
    assert sizes == sorted(sizes)


def test_a_taken_port_is_passed_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listening("127.0.0.1", port) as other:
            assert other.getsockname()[1] > port
    with pytest.raises(TbttError, match="leave --host out"):
        listening("nowhere.invalid", 8050)


def test_strangers_names_are_refused_and_files_are_the_tables(catalogue: Catalogue) -> None:
    client = Explorer(catalogue).app.server.test_client()
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/", headers={"Host": "127.0.0.1:8050"}).status_code == 200
    found = client.get("/figure/a/attention.csv?prompt=3%2B4&a.run=line&a.cuts=0.0.4.1")
    assert "run,seed,step,prompt,cut" in found.text
    circuit = client.get("/figure/a/attention.csv?prompt=3%2B4&a.run=line&shown=QK")
    assert ",run,seed,step\n" in circuit.text, "no prompt and no cut is in a circuit"
    assert found.status_code == 200
    assert found.text.startswith("row,row_name,column,column_name,value")
    page = client.get("/figure/a/attention.html?prompt=3%2B4&a.run=line")
    assert "plotly" in page.text.lower()
    assert "<script src=" not in page.text
    for wrong in (
        "/figure/a/nothing.csv",
        "/figure/c/attention.csv",
        "/figure/a/attention.pkl",
        "/figure/a/attention.csv?a.run=elsewhere",
        "/figure/a/attention.csv?prompt=%C3",
    ):
        answer = client.get(wrong)
        assert answer.status_code == 404
        assert answer.mimetype == "text/plain"


def test_the_command_says_where_it_is_and_how_to_stop(line_run: Run) -> None:
    command = [sys.executable, "-m", "tbtt_interp.explore", str(line_run.folder), "nowhere"]
    with subprocess.Popen(
        [*command, "--port", "8950"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None and started.stderr is not None
        said = started.stdout.readline()
        assert re.fullmatch(r"1 run at http://127\.0\.0\.1:\d+/.*; Ctrl-C stops\n", said), said
        address = said.split()[3].rstrip(";")
        with urllib.request.urlopen(address) as page:
            assert b"tbtt explorer" in page.read()
        started.send_signal(signal.SIGINT)
        try:
            out, err = started.communicate(timeout=30)
        finally:
            started.kill()
        assert (out, started.returncode) == ("stopped\n", 0)
        assert "left out, nowhere: run nowhere is not there" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no models come with this package yet: train some"),
        (["nowhere"], r"there is no run to explore: run nowhere is not there"),
        (["--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_what_cannot_be_explored_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbtt_interp.runs.SHIPPED", Path("none"))
    assert main(["explore", *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)
