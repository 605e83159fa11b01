"""`tbtt explore`: trained models in a browser."""

from typing import Annotated

from typer import Option

from tbtt_interp.cli.output import Runs
from tbtt_interp.errors import printable


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
) -> None:
    """Explore models in a browser: attention, answers, patching, probes, all sizes side by side.

    tbtt explore runs/arithmetic-small-file runs/arithmetic-large-file

    The address has everything that is on screen: copy it, and another sees the same. Ctrl-C stops.
    """
    import signal
    import sys
    import webbrowser

    from tbtt_interp.explore.catalogue import Catalogue
    from tbtt_interp.explore.serving import make_server

    catalogue = Catalogue.of(runs or [])
    server = make_server(catalogue, host=host, port=port)
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
