"""Which requests come through, and what every answer says about itself."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from hpo.web.answers import Application, Environ, StartResponse, answer, refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN = ("/login", "/logout")
"""The forms of ours, which change nothing in the database."""
_WRITES = {
    "PUT": re.compile(r"/api/studies/\d{1,18}(/\d{1,18})?/note"),
    "DELETE": re.compile(r"/api/studies/\d{1,18}"),
}
"""What --allow-writes allows: notes, and deleting a study."""

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",  # parallel coordinates are drawn by WebGL programs made from text
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
)
HEADERS = [
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),  # with `no-referrer` forms would be sent with the Origin `null`
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
]
_OURS = {name.lower() for name, _ in HEADERS} | {"access-control-allow-origin", "cache-control"}


@dataclass(frozen=True)
class Access:
    """Under which names the dashboard is reached, and whether it may write."""

    names: frozenset[str]
    """Host names besides the loopback ones."""
    secure: frozenset[str] = frozenset()
    """Those of them that browsers reach by https, through a proxy."""
    writes: bool = False

    def knows(self, host: str) -> bool:
        """Whether a Host header names this dashboard: another name may be an attacker's that leads here."""
        name = _name(host)
        return name in LOOPBACK or name in self.names

    def origin(self, host: str) -> str:
        """The Origin of pages under this Host header."""
        return f"{'https' if _name(host) in self.secure else 'http'}://{host.lower()}"


def _name(host: str) -> str:
    """A Host header's name; empty where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        found, _ = parts.hostname, parts.port  # a port that is no number raises
    except ValueError:
        return ""
    return found or "" if parts.netloc == host and "@" not in host else ""


class Guard:
    """WSGI: lets through what may pass."""

    def __init__(self, application: Application, access: Access) -> None:
        self.application = application
        self.access = access

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        started = _with_headers(start, path)
        if path == "/healthz" and environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
            return answer(started, HTTPStatus.OK, "ok\n")  # for probes, which come by any name
        refused = self._refused(environ)
        if refused is not None:
            return refusal(environ, started, *refused)
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # optuna-dashboard expects it
        return self.application(environ, started)

    def _refused(self, environ: Environ) -> tuple[HTTPStatus, str, Any] | None:
        host, method, path = (
            environ.get("HTTP_HOST", ""),
            environ["REQUEST_METHOD"],
            environ.get("PATH_INFO", ""),
        )
        if not self.access.knows(host):
            reason = "unknown host name: the dashboard's own are given by --host and --url"
            return HTTPStatus.MISDIRECTED_REQUEST, reason, ()
        reading = method in {"GET", "HEAD"}
        if not reading and not (method == "POST" and path in OPEN):
            pattern = _WRITES.get(method)
            if not self.access.writes or pattern is None or not pattern.fullmatch(path):
                reason = (
                    "the dashboard is read-only" if not self.access.writes else "only notes and deletions"
                )
                return HTTPStatus.METHOD_NOT_ALLOWED, reason, [("Allow", "GET, HEAD")]
        origin = environ.get("HTTP_ORIGIN")
        if origin is None and reading:
            return None
        if (origin or "").lower() != self.access.origin(host):
            return HTTPStatus.FORBIDDEN, "the request comes from another site's page", ()
        return None


def _with_headers(start: StartResponse, path: str) -> StartResponse:
    """Starts answers with our headers. Only static files may be kept, and only by the browser itself."""
    kept = "private, max-age=86400" if path.startswith("/static/") else "no-store"

    def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        theirs = [(name, value) for name, value in headers if name.lower() not in _OURS]
        found = kept if status.startswith("200") else "no-store"
        return start(status, [*theirs, *HEADERS, ("Cache-Control", found)], *rest)

    return started
