"""How long the explorer's server takes for a click: each thing one can do, on each run given.

python tests/benchmarks/clicks.py RUN [RUN ...]

Measured are two requests, for the new address and for what then stands in the pane, made as the
browser makes them, each click on another prompt, so that nothing is ready; the first of each kind,
which opens the model, is left out.
"""

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tbtt_interp.explore.app import Explorer
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.state import Pane, State

LIMIT = 150  # ms
TIMES = 15
SITE = "blocks.0.hook_resid_post"
CLICKS = {  # view, what attention is of, what is done
    "another prompt": ("attention", "prompt", ""),
    "pin a token": ("attention", "prompt", "pin 4"),
    "cut an edge": ("attention", "prompt", "cut 0.0.4.1"),
    "cut, mean over equations": ("attention", "equations", "cut 0.0.4.1"),
    "cut, mean by role": ("attention", "roles", "cut 0.0.4.1"),
    "QK circuit": ("attention", "QK", ""),
    "OV circuit": ("attention", "OV", ""),
    "answer, lens, attribution": ("answer", "prompt", "cut 0.0.4.1"),
    "patch": ("patching", "prompt", "patch blocks.0.attn.hook_z.0@4"),
    "probe's reading": ("probes", "prompt", f"probe answer@{SITE}@-1"),
    "another step": ("attention", "prompt", "step"),
}


def post(client: Any, output: str, outputs: Any, inputs: list, state: list, changed: str) -> None:
    """One request as the page makes it."""
    answer = client.post(
        "/_dash-update-component",
        json={"output": output, "outputs": outputs, "inputs": inputs, "state": state,
              "changedPropIds": [changed]},
    )  # fmt: skip
    assert answer.status_code in (200, 204), answer.text


def click(explorer: Explorer, client: Any, state: State, action: str) -> float:
    """Milliseconds of one click in the first pane."""
    address = state.address(explorer.first)
    pane = {"type": "body", "pane": "a"}
    start = time.perf_counter()
    if action:
        event = {"pane": "a", "act": action, "number": 1}
        there = [("address", "search"), ("written", "data"), ("broken", "children"),
                 ("done", "children")]  # fmt: skip
        post(
            client, "..address.search...written.data...broken.children...done.children..",
            [{"id": i, "property": p} for i, p in there],
            [{"id": "event", "property": "data", "value": event}],
            [{"id": "address", "property": "search", "value": address}], "event.data",
        )  # fmt: skip
        address = explorer.after(state, "a", action).address(explorer.first)
    body, shown = (f'{{"pane":"a","type":"{kind}"}}' for kind in ("body", "shown"))
    post(
        client, f"..{body}.children...{shown}.data..",
        [{"id": pane, "property": "children"},
         {"id": {"type": "shown", "pane": "a"}, "property": "data"}],
        [{"id": "address", "property": "search", "value": address},
         {"id": {"type": "tick", "pane": "a"}, "property": "n_intervals", "value": None}],
        [{"id": {"type": "shown", "pane": "a"}, "property": "data", "value": None}],
        "address.search",
    )  # fmt: skip
    return 1_000 * (time.perf_counter() - start)


def measure(explorer: Explorer, run: str) -> dict[str, list[float]]:
    """Of every kind of click its times."""
    client = explorer.app.server.test_client()
    mine = explorer.catalogue.run(run)
    prompts = [example.prompt for example in mine.tasks[0].examples]
    turn = itertools.cycle(prompts)
    found: dict[str, list[float]] = {}
    for name, (view, shown, action) in CLICKS.items():
        steps = list(mine.checkpoints)
        for k in range(TIMES + 1):
            prompt = next(turn)
            corrupt = next(p for p in prompts if len(p) == len(prompt) and p[1] != prompt[1]
                           and p[2:] == prompt[2:])  # fmt: skip
            state = State(
                view=view, prompt=prompt, corrupt=corrupt, shown=shown,
                panes=(Pane(run=run), Pane(run=run)),
            )  # fmt: skip
            done = f"step {steps[k % len(steps)]}" if action == "step" else action
            if view == "probes" and k == 0:  # the run's own map is made beside the page
                while not explorer.views.jobs.known or not all(
                    job.is_done for job in explorer.views.jobs.known.values()
                ):
                    click(explorer, client, state, "")
                    time.sleep(0.5)
            took = click(explorer, client, state, done)
            found.setdefault(name, []).append(took)
    return {name: times[1:] for name, times in found.items()}  # the first opens the model


def main() -> None:
    """Prints a table; status 1 if a median is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    catalogue = Catalogue.of(parser.parse_args().runs)
    torch.set_num_threads(1)
    explorer = Explorer(catalogue)
    table = Table(title=f"ms a click at the server: median (longest) of {TIMES}")
    found = {run: measure(explorer, run) for run in catalogue.names}
    for name in ("click", *found):
        table.add_column(name, justify="left" if name == "click" else "right")
    for name in CLICKS:
        table.add_row(name, *(
            f"{statistics.median(of[name]):.0f} ({max(of[name]):.0f})" for of in found.values()
        ))  # fmt: skip
    Console(width=120).print(table)
    slow = [n for of in found.values() for n, t in of.items() if statistics.median(t) > LIMIT]
    print(f"medians over {LIMIT} ms: {', '.join(slow) or 'none'}")
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
