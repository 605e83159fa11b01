"""The package is ready for PyPI: one version, true metadata, extras by use."""

import re
import tomllib
from pathlib import Path

import yaml

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
