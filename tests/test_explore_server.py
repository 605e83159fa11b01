"""What the explorer opens, serves, keeps apart and refuses, without a browser."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.explore import catalogue as opening
from tbtt_interp.explore.app import Explorer, first_state
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.ladder import ladder_part
from tbtt_interp.explore.probing import Jobs
from tbtt_interp.explore.scene import scene_of
from tbtt_interp.explore.serving import listening
from tbtt_interp.explore.state import (
    Pane,
    State,
)
from tbtt_interp.explore.views import Views
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.runs import Run


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
    early = State(prompt="3+4", shown="roles", panes=(Pane(run="mine", step=0),) * 2)
    assert views.parts(early, "a"), "what is whole can still be read"
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


def _noted(begun: list[str], name: str) -> pd.DataFrame:
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
