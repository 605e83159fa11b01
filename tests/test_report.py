"""The report: one page that needs nothing else, its claims' verdicts, and what was broken."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from bs4 import BeautifulSoup
from tiny import unhashed

from tbtt_interp import runs
from tbtt_interp.cli import main
from tbtt_interp.compare import labelled, size_claims
from tbtt_interp.errors import TbttError
from tbtt_interp.nanogpt import export_checkpoint, import_checkpoint
from tbtt_interp.report import measures
from tbtt_interp.report.build import build_report, build_sections, open_runs, shipped_places
from tbtt_interp.report.measures import SECTIONS
from tbtt_interp.report.page import Built, Report, render
from tbtt_interp.report.sections import Section, build_section
from tbtt_interp.results import Claim, Result
from tbtt_interp.runs import Run, load_run
from tbtt_interp.stats import Interval
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.training import train_models


class Page(BeautifulSoup):
    """A page, and the text of each table's rows and the data of each figure."""

    def __init__(self, text: str) -> None:
        super().__init__(text, "html.parser")
        self.rows = [[cell.text for cell in row(["td", "th"])] for row in self("tr")]
        scripts = [script.text for script in self("script")]
        self.figures = [json.loads(text) for text in scripts if text.lstrip().startswith("{")]


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


def page(run: Run, *sections: Built | Result, problems: dict[str, str] | None = None) -> str:
    """The page of a report with these sections."""
    built = tuple(
        section if isinstance(section, Built)
        else Built(name=f"it-{k}", result=section, reason="", seconds=1.0)
        for k, section in enumerate(sections)
    )  # fmt: skip
    report = Report(runs=(run,), problems=problems or {}, sections=built, command="tbtt report")
    return render(report)


def test_the_page_loads_nothing_and_its_links_arrive(file_run: Run) -> None:
    sections = ["answers", "order", "additivity"]
    text = render(build_report([file_run.folder], only=sections))
    shown = Page(text)
    assert not shown.select("[src], [srcset], object[data], :not(a)[href]")
    assert not re.search(r"@import|url\(\s*['\"]?(?!data:|#)", text.split("</style>")[0])
    ids = [element["id"] for element in shown.select("[id]")]
    assert len(ids) == len(set(ids))
    links = {str(link["href"]) for link in shown("a")}
    inside = {link[1:] for link in links if link.startswith("#")}
    assert inside <= set(ids) and {*sections, "claims"} <= inside
    followed = {link for link in links if not link.startswith("#")}
    assert followed == {"https://arxiv.org/abs/2506.09099"}
    assert len(text.encode()) < 15e6
    assert len(shown.figures) == len(shown("figure")) >= 3
    assert all(figure["data"] for figure in shown.figures)


def test_every_verdict_on_the_page_is_its_claim_s(file_run: Run) -> None:
    claims = [
        claim(0.1, 0.3, text="Up."), claim(-0.3, -0.1, text="Not up."),
        claim(-0.1, 0.3, text="Open."), claim(-0.3, -0.1, direction="below", text="Down."),
        claim(np.nan, np.nan, origin="explored", text="One model."),
    ]  # fmt: skip
    shown = Page(page(file_run, result(*claims), result()))
    for one in claims:
        rows = [row for row in shown.rows if len(row) > 1 and row[1] == one.text]
        assert [row[0] for row in rows] == [one.verdict] * 2, "in its section, and among all"
    built = Built(name="x", result=result(*claims), reason="", seconds=0.0)
    paper = "the paper: 2 supported, 1 contradicted, 1 undecided"
    assert built.verdicts == f"{paper}; 1 undecided", "what was explored is counted by itself"


def test_few_claims_stand_in_the_text_and_all_behind_a_fold(file_run: Run) -> None:
    late = [claim(0.1, 0.2 + k / 100, text=f"Late {k}.", origin="explored") for k in range(9)]
    before = claim(0.01, 0.02, text="Before.")
    main_parts = [Built(name=f"t{k}", result=result(*late, before), reason="", seconds=0.0)
            for k in range(5)]  # fmt: skip
    behind = Built(name="a", result=result(*late), reason="", seconds=0.0, in_appendix=True)
    report = Report(runs=(file_run,), problems={}, sections=(*main_parts, behind), command="x")
    texts = [row.claim.text for row in report.rows_in_text("t0")]
    assert texts == ["Before.", "Late 8.", "Late 7.", "Late 6.", "Late 5."]
    text, appendix = render(report).split('<h1 id="appendix">')
    assert text.count('<span class="verdict supported') - 1 == 25, "1 in the words to know"
    folded = appendix.split("<details><summary>59 claims</summary>")[1].split("</details>")[0]
    assert folded.count('<span class="verdict supported') == 59
    assert folded.count("supported before") == 5


