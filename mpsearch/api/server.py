"""The web server: one process, on loopback unless told otherwise."""

import errno
import resource
import socket
from typing import Final

import uvicorn
from fastapi import FastAPI

from mpsearch.api.connection import ImpatientProtocol
from mpsearch.api.settings import HOST
from mpsearch.errors import ConflictError

_BACKLOG: Final = 2048
_SECONDS_TO_FINISH_ANSWERS: Final = 5


def listen(port: int, *, host: str = HOST) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        ConflictError: The port is taken, or it or the address is not ours to take.
    """
    # Named, or asyncio does not know it for TCP and leaves each answer waiting some 40 ms for
    # the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        fact = "taken by another program" if error.errno == errno.EADDRINUSE else str(error)
        raise ConflictError(
            f"Port {port} on {host} cannot be used: {fact}. Expected a free one. Choose another "
            f"with `mpsearch serve --port {port + 1}`, or any free one with `--port 0`."
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address that a listening socket is reached by."""
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


def run_server(application: FastAPI, *, listener: socket.socket) -> None:
    """Answer requests until the process is told to end."""
    _allow_connections()
    config = uvicorn.Config(
        application,
        log_level="warning",
        log_config=None,
        timeout_graceful_shutdown=_SECONDS_TO_FINISH_ANSWERS,
        http=ImpatientProtocol,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener])


def _allow_connections() -> None:
    """Take as many open files as the system grants: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
