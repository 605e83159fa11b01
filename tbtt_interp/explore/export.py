"""The page as files: one that holds everything, or a folder for any static host."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tbtt_interp.errors import TbttError, listed
from tbtt_interp.explore.bundle import FILES, WEB, join_modules, page_file
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.probe_tables import ready_table
from tbtt_interp.explore.run_tables import (
    Checkpoint,
    Table,
    catalogue_table,
    checkpoint_row,
    checkpoints,
    run_table,
    size_of_weights,
    weights_of,
    weights_of_seeds,
)
from tbtt_interp.files import unwritable, write_whole

LIMIT = 25_000_000  # bytes of a single file: what mail and chat still take
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; "
    "connect-src {connect}; worker-src {worker}; base-uri 'none'; form-action 'none'"
)


def chosen_checkpoints(
    catalogue: Catalogue, name: str, seeds: Sequence[int], steps: Sequence[int]
) -> list[tuple[Checkpoint, tuple[int, ...]]]:
    """The checkpoints of a run with some seeds and steps, each with its seeds; none are all.

    Raises:
        TbttError: if there is none.
    """
    kept = checkpoints(catalogue, name)
    found = [
        (c, own) for c in kept if not steps or c.step in steps
        if (own := tuple(s for s in c.seeds if not seeds or s in seeds))
    ]  # fmt: skip
    if not found:
        has = listed(sorted({s for c in kept for s in c.seeds}), "and")
        at = listed(sorted({c.step for c in kept}), "and")
        raise TbttError(f"{name} has no such model: its seeds are {has}, its steps {at}")
    return found


def page_size(
    catalogue: Catalogue, seeds: Sequence[int] = (), steps: Sequence[int] = ()
) -> dict[str, int]:
    """The bytes that each run takes in a single file, in base64."""
    return {
        name: sum(
            size_of_weights(c, len(own))
            for c, own in chosen_checkpoints(catalogue, name, seeds, steps)
        ) * 4 // 3
        for name in catalogue.names
    }  # fmt: skip


def checked_size(catalogue: Catalogue, seeds: Sequence[int] = (), steps: Sequence[int] = ()) -> int:
    """The bytes of weights in a single file.

    Raises:
        TbttError: if they are more than 25 MB, saying what to leave out.
    """
    sizes = page_size(catalogue, seeds, steps)
    if (total := sum(sizes.values())) > LIMIT:
        largest = max(sizes, key=lambda name: sizes[name])
        raise TbttError(
            f"the page would have {total / 1e6:,.1f} MB of weights, of which {largest} has "
            f"{sizes[largest] / 1e6:,.1f}, and at most {LIMIT / 1e6:,.0f} MB are allowed: give "
            "fewer runs, --seed N for some seeds, --step N for some steps, or leave out "
            "--out, so that the page is served"
        )
    return total


def single_page(catalogue: Catalogue, seeds: Sequence[int] = (), steps: Sequence[int] = ()) -> str:
    """The page with these runs' weights, as one HTML file that needs no server.

    Raises:
        TbttError: if it would be larger than 25 MB, saying what to leave out.
    """
    checked_size(catalogue, seeds, steps)
    weights: dict[str, str] = {}
    probes: dict[str, Table] = {}
    tables = []
    for number, name in enumerate(catalogue.names):
        table = run_table(catalogue, name)
        chosen = chosen_checkpoints(catalogue, name, seeds, steps)
        table["checkpoints"] = [checkpoint_row(c, own) for c, own in chosen]
        known = {seed for _, own in chosen for seed in own}
        table["seeds"] = [row for row in table["seeds"] if row["seed"] in known]
        tables.append(table)
        for place, (checkpoint, own) in enumerate(chosen):
            content = weights_of_seeds(checkpoint, own)
            weights[f"runs/{number}/{place}.safetensors"] = base64.b64encode(content).decode()
            if found := ready_table(checkpoint.run, checkpoint.step):
                probes[f"runs/{number}/probes/{place}.json"] = found
    listing = catalogue_table(catalogue)
    for row, table in zip(listing["runs"], tables, strict=True):
        row["seeds"] = [one["seed"] for one in table["seeds"]]
    return _assemble({"catalogue": listing, "runs": tables, "weights": weights, "probes": probes})


def _assemble(data: Mapping[str, object]) -> str:
    """The page's HTML with its style, script, worker and data inside, and a policy of hashes."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    style = (WEB / "style.css").read_text(encoding="utf-8")
    script, worker = join_modules("main.js"), join_modules("worker.js")
    for text in (script, worker):
        if "</script" in text.lower():
            raise TbttError("a page module has </script in it: write it in two parts")
    policy = POLICY.format(
        script=f"{_hash(script)} {_hash(worker)} blob:", style=_hash(style), connect="'none'",
        worker="blob:",
    )  # fmt: skip
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="main.js"></script>': (
            f'<script type="application/json" id="page-data">{content}</script>\n'
            f'<script type="text/plain" id="page-worker">{worker}</script>\n'
            f'<script type="module">{script}</script>'
        ),
        "<!-- policy -->": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
    }
    for old, new in parts.items():
        if page.count(old) != 1:
            raise TbttError(f"the page's index.html should have {old} once")
        page = page.replace(old, new)
    return page


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def write_site(catalogue: Catalogue, folder: Path) -> None:
    """The page, its tables and weights as files in a new folder, for any static host.

    Raises:
        TbttError: if the folder has files in it, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TbttError(f"{folder} exists and is not empty: give --site a new folder")
    files = {name: page_file(name) for name in FILES}
    policy = POLICY.format(script="'self'", style="'self'", connect="'self'", worker="'self'")
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    files["index.html"] = files["index.html"].replace(b"<!-- policy -->", meta.encode())
    files["catalogue.json"] = as_json(catalogue_table(catalogue))
    for number, name in enumerate(catalogue.names):
        files[f"runs/{number}/run.json"] = as_json(run_table(catalogue, name))
        for place, checkpoint in enumerate(checkpoints(catalogue, name)):
            files[f"runs/{number}/{place}.safetensors"] = weights_of(checkpoint)
            if found := ready_table(checkpoint.run, checkpoint.step):
                files[f"runs/{number}/probes/{place}.json"] = as_json(found)
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    except OSError as error:
        raise unwritable(folder, error) from error


def as_json(value: object) -> bytes:
    """Plain data as the page reads it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
