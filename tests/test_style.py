"""The house is in order: linted, typed, and the README says what is true."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sentences import too_long

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [path.read_text(encoding="utf-8") for path in FILES]


def ran(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_code_is_linted_and_formatted() -> None:
    ran("ruff", "check", ".")
    ran("ruff", "format", "--check", ".")


def test_the_code_is_typed() -> None:
    assert "0 errors, 0 warnings" in ran("pyright")


def commands(*pages: str) -> list[str]:
    """The lines of the pages' shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", "\n".join(pages), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_ci_runs_the_readme_s_test_command() -> None:
    tests = [line for line in commands(README) if "pytest" in line]
    assert len(tests) == 1
    assert tests[0] in (ROOT / ".ci/run").read_text().splitlines()


def test_the_pages_name_commands_and_options_that_exist() -> None:
    """Each line is shown to its command's parser; what it would do is tested elsewhere."""
    from typer.testing import CliRunner

    from tbtt_interp.cli import app

    for line in commands(*PAGES):
        for part in line.split("&&"):
            words = part.split()
            if words[:2] == ["python", "-m"] and words[2].count(".") > 1:  # no command of ours
                assert find_spec(words[2]), part
                continue
            if words[:2] == ["python", "-m"] and words[2].startswith("tbtt_interp."):
                words = ["tbtt", words[2].partition(".")[2], *words[3:]]
            if words[0] != "tbtt":
                continue
            named = words[1:3] if words[1] == "analyses" else words[1:2]
            done = CliRunner().invoke(app, [*named, "--help"], env={"COLUMNS": "200"})
            assert done.exit_code == 0, part
            assert all(word in done.output for word in words if word.startswith("--")), part


def test_the_pages_refer_to_files_that_are_there() -> None:
    for path, page in zip(FILES, PAGES, strict=True):
        for name, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page):
            other = path.parent / name if name else path
            assert other.exists(), (path, name)
            if heading:
                heads = re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
                known = [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads]
                assert heading in known, (path, heading)


def test_sentences_are_short() -> None:
    assert too_long() == []


def test_the_readme_is_read_in_a_minute() -> None:
    assert len(README.splitlines()) <= 200


def test_the_repository_has_what_it_is_to_ship() -> None:
    assert "MIT" in (ROOT / "LICENSE").read_text()
    assert "2506.09099" in (ROOT / "CITATION.cff").read_text()
