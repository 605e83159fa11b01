"""`tbtt explore`: trained models in a browser."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    page: Annotated[
        bool, Option("--page", help="Serve the page that computes models in the browser.")
    ] = False,
    out: Annotated[
        Path | None, Option(help="Write that page, with the models in it, as one file, and stop.")
    ] = None,
    site: Annotated[
        Path | None, Option(help="Write that page as a folder for any web host, and stop.")
    ] = None,
    seed: Annotated[
        list[int] | None, Option(help="With --out: only this seed; may be given several times.")
    ] = None,
    step: Annotated[
        list[int] | None, Option(help="With --out: only this step; may be given several times.")
    ] = None,
) -> None:
    """Explore models in a browser: attention, answers, patching, probes, all sizes side by side.

    tbtt explore runs/arithmetic-small-file runs/arithmetic-large-file

    The address has everything that is on screen: copy it, and another sees the same. Ctrl-C stops.
    """
    from tbtt_interp.explore.catalogue import Catalogue

    catalogue = Catalogue.of(runs or [])
    if out is not None or site is not None:
        _write(catalogue, out, site, seed or [], step or [])
        return
    if seed or step:
        raise TbttError("--seed and --step choose what --out FILE holds: give --out, or drop them")
    if page:
        from tbtt_interp.explore.page_server import PageServer

        _serve(catalogue, PageServer(catalogue, host=host, port=port), host, port, browser=browser)
        return
    from tbtt_interp.explore.serving import make_server

    server = make_server(catalogue, host=host, port=port)
    _serve(catalogue, server, host, port, browser=browser)


def _write(
    catalogue: "Catalogue", out: Path | None, site: Path | None, seeds: list[int], steps: list[int]
) -> None:
    """Writes the page as a file, as a folder, or both."""
    from tbtt_interp.explore.single_file import checked_size, single_page, write_site
    from tbtt_interp.files import write_new

    if out is not None:
        megabytes = checked_size(catalogue, seeds, steps) / 1e6
        print(f"{out}: about {megabytes:.1f} MB of weights, in base64", flush=True)
        content = single_page(catalogue, seeds, steps).encode()
        write_new(out, content)
        print(f"wrote {out}, {len(content) / 1e6:.1f} MB: open it in any browser")
    if site is not None:
        write_site(catalogue, site)
        print(f"wrote {site}: put this folder on any web host")


def _serve(catalogue: "Catalogue", server: Any, host: str, port: int, *, browser: bool) -> None:
    """Serves until a signal comes."""
    import signal
    import webbrowser

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
    server.serve_forever()  # until a signal, then closes
    print("stopped")
