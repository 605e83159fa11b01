"""Commands on hostile names: each answers, or ends in one printable line and status 2."""

import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

from faults.attack import Attack, Case
from faults.run_folders import config_of

from tbtt_interp.cli import main
from tbtt_interp.errors import TbttError
from tbtt_interp.runs import load_run

SECRET = "the lines of a file that is none of a run's business"


def command(*words: str) -> Attack:
    """A command that answers, or ends in one printable line and status 2."""

    def attack() -> None:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = main(words)
        shown = out.getvalue() + err.getvalue()
        assert status in (0, 2), status
        assert not status or (err.getvalue().count("\n") == 1 and not out.getvalue()), shown
        assert all(c.isprintable() or c == "\n" for c in shown), ascii(shown)
        if status:
            raise TbttError(shown)

    return attack


def command_cases() -> Iterator[Case]:
    """Commands on hostile names and on runs that name hostile things."""
    escape, long = "\x1b[2J\x9b31m\u202e", "x" * 300
    for word in (long, f"{long}/x", escape, "/proc/1/mem", "no\0such", "\udcff"):
        for words in (("evaluate", word), ("ask", word, "3+4"), ("runs", word), ("report", word),
                      ("import", word, "--task", "arithmetic", "--out", "runs/x"),
                      ("import", "good.pt", "--task", word, "--out", "runs/x"),
                      ("export", "runs/good", "--out", f"/proc/{word}"), ("probes", word),
                      ("train", "--recipe", word), ("train", "--task", word), ("sweep", word),
                      ("train", "--from", word), ("ask", "runs/good", word)):  # fmt: skip
            name = " ".join(w if w != word else ascii(w)[:12] for w in words)
            yield Case(name, command(*words))
    for name in ("task", "size", "framing"):
        make = partial(config_of, {name: escape})
        yield Case(f"a {name} with control characters", command("runs", "runs"), make)
    for out in ("/proc/x", "/sys/x", f"runs/{long}", "good.pt/x", "."):
        words = ("import", "good.pt", "--task", "arithmetic", "--out", out)
        yield Case(f"import to {out[:12]}", command(*words))

    def named_file() -> None:
        Path("secret.txt").write_text(f"{SECRET}\nand another line\n")
        config_of({"task": "secret.txt"})
        for words in (("evaluate",), ("ask",), ("verify",), ("probes",), ("export",)):
            more = {"ask": ["a"], "export": ["--out", "runs/x.pt"]}.get(words[0], [])
            try:
                command(*words, "runs/good", *more)()
            except TbttError as error:
                assert SECRET not in str(error)
        _ = load_run("runs/good").task

    yield Case("a run that names a local file as its task", named_file)
