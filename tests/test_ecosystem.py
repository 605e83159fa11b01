"""What other tools are compared with in tests/ecosystem is what this package has."""

import json
import runpy
from pathlib import Path

import tbtt_interp as tbtt

FOLDER = Path(__file__).parent / "ecosystem"


def test_the_export_for_other_tools_has_every_prompt_and_the_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["export.py", str(tmp_path / "models")])
    runpy.run_path(str(FOLDER / "export.py"))
    expected = json.loads((tmp_path / "models/expected.json").read_text())
    task = tbtt.load_task("arithmetic")
    assert expected["tokens"] == {e.prompt: task.vocabulary.encode(e.prompt) for e in task.examples}
    assert expected["completions"]["<3+4="] == "7"
    assert (tmp_path / "models" / expected["seed"] / "model.safetensors").is_file()
