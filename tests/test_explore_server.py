"""What the page's server opens, serves, computes and refuses, without a browser."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.explore import probe_tables
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.export import single_page, write_site
from tbtt_interp.explore.probe_tables import CONTROLS, probe_table, ready_table, weights_digest
from tbtt_interp.explore.run_tables import catalogue_table, run_table
from tbtt_interp.explore.server import PageServer, listening
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.probes.grid import LAYER_SITES, probe_grid
from tbtt_interp.runs import Run, load_run, shipped_runs

SITE = "blocks.0.hook_resid_post"


@pytest.fixture
def served(catalogue: Catalogue) -> Iterator[PageServer]:
    server = PageServer(catalogue, host="127.0.0.1", port=8400)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def ask(server: PageServer, path: str, name: str = "localhost") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path, headers={"Host": f"{name}:{server.port}"})
    found = connection.getresponse()
    return found.status, found.read()


def test_the_probes_of_a_checkpoint_are_the_probe_grid(line_run: Run) -> None:
    """Of two models, at two positions, with every null."""
    table = probe_table(line_run, line_run.config.steps, (-2, -1))
    names = ["answer", "carry"]
    grid = probe_grid(line_run, names, positions=[-2, -1], controls=CONTROLS)
    measures = {"accuracy": "accuracy", "low": "accuracy_low", "high": "accuracy_high",
                "control": "control", "untrained": "untrained"}  # fmt: skip
    of_site = [s.replace("hook_z", "hook_z.0") for s in LAYER_SITES]
    assert table["sites"] == [f"blocks.0.{site}" for site in of_site]
    for row in grid[grid["site"] != "hook_embed"].to_dict("records"):
        k = table["features"].index(row["feature"])
        site, pos = table["sites"].index(row["site"]), table["positions"].index(row["pos"])
        for name, column in measures.items():
            assert table[name][k][site][pos] == round(1_000 * row[column]), (row["feature"], name)
        assert table["held_out"][k][site][pos] == row["held_out_correct"]
        assert table["held_out_of"][k] == row["held_out_of"]
        assert table["operands"][k][site] == round(1_000 * row["operands"])
        for name in ("one_hot", "majority"):
            assert table[name][k] == round(1_000 * row[name])
        if row["feature"] == "carry":
            assert table["thresholds"][k][site][pos] == round(1_000 * row["thresholds"])
    assert table["thresholds"][table["features"].index("answer")] is None


def test_the_probes_that_ship_are_of_the_weights_that_ship() -> None:
    for name, folder in shipped_runs().items():
        run = load_run(folder)
        for step, path in run.checkpoints.items():
            if table := ready_table(run, step):
                assert table["weights"] == weights_digest(path), (name, step)
                assert table["positions"][-1] == -1 and tuple(table["seeds"]) == run.seeds
    size = sum(path.stat().st_size for path in probe_tables.FOLDER.glob("*.json"))
    assert size < 2_000_000
    run = load_run(shipped_runs()["arithmetic-large-line-over-training"])
    found = json.loads(json.dumps(probe_table(run, 1_333, (-1,))))
    shipped = dict(ready_table(run, 1_333) or {})
    shipped.pop("weights")
    assert found == shipped


def test_probes_of_other_runs_are_computed_once_when_asked(served, line_run, monkeypatch):
    monkeypatch.setattr(probe_tables, "COMPUTED", {})
    asked: list[object] = []
    monkeypatch.setattr(
        probe_tables, "probe_table", lambda run, step: asked.append((run.folder, step)) or {"is": 1}
    )
    place, last = served.catalogue.names.index("line"), len(line_run.checkpoints) - 1
    for is_known in (False, True):
        rows = json.loads(ask(served, f"/runs/{place}/run.json")[1])["checkpoints"]
        assert bool(rows[last]["probes"]) == is_known
        assert ask(served, f"/runs/{place}/probes/{last}.json") == (200, b'{"is":1}')
    assert asked == [(line_run.folder, line_run.config.steps)]
    assert json.loads(ask(served, "/catalogue.json")[1])["computes"]


def test_what_nobody_foresaw_is_said_and_the_server_lives(served, monkeypatch, caplog):
    monkeypatch.setattr(probe_tables, "probe_table", lambda run, step: 1 // 0)
    monkeypatch.setattr(probe_tables, "COMPUTED", {})
    status, said = ask(served, "/runs/1/probes/0.json")
    assert status == 500 and "ZeroDivisionError" in json.loads(said)["error"]
    assert "ZeroDivisionError" in caplog.text
    assert ask(served, "/")[0] == 200 and ask(served, "/runs/0/probes/99.json")[0] == 410


def test_the_page_s_files_have_the_probes_that_are_there(line_run, copied, tmp_path, monkeypatch):
    monkeypatch.setattr(probe_tables, "COMPUTED", {})
    shipped = Catalogue.of([shipped_runs()["arithmetic-large-line"]])
    run = shipped.run(shipped.names[0])
    page = single_page(shipped, steps=[run.config.steps])
    data = json.loads(page.split('id="page-data">')[1].split("</script>")[0])
    assert data["probes"]["runs/0/probes/0.json"] == ready_table(run, run.config.steps)
    assert data["runs"][0]["checkpoints"][0]["probes"] and not data["catalogue"].get("computes")
    assert run_table(shipped, shipped.names[0])["features"]["carry"].count(True) == 45
    write_site(Catalogue.of([line_run.folder]), tmp_path / "site")
    assert not list(tmp_path.glob("site/**/probes/*"))
    for path in list(load_run(copied).checkpoints.values())[:-1]:
        path.unlink()
    assert main(["explore", str(copied), "--site", "with", "--probes"]) == 0
    (found,) = Path("with").glob("runs/0/probes/*.json")
    assert "carry" in json.loads(found.read_text())["features"]


def test_a_run_that_goes_while_it_is_open_is_an_error(copied: Path) -> None:
    catalogue = Catalogue.of([copied])
    server = PageServer(catalogue, host="127.0.0.1", port=8450)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    steps = sorted(load_run(copied).checkpoints)
    first, *_, last = load_run(copied).checkpoints.values()
    away = first.rename("away")
    assert steps[0] not in catalogue.steps(catalogue.names[0])
    away.rename(first)
    assert steps[0] in catalogue.steps(catalogue.names[0]), "what is written meanwhile"
    last.write_bytes(b"broken")
    status, said = ask(server, f"/runs/0/{len(steps) - 1}.safetensors")
    assert status == 410 and "SHA-256" in json.loads(said)["error"]
    assert ask(server, "/runs/0/0.safetensors")[0] == 200, "what is whole can still be read"
    shutil.rmtree(copied)
    status, said = ask(server, "/runs/0/run.json")
    assert status == 410 and "is gone" in json.loads(said)["error"]
    server.shutdown()


def test_a_model_from_elsewhere_does_not_take_the_ladder_away(line_run, tmp_path):
    export_checkpoint(line_run, tmp_path / "theirs.pt", seed=0)
    import_checkpoint(tmp_path / "theirs.pt", "arithmetic", tmp_path / "theirs")
    rows = catalogue_table(Catalogue.of([line_run.folder, tmp_path / "theirs"]))["runs"]
    assert {row["name"]: len(row["final"]) for row in rows} == {"line": 2, "theirs": 0}


def test_only_open_runs_are_ever_read(served: PageServer, line_run: Run) -> None:
    for name in (str(line_run.folder), "../line", "/etc/passwd"):
        with pytest.raises(TbttError, match="is not open here"):
            served.catalogue.run(name)
    with pytest.raises(TbttError, match=r"no models come with this package|there is no run"):
        Catalogue.of([Path("nowhere")])
    for path in ("/../pyproject.toml", "/%2e%2e/server.py", "/runs/99/probes/0.json",
                 "/runs/0/config.json", "/probes/arithmetic-small-line.json"):  # fmt: skip
        assert ask(served, path)[0] == 404, path
    assert ask(served, "/", "evil.example")[0] == 403


def test_a_taken_port_is_passed_by() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with listening("127.0.0.1", port) as other:
            assert other.getsockname()[1] > port
    with pytest.raises(TbttError, match="leave --host out"):
        listening("nowhere.invalid", 8050)


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
        (["nowhere"], "there is no run to explore: run nowhere is not there"),
        (["--port", "70000"], "less than or equal to 65535"),
        (["arithmetic-small-line", "--seed", "0"], "give --out, or drop them"),
        (["arithmetic-small-line", "--probes"], "drop --probes"),
    ],
)
def test_what_cannot_be_explored_is_one_line(arguments, said, capsys, monkeypatch) -> None:
    if "arithmetic-small-line" not in arguments:
        monkeypatch.setattr("tbtt_interp.runs.SHIPPED", Path("none"))
    assert main(["explore", *arguments]) == 2
    assert said in capsys.readouterr().err
