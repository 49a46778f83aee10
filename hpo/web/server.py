"""waitress, with limits: of sizes, of time, of connections. Slow clients cost a socket, not a thread."""

import contextlib
import logging
import resource
import socket
from collections.abc import Iterator
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server

from hpo.errors import UsageError
from hpo.web.answers import Application

TIMEOUT = 20
"""Seconds in which a request must have come, and for which an idle connection is kept."""
CONNECTIONS = 1000
THREADS = 6
HEADERS, BODY = 16 * 1024, 256 * 1024
"""Bytes of a request at most."""
FILES = 4096
"""Open files that the process may have: a connection can take three."""


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection on which a request that comes byte by byte has no more time than an idle one."""

    last_activity: float

    def handle_read(self) -> None:
        began = self.last_activity if self.request is not None else None
        super().handle_read()
        if began is not None and self.request is not None:
            self.last_activity = began


@contextlib.contextmanager
def serving(application: Application, host: str, port: int, proxy: str | None = None) -> Iterator[Any]:
    """A server with `run` and `effective_port`, and its socket; both are closed in the end.

    Args:
        application: What is served.
        host: Where to listen.
        port: 0 takes any that is free.
        proxy: Address of a reverse proxy that is believed when it says who the client is; * for any.

    Raises:
        UsageError: the address is not this machine's, or the port is taken.
    """
    _allow_files()
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    forwarded = {} if proxy is None else {"trusted_proxy": proxy, "trusted_proxy_headers": "x-forwarded-for"}
    with _listening(host, port) as listening:
        server = create_server(
            application,
            sockets=[listening],
            threads=THREADS,
            connection_limit=CONNECTIONS,
            channel_timeout=TIMEOUT,
            cleanup_interval=5,
            max_request_header_size=HEADERS,
            max_request_body_size=BODY,
            asyncore_use_poll=True,  # select() knows no more than 1,024 files
            ident="",
            log_socket_errors=False,
            **forwarded,
        )
        server.channel_class = Channel
        try:
            yield server
        finally:
            server.task_dispatcher.shutdown()
            wasyncore.close_all(server._map)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror}") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        hint = "; --port chooses another" if port else ""
        raise UsageError(f"--host {host}, --port {port}: {error.strerror}{hint}") from error
    return listening


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
