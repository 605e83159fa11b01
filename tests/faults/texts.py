"""Hostile corpora, recipes, flags and names: each is answered or refused before training starts."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.attack import Attack, Case

from tbtt_interp.cli.training import default_name, parse_setting
from tbtt_interp.runs import load_run
from tbtt_interp.tasks import FRAMINGS, load_task
from tbtt_interp.tasks.entropy import stream_floors
from tbtt_interp.train.recipe import resolve_recipe
from tbtt_interp.train.stacks import check_cost, model_shape, model_streams

CHINESE = list(map(chr, range(0x4E00, 0x4E00 + 4_000)))  # as many different characters
CORPORA = {  # of 4 KB, that would take much
    "one line of 4,000 characters.txt": "ab" * 2_000,
    "two lines of 2,000.txt": "ab" * 1_000 + "\n" + "ab" * 999 + "c",
    "1,300 lines of two characters.txt": "\n".join(CHINESE[:1_300]),
    "4,000 different characters.txt": "".join(CHINESE),
    "a long line and short ones.txt": "x" * 3_000 + "\n" + "\n".join(map(str, range(99, 399))),
    "one character of prompt.tsv": "prompt\tanswer\na\t" + "b" * 4_000,
    "an answer of 60 lines.tsv": "prompt\tanswer\n" + "".join(f"{k}\t{'b' * 60}\n"
                                                              for k in range(60)),
    "1,000 labels.tsv": "\t".join(["prompt", "answer", *map(str, range(990))]) + "\na\tb"
                        + "\t1" * 990,
    "null characters.csv": "prompt,answer\n\0,\0\n" + "\0" * 99,
    "a field that never ends.csv": 'prompt,answer\n"' + "a" * 200_000,
    "carriage returns.tsv": "prompt\tanswer\ra\tb\rc\td\r",
    "a prompt with newlines.csv": 'prompt,answer\n"a\nb",c\n',
    "labels of 5,000 digits.tsv": f"prompt\tanswer\tx\na\tb\t{'9' * 5_000}\n",
    "a header alone.tsv": "prompt\tanswer\n",
    "columns twice.tsv": "prompt\tprompt\tanswer\na\tb\tc\n",
    "byte order marks.txt": "\ufeff\ufeffa\n\ufeffb\n",
    "escape sequences.txt": "\x1b[2J\x1b]0;x\x07\n\x9b31mred\n",
}  # fmt: skip
UNREADABLE = {"bytes": b"\xff\xfe\x80", "zeros": bytes(4_096), "nothing": b"",
              "newlines": b"\n" * 4_096}  # fmt: skip
SIZES = ("../../x", "/tmp/x", "..", "a/b", "a\\\\b", "", "x" * 300, "\\u001b[2J", "\\u0000")
SIZED = "[model]\nsize = {}\nlayers = 1\nheads = 1\nd_model = 4\nd_mlp = 4"
SHAPES = ("L999H1D14M14", "L1H1D99999M14", "L1H3D14M14", "L0H1D1M1", "L" + "9" * 5_000,
          f"L{'9' * 5_000}H1D1M1", "L200H1D9000M60000")  # fmt: skip
COUNTS = ("seeds", "deal_pairs", "training.window", "training.batch", "training.steps",
          "model.layers", "model.d_model", "first_seed", "training.evaluate_every")  # fmt: skip
SETTINGS = ("training.steps=" + "9" * 5_000, "a=" + "[" * 50_000, "=", "x")
RECIPES = ("x = " + "[" * 50_000, "seeds = " + "9" * 5_000, "\0", "[training]\nclip = nan",
           "[training]\nlearning_rate = 1" + "0" * 400, "[training]\nkeep_states = ['x']",
           "[sizes.medium.training]\nkeep_states = []", "[training]\nsteps = 1e9",
           "[changes]\ndecay_from = 9223372036854775808", 'base = "../quick"',
           'task = "/etc/passwd/x"', "held_out = [[5, 1" + "0" * 4_000 + "]]",
           "held_out_each = [[[0, 1]], 3]")  # fmt: skip


def work(path: str, framing: str) -> None:
    """What training reads and computes of a corpus before its first step."""
    recipe = resolve_recipe("quick", {"task": path, "framing": framing, "model.size": "small",
                                      "seeds": 1})  # fmt: skip
    tasks = recipe.tasks()
    check_cost(model_shape(recipe, tasks[0]), recipe, tasks[0])
    for stream in model_streams(recipe, tasks):
        stream_floors(stream)
        _ = stream.reference(), stream.draw(0), stream.windows


def corpus(suffix: str, text: str, framing: str) -> Attack:
    """Writes a corpus and works on it."""

    def attack() -> None:
        Path(f"c{suffix}").write_text(text, encoding="utf-8", newline="")
        work(f"c{suffix}", framing)

    return attack


def corpus_cases() -> Iterator[Case]:
    """Corpora of few bytes that would take much, in every framing, and unreadable ones."""
    for name, text in CORPORA.items():
        for framing in FRAMINGS:
            yield Case(f"{name}, {framing}", corpus(Path(name).suffix, text, framing))
    for name, content in UNREADABLE.items():
        make = partial(Path("c.txt").write_bytes, content)
        yield Case(f"a corpus of {name}", partial(work, "c.txt", "file"), make)

    def many() -> None:
        Path("c.txt").write_text("\n".join(f"{k:06d}{'x' * 14}" for k in range(30_000)))
        assert len(load_task("c.txt").lines) == 30_000

    yield Case("30,000 lines of a shared form", many)


def recipe_cases() -> Iterator[Case]:
    """Recipes, flags and names that would write elsewhere, or ask for too much."""
    for size in SIZES:
        yield Case(f"a size called {size[:9]}", toml(SIZED.format(f'"{size}"')))
    asked: list[tuple[str, Any]] = [(key, value) for key in COUNTS
                                    for value in (-1, 10**13, 10**400)]  # fmt: skip
    for key, value in [*asked, *(("model.size", size) for size in SHAPES)]:
        yield Case(f"{key} is {str(value)[:20]}", partial(resolve, "quick", {key: value}))
    for text in SETTINGS:
        setting = lambda text=text: resolve("quick", dict([parse_setting(text)]))  # noqa: E731
        yield Case(f"--set {text[:20]}", setting)
    for text in RECIPES:
        yield Case(f"a recipe {text[:40]!a}", toml(text))
    for name in ("x" * 300, "x/" * 200, "no\0such", "é" * 200):
        for what, load in (("recipe", resolve_recipe), ("task", load_task), ("run", load_run)):
            yield Case(f"a {what} called {name[:9]!a}", partial(load, name))


def toml(text: str) -> Attack:
    """Writes a recipe and reads it."""

    def attack() -> None:
        Path("mine.toml").write_text(text, encoding="utf-8")
        resolve("mine.toml", {})

    return attack


def resolve(source: str, given: dict[str, Any]) -> None:
    """What training does with a recipe before its first step."""
    recipe = resolve_recipe(source, given)
    folder = Path("runs", default_name(recipe))
    assert folder.parent == Path("runs") and folder.name != "..", folder
    tasks = recipe.tasks()
    check_cost(model_shape(recipe, tasks[0]), recipe, tasks[0])
    model_streams(recipe, tasks)
