"""The page on this machine's loopback, by the standard library's HTTP server.

It answers for the page's own files, the tables of the runs named, their weights and their probes,
and for nothing else. A request under another host's name is refused, so that no other site can read
runs.
"""

import errno
import json
import logging
import re
import socket
import sys
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.bundle import FILES, page_file
from tbtt_interp.explore.catalogue import Catalogue
from tbtt_interp.explore.export import POLICY, as_json
from tbtt_interp.explore.probe_tables import computed_table
from tbtt_interp.explore.run_tables import (
    Checkpoint,
    catalogue_table,
    checkpoints,
    run_table,
    weights_of,
)

LOCAL = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": POLICY.format(
        script="'self'", style="'self'", connect="'self'", worker="'self'"
    ) + "; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-cache",
}  # fmt: skip
RUN = re.compile(r"/runs/(\d{1,6})/(?:run\.json|(\d{1,6})\.safetensors|probes/(\d{1,6})\.json)")
TRIED = 50  # ports after the one that was asked for


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at that port, or at the next that is free.

    Raises:
        TbttError: if none is, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + TRIED, 65_536)):
        try:
            return socket.create_server((host, candidate), family=family)
        except PermissionError as error:
            raise TbttError(
                f"port {candidate} may not be listened on ({error}): give one above 1023"
            ) from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise TbttError(
                    f"host {host} cannot be listened on ({error}): leave --host out"
                ) from error
    raise TbttError(f"ports {port} to {port + TRIED - 1} are all taken: give another --port")


class PageServer(ThreadingHTTPServer):
    """A server of the page and some runs, not yet serving."""

    daemon_threads = True

    def __init__(self, catalogue: Catalogue, *, host: str, port: int) -> None:
        taken = listening(host, port)
        super().__init__((host, port), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = taken
        self.server_address = taken.getsockname()
        self.catalogue = catalogue
        catalogue_table(catalogue)  # read now, so that the page opens at once
        self.hosts = () if host in ("0.0.0.0", "::") else (host, f"[{host}]", *LOCAL)

    @property
    def port(self) -> int:
        """The port that the server listens at."""
        return int(self.socket.getsockname()[1])

    def content(self, path: str) -> tuple[str, Callable[[], bytes]] | None:
        """The type and the content that stand at a path; None where nothing does."""
        name = path.removeprefix("/") or "index.html"
        if name in FILES:
            return FILES[name], partial(page_file, name)
        if name == "catalogue.json":
            table = catalogue_table(self.catalogue) | {"computes": True}
            return "application/json", lambda: as_json(table)
        match = RUN.fullmatch(path)
        if not match or int(match[1]) >= len(self.catalogue.names):
            return None
        run = self.catalogue.names[int(match[1])]
        if match[2] is not None:
            return "application/octet-stream", lambda: weights_of(self._kept(run, int(match[2])))
        if match[3] is not None:
            return "application/json", partial(self._probes, run, int(match[3]))
        return "application/json", lambda: as_json(run_table(self.catalogue, run))

    def _kept(self, run: str, place: int) -> Checkpoint:
        kept = checkpoints(self.catalogue, run)
        if place >= len(kept):
            raise TbttError(f"{run} has no checkpoint of that number any more: reload the page")
        return kept[place]

    def _probes(self, run: str, place: int) -> bytes:
        checkpoint = self._kept(run, place)
        return as_json(computed_table(checkpoint.run, checkpoint.step))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves in the middle of a request is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Sends what stands at the path, or says in JSON what is wrong."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if self.server.hosts and host not in self.server.hosts:
            self._send(403, "text/plain", f"{host} is not this server's name\n".encode())
            return
        found = self.server.content(self.path.partition("?")[0])
        if found is None:
            self._send(404, "text/plain", b"there is no such file here\n")
            return
        kind, read = found
        try:
            self._send(200, kind, read())
        except TbttError as error:
            self._send(410, "application/json", json.dumps({"error": str(error)}).encode())
        except ConnectionError:
            raise
        except Exception as error:  # the page has to say it, whatever it is
            logging.getLogger(__name__).exception("A request broke.")
            said = f"the server broke ({type(error).__name__}: {error}); see its log"
            self._send(500, "application/json", json.dumps({"error": said}).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing of each request."""