def test_what_was_written_elsewhere_cannot_break_the_page(file_run: Run) -> None:
    def none() -> go.Figure:
        raise TbttError("there is no <selectivity> to draw")

    figure = go.Figure(go.Scatter(y=[1], name="</script><b>out</b>"))
    built = result(claim(0.1, 0.2, text="<u>x</u>"), draw=lambda: figure)
    text = page(file_run, built, result(draw=none), problems={"<i>run</i>": "a < b"})
    assert "a figure: there is no &lt;selectivity&gt; to draw" in text
    for raw in ("<i>run</i>", "<u>x</u>", "</script><b>", "Is <it> so?"):
        assert raw not in text
    assert Page(text).figures[0]["data"][0]["name"] == "</script><b>out</b>"
    assert "It is −0.25 &amp; more." in text and "Read 3-4 as it stands." in text
    assert "<h3>Both, by &lt;way&gt;</h3>" in text and "−0.50 (4)</td>" in text


def test_a_section_that_fails_is_named_with_its_reason_and_the_rest_is_built(file_run: Run) -> None:
    def broken(runs, command: str) -> Result:
        raise TbttError("the tables of sweep ladder do not come with this package")

    builders = {"broken": broken, "whole": lambda runs, command: result()}
    sections = build_sections(builders, [file_run.folder], "tbtt report", "{}").sections
    assert [bool(section.result) for section in sections] == [False, True]
    text = page(file_run, *sections, problems={"a": "damaged", "b": "damaged"})
    assert '<a href="#missing">2 runs and 1 section</a>' in text
    assert "do not come with this package" in text
    assert "Left out of this page" not in page(file_run, sections[1])


def broken_folder(file_run: Run) -> Path:
    """A folder of runs: one whole, and one broken in each way."""
    root = Path("runs")
    for name in ("whole", "truncated", "unfinished", "damaged", "no-task"):
        shutil.copytree(file_run.folder, root / name)
    last = max(load_run(root / "truncated").checkpoints.values())
    last.write_bytes(last.read_bytes()[:-100])
    (root / "unfinished" / "summary.json").unlink()
    (root / "damaged" / "config.json").write_text("{")
    unhashed(root / "no-task")
    config = json.loads((root / "no-task" / "config.json").read_text())
    (root / "no-task" / "config.json").write_text(json.dumps(config | {"task": "gone.tsv"}))
    return root


def test_broken_runs_are_said_and_the_rest_is_built(file_run, capsys) -> None:
    root = broken_folder(file_run)
    command = ["report", str(root), "nowhere", "--only", "answers", "--out", "page.html"]
    assert main(command) == 0
    caught = capsys.readouterr()
    text = Path("page.html").read_text()
    for name, reason in (
        ("runs/truncated", "is damaged or truncated"), ("runs/unfinished", "is not finished"),
        ("runs/damaged", "is damaged"), ("nowhere", "is not there"),
        ("runs/no-task", "has a task of its own"),
    ):  # fmt: skip
        assert re.search(rf"<code>{name}</code>: .*{reason}", text), name
        assert re.search(rf"left out, {name}: .*{reason}", caught.err), name
    assert "runs/whole" not in caught.err
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: page.html exists: nothing was written; give")
    assert Path("page.html").read_text() == text


def test_where_nothing_can_be_read_or_written_nothing_is_built(file_run, refused, monkeypatch):
    shutil.rmtree(broken_folder(file_run) / "whole")
    Path("empty").mkdir()
    error = refused("report", "runs", "empty")
    assert "there is no run to report on:" in error and "empty has no run in it" in error
    error = refused("report", file_run.folder, "--only", "patchings")
    assert "section 'patchings' is unknown (did you mean 'patching'?)" in error
    monkeypatch.setattr("tbtt_interp.report.build.build_sections", lambda *_, **__: 1 / 0)
    error = refused("report", file_run.folder, "--out", "no/page.html")
    assert "no/page.html cannot be written into no: give another --out FILE" in error


def test_an_imported_run_is_in_the_report_without_its_training(line_run: Run) -> None:
    export_checkpoint(line_run, Path("ckpt.pt"))
    imported = import_checkpoint(Path("ckpt.pt"), "arithmetic", Path("imported"))
    report = build_report([imported.folder], only=["answers", "additivity", "order"])
    built = {section.name: section for section in report.sections}
    assert built["additivity"].result is not None and built["answers"].result is not None
    assert list(built["answers"].result.figures) == ["answers"], "no curves"
    assert re.search("order of the lines .* not known", built["order"].reason)


def test_the_claims_as_json_are_those_of_the_page(file_run, printed) -> None:
    command = ["report", file_run.folder, "--only", "order"]
    rows = json.loads(printed(*command, "--json"))
    printed(*command)
    shown = Page(Path("report.html").read_text())
    assert rows and {row["section"] for row in rows} == {"order"}
    for row in rows:
        verdicts = {cells[0] for cells in shown.rows if cells[1:2] == [row["claim"]]}
        assert verdicts == {row["verdict"]}
        assert row["command"] == f"tbtt report {file_run.folder} --only order --json"


