"""`tbtt explore`: trained models in a browser."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tbtt_interp.cli.output import Runs
from tbtt_interp.errors import TbttError, printable

if TYPE_CHECKING:
    from tbtt_interp.explore.catalogue import Catalogue


def explore_command(
    runs: Runs = None,
    port: Annotated[
        int,
        Option(
            help="The port to listen on; if it is in use, the next free one.", min=1, max=65_535
        ),
    ] = 8050,
    host: Annotated[
        str, Option(help="The address to listen on; by default this machine alone.")
    ] = "127.0.0.1",
    browser: Annotated[bool, Option("--open", help="Also open the page.")] = False,
    out: Annotated[
        Path | None, Option(help="Write the page, with the models in it, as one file, and stop.")
    ] = None,
    site: Annotated[
        Path | None, Option(help="Write the page as a folder for any web host, and stop.")
    ] = None,
    seed: Annotated[
        list[int] | None, Option(help="With --out: only this seed; may be given several times.")
    ] = None,
    step: Annotated[
        list[int] | None, Option(help="With --out: only this step; may be given several times.")
    ] = None,
    probes: Annotated[
        bool, Option("--probes", help="With --out or --site: also compute missing probes.")
    ] = False,
) -> None:
    """Explore models in a browser: answers, attention, patching.

    Two models stand side by side on one prompt, with a slider over training.

    tbtt explore runs/arithmetic-small-file runs/arithmetic-large-file

    The address holds everything that is on screen, so a copied link shows the same. Ctrl-C stops.
    """
    from tbtt_interp.explore.catalogue import Catalogue

    catalogue, seeds, steps = Catalogue.of(runs or []), seed or [], step or []
    if out is None and (seeds or steps):
        raise TbttError("--seed and --step choose what --out FILE holds: give --out, or drop them")
    if out is None and site is None:
        if probes:
            raise TbttError("a served page computes probes on request: drop --probes or give --out")
        _serve(catalogue, host, port, browser=browser)
        return
    if out is not None:
        from tbtt_interp.explore.export import checked_size

        megabytes = checked_size(catalogue, seeds, steps) / 1e6
        print(f"{out}: about {megabytes:.1f} MB of weights, in base64", flush=True)
    if probes:
        _compute_probes(catalogue, seeds, steps)
    _write(catalogue, out, site, seeds, steps)


def _compute_probes(catalogue: "Catalogue", seeds: list[int], steps: list[int]) -> None:
    """Computes the probes of all checkpoints that will be in the page."""
    from tbtt_interp.explore.export import chosen_checkpoints
    from tbtt_interp.explore.probe_tables import computed_table

    for name in catalogue.names:
        for checkpoint, _ in chosen_checkpoints(catalogue, name, seeds, steps):
            print(f"{name}: probes at step {checkpoint.step:,}", flush=True)
            computed_table(checkpoint.run, checkpoint.step)


def _write(
    catalogue: "Catalogue", out: Path | None, site: Path | None, seeds: list[int], steps: list[int]
) -> None:
    """Writes the page as a file, as a folder, or both."""
    from tbtt_interp.explore.export import single_page, write_site
    from tbtt_interp.files import write_new

    if out is not None:
        content = single_page(catalogue, seeds, steps).encode()
        write_new(out, content)
        print(f"wrote {out}, {len(content) / 1e6:.1f} MB: open it in any browser")
    if site is not None:
        write_site(catalogue, site)
        print(f"wrote {site}: put this folder on any web host")


def _serve(catalogue: "Catalogue", host: str, port: int, *, browser: bool) -> None:
    """Serves until a signal comes."""
    import signal
    import webbrowser

    from tbtt_interp.explore.server import PageServer

    server = PageServer(catalogue, host=host, port=port)
    for name, reason in catalogue.problems.items():
        print(printable(f"left out, {name}: {reason}"), file=sys.stderr)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    address = f"http://{shown}:{server.port}/"
    taken = "" if server.port == port else f" (port {port} is taken)"
    plural = "s" if len(catalogue.names) > 1 else ""
    print(f"{len(catalogue.names)} run{plural} at {address}{taken}; Ctrl-C stops", flush=True)
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"anyone who reaches {host} can look: there is no password", file=sys.stderr)
    if browser:
        webbrowser.open(address)
    for number in (signal.SIGINT, signal.SIGTERM):  # a background process ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    print("stopped")
