"""The documentation site is built, its tutorials run, and its pages' Python does, too."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tbtt_interp.analyses import registry
from tbtt_interp.probes import features
from tbtt_interp.runs import Run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / f"docs/{name}.md" for name in ("tour", "training")),
         *sorted((ROOT / "docs/how-to").glob("*.md"))]  # fmt: skip
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as HTML; a warning, or an error in a tutorial, is a failure."""
    folder = tmp_path_factory.mktemp("site")
    command = ["sphinx", "-q", "-W", "--keep-going", "-d", folder / "kept", "docs", folder / "html"]
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


def test_the_site_has_the_python_api(site: Path) -> None:
    api = (site / "api.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in api for name in ("probe_grid", "load_run", "over_seeds"))


def test_the_site_loads_nothing_from_elsewhere_and_every_link_in_it_leads_somewhere(site):
    elsewhere = r'<(?:script|img)[^>]*src="https?://[^"]*|<link[^>]*href="https?://'
    for path in (path for path in site.rglob("*.html") if "_downloads" not in path.parts):
        page = path.read_text(encoding="utf-8")
        assert re.findall(elsewhere, page) == []
        for name in set(re.findall(r'(?:href|src)="([^"#?]+)', page)):
            if not re.match(r"https?:|mailto:|data:", name):
                assert (path.parent / name).exists(), (path.name, name)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_says_no_number_that_it_did_not_compute(path: Path, site: Path) -> None:
    cells = json.loads((site / f"tutorials/{path.stem}.ipynb").read_text("utf-8"))["cells"]
    prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    outputs = json.dumps([c["outputs"] for c in cells if c["cell_type"] == "code"])
    assert "text/html" in outputs and "plotly" in outputs, "a table and a figure"
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)|\b(?:19|20)\d\d\b", "", prose)  # code, links, years
    assert [n for n in re.findall(r"\d+(?:\.\d+)?", prose) if n not in outputs] == []


def test_a_tutorial_is_opened_in_colab_once_the_repository_has_an_address(monkeypatch):
    monkeypatch.setenv("PLOTLY_RENDERER", "json")  # which conf.py sets
    link = runpy.run_path(str(ROOT / "docs/conf.py"))["colab_link"]
    assert link("tutorials/probe", {"Paper": "https://arxiv.org/abs/2506.09099"}) == ""
    address = "github/me/it/blob/gh-pages/tutorials/probe.ipynb"
    assert address in link("tutorials/probe", {"Repository": "https://github.com/me/it"})


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_s_python_runs(path: Path, line_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but on two small models that are here."""
    text = path.read_text("utf-8")
    assert path.parent.name != "how-to" or len(text.splitlines()) <= 40, "a how-to is short"
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks or path.stem in ("dask", "publish")
    monkeypatch.setattr(features, "FEATURES", dict(features.FEATURES))  # pages register some
    monkeypatch.setattr(registry, "ANALYSES", dict(registry.ANALYSES))
    monkeypatch.setattr("tbtt_interp.load_run", lambda name: line_run, raising=False)
    monkeypatch.setattr("builtins.print", lambda *_: None)
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("3_000", "300"), path.name, "exec"), space)


@pytest.mark.skipif(os.environ.get("TBTT_MATRIX") != "1", reason="TBTT_MATRIX=1 trains for minutes")
def test_the_readme_s_python_prints_what_stands_below_it(capsys) -> None:
    """Counts exactly, since bytes are the same everywhere; measures to a unit of the last digit."""
    page = (ROOT / "README.md").read_text("utf-8")
    space: dict[str, object] = {}
    for block, printed in re.findall(r"```python\n(.*?)```\n```\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "README", "exec"), space)
        shown = capsys.readouterr().out
        assert re.sub(r"\d\.\d\d", "#", shown) == re.sub(r"\d\.\d\d", "#", printed)
        numbers = (list(map(float, re.findall(r"\d\.\d\d", text))) for text in (shown, printed))
        assert next(numbers) == pytest.approx(next(numbers), abs=0.0101)
