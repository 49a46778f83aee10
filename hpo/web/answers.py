"""Answers that are not optuna-dashboard's: status, headers, a body."""

import json
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

Environ = dict[str, Any]
Headers = Sequence[tuple[str, str]]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def answer(
    start: StartResponse, status: HTTPStatus, body: str, kind: str = "text/plain", headers: Headers = ()
) -> list[bytes]:
    """Answer with a text."""
    content = body.encode()
    lead = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(content)))]
    start(f"{status.value} {status.phrase}", [*lead, *headers])
    return [content]


def refusal(
    environ: Environ, start: StartResponse, status: HTTPStatus, reason: str, headers: Headers = ()
) -> list[bytes]:
    """Answer why not: the page shows the `reason` of what it fetches."""
    if environ.get("PATH_INFO", "").startswith("/api/"):
        return answer(start, status, json.dumps({"reason": reason}), "application/json", headers)
    return answer(start, status, f"{reason}\n", headers=headers)


def redirection(start: StartResponse, place: str, headers: Headers = ()) -> list[bytes]:
    """Send the browser to another page of ours."""
    return answer(start, HTTPStatus.SEE_OTHER, "", headers=[("Location", place), *headers])
