"""Exports a model that ships, with its prompts' tokens and its answers, for the other tools.

python tests/ecosystem/export.py MODELS
"""

import json
import sys
from pathlib import Path

import tbtt_interp as tbtt
from tbtt_interp.evaluate import complete

run, out = tbtt.load_run("arithmetic-small-line"), Path(sys.argv[1])
task, seed = run.task, 0
tbtt.export_huggingface(run, out, seeds=[seed])
prompts = [example.prompt for example in task.examples]
stacked = {name: value[:1] for name, value in run.parameters().items()}
answers = {
    prompt: complete(stacked, run.shape, prompt, task.vocabulary, task.terminators, limit=3)[0]
    for prompt in [*prompts[::5], "<3+4=", "<9-2="]
}
expected = {
    "seed": f"seed-{seed}",
    "tokens": {prompt: task.vocabulary.encode(prompt) for prompt in prompts},
    "completions": {p: answer.text.removesuffix(">") for p, answer in answers.items()},
}
(out / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
