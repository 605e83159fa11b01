"""The package is ready for PyPI: one version, true metadata, extras by use, a wheel that runs."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from readme import published_readme

import tbtt_interp
from tbtt_interp.versions import versions

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_stands_in_one_place_and_everything_else_agrees(printed):
    version = tbtt_interp.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version) and "version" in PROJECT["dynamic"]
    assert printed("--version") == f"tbtt_interp {version}\n"
    assert versions()["tbtt_interp"] == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[0] == version


def test_extras_are_named_by_use_and_errors_name_them():
    assert {"sweep", "hub", "stats"} <= PROJECT["optional-dependencies"].keys()
    for path in [*(ROOT / "tbtt_interp").rglob("*.py"), *ROOT.glob("*/README.md"),
                 ROOT / "README.md", *ROOT.glob("analyses/*.py")]:  # fmt: skip
        for named in re.findall(r"(?:tbtt_interp|'\.)\[([\w,]+)\]", path.read_text("utf-8")):
            assert set(named.split(",")) <= PROJECT["optional-dependencies"].keys(), (path, named)


def test_the_published_readme_links_to_the_repository_or_to_nothing():
    text = (ROOT / "README.md").read_text("utf-8")
    relative = re.compile(r"\]\((?!https://)")
    assert len(relative.findall(text)) > 20
    page = published_readme(text, "https://github.com/me/it")
    assert "(https://github.com/me/it/blob/HEAD/docs/training.md#what-a-loss-can-mean)" in page
    assert "](https://github.com/me/it/raw/HEAD/analyses/digits_code.png)" in page
    for one in (page, published_readme(text, None)):
        assert not relative.search(one) and "arxiv.org/abs/2506.09099)" in one
    assert "They have [memorized" not in one and "![" not in one


def test_the_wheel_alone_is_checked_and_runs(tmp_path):
    """Installed in a folder of its own, outside the tree; what it needs is in this environment."""
    site, path = tmp_path / "site", os.environ["PATH"]
    environment = {"PATH": f"{site / 'bin'}:{path}", "PYTHONPATH": str(site), "HOME": str(tmp_path)}

    def done(*words: str, cwd: Path = tmp_path) -> str:
        return subprocess.run(words, cwd=cwd, env=environment, check=True, capture_output=True,
                              text=True).stdout  # fmt: skip

    python = sys.executable
    done(python, "-m", "hatchling", "build", "--target", "wheel", "-d", str(tmp_path), cwd=ROOT)
    [wheel] = map(str, tmp_path.glob("*.whl"))
    assert "PASSED" in done(python, "-m", "twine", "check", "--strict", wheel)
    done(python, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), wheel)
    assert str(site) in done(python, "-c", "import tbtt_interp; print(tbtt_interp.__file__)")
    assert done("tbtt", "--version") == f"tbtt_interp {tbtt_interp.__version__}\n"
    assert "--framing" in done(python, "-m", "tbtt_interp.train", "--help")
    assert "carry" in done("tbtt", "probes", "arithmetic-small-line", "--feature", "carry")
    assert "wrote page.html" in done("tbtt", "explore", "--out", "page.html")
    assert "report.html: " in done("tbtt", "report", "--only", "answers")
    assert {"page.html", "report.html"} <= {file.name for file in tmp_path.iterdir()}
