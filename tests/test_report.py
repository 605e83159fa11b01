"""The report: one page that needs nothing else, its claims' verdicts, and what was broken."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from tiny import unhashed

from tbtt_interp import runs
from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.report.build import build_report, build_sections, open_runs, shipped_places
from tbtt_interp.report.page import Built, Report, render
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run, load_run
from tbtt_interp.stats import Interval


class Page(HTMLParser):
    """What a browser would load, where links go, and the text of each table's rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self._into: list[str] | None = None  # the list whose last text goes on
        self.feed(text)
        self.figures = [json.loads(s) for s in self.scripts if s.lstrip().startswith("{")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        if tag == "a":
            self.links.append(given["href"])
        else:
            loading = ("src", "href", "srcset", "data")
            self.loaded += [given[name] for name in loading if name in given]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th", "script"):
            self._into = self.scripts if tag == "script" else self.rows[-1]
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "script"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data


def claim(low: float, high: float, **words: Any) -> Claim:
    effect = Interval(mean=(low + high) / 2, low=low, high=high, n=8)
    words = {"text": "A.", "origin": "the paper", "command": "tbtt sweep ladder"} | words
    return Claim(effect=effect, unit="share", null=0.0, null_name="nothing", **words)


def result(*claims: Claim, draw=lambda: go.Figure(go.Scatter(y=[1, 2]))) -> Result:
    return Result(
        name="it", question="Is <it> so?", tables={}, figures={"a figure": draw}, claims=claims,
        display=pd.DataFrame({"size": ["small"], "share": [0.25]}),
        summary=["It is -0.25 & more."], command="python analyses/it.py",
        notes=["Read 3-4 as it stands."],
        more_displays={"Both, by <way>": pd.DataFrame({"way": ["matched"], "both": ["-0.50 (4)"]})},
    )  # fmt: skip


def page(run: Run, *sections: Built | Result, problems: dict[str, str] | None = None) -> Page:
    """The page of a report with these sections."""
    built = tuple(
        section if isinstance(section, Built)
        else Built(name=f"it-{k}", result=section, reason="", seconds=1.0)
        for k, section in enumerate(sections)
    )  # fmt: skip
    report = Report(runs=(run,), problems=problems or {}, sections=built, command="tbtt report")
    return Page(render(report))


def test_the_page_loads_nothing_and_its_links_arrive(file_run: Run) -> None:
    report = build_report([file_run.folder], only=["answers", "order", "additivity"])
    shown = Page(render(report))
    assert shown.loaded == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", shown.text.split("</style>")[0])
    assert len(shown.ids) == len(set(shown.ids))
    inside = {link[1:] for link in shown.links if link.startswith("#")}
    assert inside <= set(shown.ids) and {"answers", "order", "additivity", "claims"} <= inside
    assert {link for link in shown.links if not link.startswith("#")} == {
        "https://arxiv.org/abs/2506.09099"  # to be followed, not loaded
    }
    assert len(shown.text.encode()) < 15e6
    assert len(shown.figures) == shown.text.count("<figure>") >= 3
    assert all(figure["data"] for figure in shown.figures)


def test_every_verdict_on_the_page_is_its_claim_s(file_run: Run) -> None:
    claims = [
        claim(0.1, 0.3, text="Up."), claim(-0.3, -0.1, text="Not up."),
        claim(-0.1, 0.3, text="Open."), claim(-0.3, -0.1, direction="below", text="Down."),
        claim(np.nan, np.nan, origin="explored", text="One model."),
    ]  # fmt: skip
    shown = page(file_run, result(*claims), result())
    for one in claims:
        rows = [row for row in shown.rows if len(row) > 1 and row[1] == one.text]
        assert [row[0] for row in rows] == [one.verdict] * 2, "in its section, and among all"
    verdicts = [one.verdict for one in claims]
    assert verdicts == ["supported", "contradicted", "undecided", "supported", "undecided"]


def test_a_section_counts_what_was_expected_before_by_itself() -> None:
    claims = (claim(0.1, 0.2), claim(-0.2, -0.1), claim(0.1, 0.3, origin="explored"))
    built = Built(name="x", result=result(*claims), reason="", seconds=0.0)
    assert built.verdicts == "the paper: 1 supported, 1 contradicted; 1 supported"


def test_what_was_written_elsewhere_cannot_break_the_page(file_run: Run) -> None:
    figure = go.Figure(go.Scatter(y=[1], name="</script><b>out</b>"))
    built = result(claim(0.1, 0.2, text="<u>x</u>"), draw=lambda: figure)
    shown = page(file_run, built, problems={"<i>run</i>": "a < b"})
    text = shown.text
    for raw in ("<i>run</i>", "<u>x</u>", "</script><b>", "Is <it> so?"):
        assert raw not in text
    assert [drawn["data"][0]["name"] for drawn in shown.figures] == ["</script><b>out</b>"]
    assert "It is −0.25 &amp; more." in text and "Read 3-4 as it stands." in text
    assert "<h3>Both, by &lt;way&gt;</h3>" in text and "−0.50 (4)</td>" in text


def test_a_figure_that_cannot_be_drawn_has_its_reason(file_run: Run) -> None:
    def draw() -> go.Figure:
        raise TbttError("there is no selectivity to draw")

    text = page(file_run, result(draw=draw)).text
    assert "a figure: there is no selectivity to draw" in text


def test_a_section_that_fails_is_named_with_its_reason_and_the_rest_is_built(file_run: Run) -> None:
    def broken(runs, command: str) -> Result:
        raise TbttError("the tables of sweep ladder do not come with this package")

    builders = {"broken": broken, "whole": lambda runs, command: result()}
    sections = build_sections(builders, [file_run.folder], "tbtt report", "{}").sections
    assert [bool(section.result) for section in sections] == [False, True]
    shown = page(file_run, *sections, problems={"a": "damaged", "b": "damaged"})
    assert shown.text.count("Left out of this page:") == 1
    assert '<a href="#missing">2 runs and 1 section</a>' in shown.text
    assert "Left out of this page" not in page(file_run, sections[1]).text
    assert "missing" in shown.ids and "whole" in shown.ids and "broken" not in shown.ids


def broken_folder(file_run: Run) -> Path:
    """A folder of runs: one whole, and one broken in each way."""
    root = Path("runs")
    for name in ("whole", "truncated", "unfinished", "damaged", "earlier", "untold", "no-task"):
        shutil.copytree(file_run.folder, root / name)
    last = max(load_run(root / "truncated").checkpoints.values())
    last.write_bytes(last.read_bytes()[:-100])
    (root / "unfinished" / "summary.json").unlink()
    (root / "damaged" / "config.json").write_text("{")
    max((root / "earlier" / "checkpoints").iterdir()).unlink()
    (root / "untold" / "metrics.jsonl").unlink()
    unhashed(root / "no-task")
    config = json.loads((root / "no-task" / "config.json").read_text())
    (root / "no-task" / "config.json").write_text(json.dumps(config | {"task": "gone.tsv"}))
    return root


def test_broken_runs_are_said_and_the_rest_is_built(
    file_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = broken_folder(file_run)
    command = ["report", str(root), "nowhere", "--only", "answers", "--out", "page.html"]
    assert main(command) == 0
    caught = capsys.readouterr()
    assert "page.html" in caught.out and "claims of 1 run\n" in caught.out
    text = Path("page.html").read_text()
    for name, reason in (
        ("runs/truncated", "is damaged or truncated"), ("runs/unfinished", "is not finished"),
        ("runs/damaged", "is damaged"), ("nowhere", "is not there"),
        ("runs/earlier", "has lost its last checkpoint"), ("runs/no-task", "has a task of its own"),
        ("runs/untold", "metrics.jsonl is not as training wrote it"),
    ):  # fmt: skip
        assert re.search(rf"<code>{name}</code>: .*{reason}", text), name
        assert re.search(rf"left out, {name}: .*{reason}", caught.err), name
    assert "runs/whole" not in caught.err
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: page.html exists: nothing was written; give")
    assert Path("page.html").read_text() == text


def test_where_nothing_can_be_read_nothing_is_written(
    file_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(broken_folder(file_run) / "whole")
    Path("empty").mkdir()
    assert main(["report", "runs", "empty"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: there is no run to report on:")
    assert "empty has no run in it" in error and not Path("report.html").exists()
    assert main(["report", "runs", "--only", "patchings"]) == 2
    assert "section 'patchings' is unknown (did you mean 'patching'?)" in capsys.readouterr().err


def test_an_imported_run_is_in_the_report_without_its_training(line_run: Run) -> None:
    from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint

    export_checkpoint(line_run, Path("ckpt.pt"))
    imported = import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("imported"))
    report = build_report([imported.folder], only=["answers", "additivity", "order"])
    built = {section.name: section for section in report.sections}
    assert built["additivity"].result is not None and built["answers"].result is not None
    assert list(built["answers"].result.figures) == ["answers"], "no curves"
    assert "order of the lines" in built["order"].reason
    assert "not known" in built["order"].reason
    assert "imported" in render(report)


def test_the_claims_as_json_are_those_of_the_page(
    line_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", str(line_run.folder), "--only", "probes"]
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert not Path("report.html").exists()
    assert main(command) == 0
    shown = Page(Path("report.html").read_text())
    assert rows and {row["section"] for row in rows} == {"probes"}
    for row in rows:
        verdicts = {cells[0] for cells in shown.rows if cells[1:2] == [row["claim"]]}
        assert verdicts == {row["verdict"]}
        assert row["command"] == f"tbtt report {line_run.folder} --only probes --json"


def test_runs_are_opened_below_folders_and_once_however_often_given(file_run: Run) -> None:
    copied, again = Path("runs/copied"), Path("runs/copied-over-training")
    for folder in (copied, again):
        shutil.copytree(file_run.folder, folder)
    Path("link").symlink_to(copied)
    for places in ([copied], [copied.parent], [copied, copied.parent, Path("link")]):
        assert [run.folder for run in open_runs(places)[0]] == [copied]
    assert [run.folder for run in open_runs([again])[0]] == [again], "where it is asked for"


def test_a_page_that_cannot_be_written_is_refused_before_it_is_built(
    file_run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbtt_interp.report.build.build_sections", lambda *_, **__: 1 / 0)
    assert main(["report", str(file_run.folder), "--out", "nowhere/page.html"]) == 2
    assert capsys.readouterr().err == (
        "error: nowhere/page.html cannot be written into nowhere: give another --out FILE\n"
    )


def test_without_runs_those_that_ship_are_read_all_seeds_at_their_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a-b-c", "a-b-c-over-training", "a-b-c-smooth"]  # published; its course; changed
    shipped = {name: Path("there") / name for name in names}
    monkeypatch.setattr(runs, "shipped_runs", lambda: shipped)
    assert shipped_places() == [Path("there/a-b-c")]
    monkeypatch.setattr(runs, "shipped_runs", dict)
    assert main(["report"]) == 2
    assert capsys.readouterr().err == (
        "error: no models come with this package: give runs, as in tbtt report runs/ladder, "
        "which tbtt sweep ladder trains\n"
    )
