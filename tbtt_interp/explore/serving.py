"""The explorer's server: on this machine alone unless asked otherwise, on a port that is free."""

import errno
import logging
import socket
from typing import TYPE_CHECKING

from tbtt_interp.errors import TbttError
from tbtt_interp.explore.catalogue import Catalogue

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

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


def make_server(catalogue: Catalogue, *, host: str, port: int) -> "BaseWSGIServer":
    """A server that explores these runs, not yet serving.

    Raises:
        TbttError: if no port is free.
    """
    import torch
    from werkzeug.serving import make_server as make

    from tbtt_interp.explore.app import LOCAL, Explorer

    taken = listening(host, port)
    torch.set_num_threads(1)  # requests come side by side, and these models are small
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    is_open = host in ("0.0.0.0", "::")
    explorer = Explorer(catalogue, hosts=() if is_open else (host, f"[{host}]", *LOCAL))
    with taken:  # the server has a copy of its own
        found = taken.getsockname()[1]
        return make(host, found, explorer.app.server, threaded=True, fd=taken.fileno())
