"""Running a page: bound to an address, ended by Ctrl-C or SIGTERM after what is under way."""

import signal
import socket
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from sdn_ray.errors import UserError

_LAST_REQUESTS = 20  # seconds that they have at the end


def bound_socket(host: str, port: int) -> socket.socket:
    """An address that is ours from now on.

    Raises:
        UserError: it cannot be.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--port: {host}:{port} cannot be served ({reason}); expected an address of this "
            "machine and a port that is free"
        ) from error


def address(host: str, found: socket.socket, token: str | None = None) -> str:
    """What to open in a browser."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{found.getsockname()[1]}/" + (f"?token={token}" if token else "")


def serve(app: ASGIApp, found: socket.socket) -> None:
    """Answer until the process is told to stop."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # it would keep the token
        server_header=False,
        timeout_graceful_shutdown=_LAST_REQUESTS,
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is answered
            uvicorn.Server(config).run(sockets=[found])
    finally:
        signal.signal(signal.SIGTERM, before)
