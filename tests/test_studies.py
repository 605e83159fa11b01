"""Every study answers on a run, and where it cannot it says so as a command does."""

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import paper
import pytest

from tbtt_interp.errors import TbttError
from tbtt_interp.runs import Run
from tbtt_interp.study import study_arguments
from tbtt_interp.train.recipe import recipe_names

ROOT = Path(__file__).parents[1]
STUDIES = sorted(path for folder in ("analyses", "probes") for path in (ROOT / folder).glob("*.py"))
FEWER = {  # what a study does, and what does as well for a test
    "STEPS, CHAINS = 6_000": "STEPS, CHAINS = 40",
    "positions=[-1])": "positions=[-1], controls=9)",
    "last_streams(run)[-1:])": "last_streams(run)[-1:], controls=9)",
    "analyse_erasure(models, features,": "analyse_erasure(models, features, draws=9,",
    "analyse_latent_answers(models)": "analyse_latent_answers(models, draws=9)",
    "influence_result(Models.of(run))": "influence_result(Models.of(run), draws=9, splits=2)",
}
WITHOUT_A_RUN = ["mixed_model", "paper", "sweeps", "measures", "timing", "transplants", "why",
                 "size", "digits_code", "forecast"]  # fmt: skip
OF_SWEEPS = [name for name in recipe_names("sweeps") if not name.startswith("why-")]
OF_SWEEPS += ["forgetting", "mixed_model"]


@pytest.fixture
def run_study(monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """What a study prints that is run as a script, with these arguments."""

    def run(path: Path, *words: object) -> str:
        monkeypatch.syspath_prepend(ROOT / "analyses")
        monkeypatch.setattr("sys.argv", [str(path), *map(str, words)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out.strip()

    return run


@pytest.mark.parametrize("name", OF_SWEEPS)
def test_the_studies_of_sweeps_answer_on_the_tables_beside_them(name: str, run_study) -> None:
    printed = run_study(ROOT / f"analyses/{name}.py")
    assert re.search(r"^(supported|undecided) ", printed, flags=re.MULTILINE)
    assert "nan" not in printed


@pytest.mark.parametrize(
    "study",
    [path for path in STUDIES if path.stem not in WITHOUT_A_RUN],
    ids=lambda path: path.stem,
)
def test_every_study_answers_on_a_run_and_draws(
    study: Path, line_run: Run, file_run: Run, facts_run: Run, request, run_study
) -> None:
    folder = {"order": file_run, "facts": facts_run}.get(study.stem, line_run).folder
    sweep = {"forgetting": "ladder"}.get(study.stem, study.stem)
    if sweep in recipe_names("sweeps"):
        folder = request.getfixturevalue("sweeps") / sweep
    elif study.stem == "influence":
        folder = request.getfixturevalue("pairs_run").folder
    shorter, text = Path(study.name), study.read_text()
    for long, short in FEWER.items():
        text = text.replace(long, short)
    shorter.write_text(text)
    printed = run_study(shorter, folder, "figure.html")
    assert printed.endswith(".") and "Of 0 claims" not in printed
    assert not re.search(r"<(script|link)[^>]*(src|href)=", Path("figure.html").read_text())


def test_the_paper_s_page_is_built_from_the_studies(run_study) -> None:
    assert re.match(r"window: .*\d+ ", run_study(ROOT / "analyses/paper.py", "window", "page.html"))
    assert "python analyses/paper.py" in Path("page.html").read_text()
    run_study(ROOT / "analyses/paper.py", "why", "digits-code", "answer.html")
    answer = Path("answer.html").read_text().split('id="abstract-h"')[1].split("</ol>")[0]
    assert answer.count("<li>") == 5 and "0.60 [0.51, 0.69]" in answer


def test_a_verdict_that_turns_is_no_longer_the_page_s_answer() -> None:
    results = {name: paper.SWEEPS[name]([], "") for name in ("why", "digits-code")}
    assert len(paper.answer(results)) == 5
    rows = results["why"].tables["why"]
    rows.loc[rows["claim"].str.startswith("Three layers"), "verdict"] = "undecided"
    with pytest.raises(TbttError, match="a claim for supported that is undecided: Three layers"):
        paper.answer(results)


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("probes/carry_borrow", ["facts"], "feature 'carry' is unknown: choose initial"),
        ("probes/too_big_to_say", ["facts"], "nothing was held out from this run: give one of"),
        ("analyses/geometry", ["facts"], "there is no grid of operands here"),
        ("analyses/ladder", ["nowhere"], "there is no finished run below nowhere: train some with"),
        ("analyses/learning", ["a", "b"], "is about 1 run and got 2: a b; figures end in"),
    ],
)
def test_a_study_says_where_it_cannot_answer(name, words, why, facts_run, line_run, run_study):
    runs = {"facts": facts_run.folder, "line": line_run.folder}
    with pytest.raises(TbttError, match=why):
        run_study(ROOT / f"{name}.py", *(runs.get(word, word) for word in words))


def test_a_mistake_ends_a_study_in_one_line_and_status_2() -> None:
    command = [sys.executable, str(ROOT / "analyses/learning.py"), "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: run nowhere is not there: `tbtt runs` lists those under")
    assert done.stderr.count("\n") == 1


def test_a_bug_keeps_its_traceback() -> None:
    code = "from tbtt_interp.study import study_arguments; study_arguments(); 1 / 0"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_arguments_are_runs_and_files_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["study.py", "map.png", "runs/rate-0.01", "map.html"])
    files = [Path("map.png"), Path("map.html")]
    assert study_arguments("runs/mine") == ([Path("runs/rate-0.01")], files)
    monkeypatch.setattr("sys.argv", ["study.py"])
    assert study_arguments("runs/mine") == ([Path("runs/mine")], [])
    assert study_arguments() == ([], [])


def test_in_a_notebook_the_kernel_s_arguments_are_not_the_study_s(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", object())
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert study_arguments("runs/mine") == ([Path("runs/mine")], [])