def test_runs_are_opened_below_folders_and_once_however_often_given(file_run: Run) -> None:
    copied, again = Path("runs/copied"), Path("runs/copied-over-training")
    for folder in (copied, again):
        shutil.copytree(file_run.folder, folder)
    Path("link").symlink_to(copied)
    places = [copied, copied.parent, Path("link")]
    assert [run.folder for run in open_runs(places)[0]] == [copied]
    assert [run.folder for run in open_runs([again])[0]] == [again], "where it is asked for"


def test_without_runs_those_that_ship_are_read_all_seeds_at_their_end(monkeypatch, refused) -> None:
    names = ["a-b-c", "a-b-c-over-training", "a-b-c-smooth"]  # published; its course; changed
    shipped = {name: Path("there") / name for name in names}
    monkeypatch.setattr(runs, "shipped_runs", lambda: shipped)
    assert shipped_places() == [Path("there/a-b-c")]
    monkeypatch.setattr(runs, "shipped_runs", dict)
    error = "no models come with this package: give runs, as in tbtt report runs/ladder, which"
    assert error in refused("report")


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two smalls and two mediums, trained for a little while."""
    folder = tmp_path_factory.mktemp("sizes")
    return [
        train_models(
            resolve_recipe("quick", {"model.size": size, "framing": "line", "seeds": 2,
                                     "training.steps": 200, "training.checkpoint_every": 0}),
            folder / size,
        )
        for size in ("medium", "small")
    ]  # fmt: skip


BY_NAME = {section.name: section for section in SECTIONS}


@pytest.mark.parametrize("name", sorted(BY_NAME.keys() - {"order"}))
def test_sections_over_two_sizes_compare_them(name, two_sizes, monkeypatch) -> None:
    """Each has a row per run, narrow first, claims with known nulls, and figures that draw."""
    monkeypatch.setattr(measures, "PAIRS", 40)
    monkeypatch.setattr(measures, "N_CONTROLS", 3)
    result = build_section(BY_NAME[name], two_sizes, f"tbtt report --only {name} --json")
    assert result.display["size"].tolist() == ["small", "medium"]
    assert result.claims and all(np.isfinite(claim.null) for claim in result.claims)
    assert {claim.origin for claim in result.claims} == {"explored"}
    assert all(draw().data for draw in result.figures.values())
    assert all(sentence.endswith(".") for sentence in (*result.summary, *result.notes))


def test_the_order_is_asked_of_models_that_have_met_one(file_run: Run, line_run: Run) -> None:
    result = build_section(BY_NAME["order"], [file_run, line_run], "tbtt report")
    assert result.display["framing"].tolist() == ["file"]
    assert any(note.startswith("Left out, small on line: ") for note in result.notes)
    assert result.claim("On file, small models")
    with pytest.raises(TbttError, match="Left out, small on line"):
        build_section(BY_NAME["order"], [line_run], "tbtt report")


def test_contrasts_are_of_the_widest_and_the_narrowest_paired_by_seed() -> None:
    cells = {("small", 14, "line"): [0.1, 0.9, 0.4], ("medium", 28, "line"): [9.0, 9.0],
             ("large", 56, "line"): [0.3, 1.1, 0.7], ("small", 14, "file"): [0.0]}  # fmt: skip
    table = pd.concat([
        pd.DataFrame({"size": size, "width": width, "layers": 1, "framing": framing,
                      "run": size + framing, "label": f"{size} on {framing}",
                      "seed": range(len(values)), "value": values})
        for (size, width, framing), values in cells.items()
    ])  # fmt: skip
    (of_sizes,) = size_claims(table, "On {framing}, {wide} and {narrow} differ:", unit="u")
    assert of_sizes.effect.mean == pytest.approx((0.2 + 0.2 + 0.3) / 3)
    assert of_sizes.text == "On line, large and small differ:" and of_sizes.verdict == "supported"


def test_a_claim_takes_the_highest_null(two_sizes: list[Run]) -> None:
    def measure(run: Run) -> pd.DataFrame:
        return pd.DataFrame({"seed": range(3), "panel": "it", "value": [0.72, 0.7, 0.68],
                             "easy": 0.5, "hard": 0.69})  # fmt: skip

    nulls = {"easy": "an easy null", "hard": "a hard one"}
    planted = Section(name="it", question="Is it?", measure=measure, title="share", unit="u",
                      nulls=nulls, above_null={"it": "{size} on {framing}:"})  # fmt: skip
    claims = build_section(planted, two_sizes, "c").claims
    assert {(c.null, c.null_name, c.verdict) for c in claims} == {(0.69, "a hard one", "undecided")}


def test_runs_that_look_alike_are_told_apart_by_name_or_folder(line_run: Run, copied: Path) -> None:
    labels = list(labelled([load_run(copied), line_run]))
    assert labels == ["small on line (copied)", "small on line (line)"]
    runs = [load_run(shutil.copytree(copied, f"{place}/same")) for place in "ab"]
    assert list(labelled(runs)) == ["small on line (a/same)", "small on line (b/same)"]
    built = build_section(BY_NAME["answers"], runs, "tbtt report")
    assert built.display["models"].tolist() == [2, 2]
