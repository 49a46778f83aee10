"""The WSGI application: optuna-dashboard's own, with the routes that are ours in place of some of its."""

import functools
import gzip
import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna_dashboard
from bottle import Bottle, HTTPError, HTTPResponse, request, response
from optuna_dashboard._app import create_app

from hpo.errors import HpoError, StorageError, UsageError
from hpo.web.answers import Application
from hpo.web.bundle import bundle
from hpo.web.detail import Details
from hpo.web.downloads import file_name, trials_csv
from hpo.web.guard import Access, Guard
from hpo.web.login import Account, Login
from hpo.web.storage import View

STUDY = "/api/studies/<study_id:int>"
LONGEST_NOTE = 60_000
"""Characters."""
_LOGOUT = '<form class="hpo-logout" method="post" action="/logout"><button>Log out</button></form>'


def application(view: View, access: Access, account: Account | None) -> Application:
    """Everything behind the guard and, with an account, behind its login."""
    inner: Application = routes(view, logout=account is not None)
    if account is not None:
        inner = Login(inner, account, lambda host: access.origin(host).startswith("https"))
    return Guard(inner, access)


def routes(view: View, logout: bool) -> Bottle:
    """optuna-dashboard's routes, and ours; a route that is defined again takes the place of the first."""
    app = create_app(view)
    app.install(functools.partial(_checked, view=view))
    details = Details(view)
    threading.Thread(target=details.warm, name="warm", daemon=True).start()
    page = _page(logout)
    style = files("hpo.web").joinpath("login.css").read_text(encoding="utf-8")

    app.get("/", callback=lambda: _answer("", "text/plain", HTTPStatus.FOUND, {"Location": "/dashboard"}))
    app.get("/dashboard<:re:(/.*)?>", callback=lambda: _answer(page, "text/html"))
    app.get("/login.css", callback=lambda: _answer(style, "text/css"))
    app.get("/static/bundle.js", callback=lambda: _packed(bundle(), "text/javascript; charset=utf-8"))

    def detail(study_id: int) -> HTTPResponse:
        body = details.answer(study_id, _position(request.query.get("after", "0")))
        return _packed(body, "application/json")

    def download(study_id: int) -> HTTPResponse:
        numbers = [_position(number) for number in request.query.get("trial_ids", "").split(",") if number]
        with view.study(study_id) as study:
            names = [f"Objective {n}" for n in range(len(study.row.directions))]
            text = trials_csv(study.trials, names if len(names) > 1 else ["Value"], numbers or None)
            name = file_name(study.row.name)
        return _answer(text, "text/csv", headers={"Content-Disposition": f"attachment; filename={name}"})

    def delete(study_id: int) -> HTTPResponse:
        view.delete_study(study_id)
        return HTTPResponse(status=HTTPStatus.NO_CONTENT.value)

    app.get(STUDY, callback=detail)
    app.delete(STUDY, callback=delete)
    app.get("/csv/<study_id:int>", callback=download)
    return app


def _checked(callback: Callable[..., Any], view: View) -> Callable[..., Any]:
    """A route that knows its study, its request's body, and how to say what went wrong."""

    @functools.wraps(callback)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            if "study_id" in kwargs:
                view.get_study_name_from_id(kwargs["study_id"])
            if request.method in {"PUT", "DELETE"}:
                _check_body()
            answered = callback(*args, **kwargs)
            if response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR and "study_id" in kwargs:
                # What optuna-dashboard makes of any exception: a plot of trials that it cannot draw.
                return _refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "this cannot be made of the study's trials")
            return answered
        except KeyError as error:
            status, reason = HTTPStatus.NOT_FOUND, f"there is no study {error}"
        except HpoError as error:
            known = (found for kind, found in _STATUSES.items() if isinstance(error, kind))
            status, reason = next(known, HTTPStatus.INTERNAL_SERVER_ERROR), str(error)
        return _refusal(status, reason)

    return checked


class _Malformed(HpoError):
    """A request that means nothing."""


_STATUSES = {
    _Malformed: HTTPStatus.BAD_REQUEST,
    UsageError: HTTPStatus.CONFLICT,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _Malformed(f"not a trial's number: {text[:40]!r}")
    return int(text)


def _check_body() -> None:
    """Look at the JSON that comes with a note or a deletion.

    Raises:
        _Malformed: it is not what the page sends.
    """
    try:
        sent = request.json
    except HTTPError:
        sent = None
    if request.method == "DELETE" and sent is None:
        return
    if not isinstance(sent, dict):
        raise _Malformed("the body must be a JSON object")
    if request.method == "DELETE":
        return
    version, body = sent.get("version"), sent.get("body")
    if not isinstance(version, int) or not isinstance(body, str) or len(body) > LONGEST_NOTE:
        raise _Malformed(
            f"`version` must be a whole number, and `body` a text of up to {LONGEST_NOTE:,} characters"
        )


def _refusal(status: HTTPStatus, reason: str) -> HTTPResponse:
    return _answer(json.dumps({"reason": reason}), "application/json", status)


def _answer(
    body: str,
    kind: str,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> HTTPResponse:
    return HTTPResponse(body.encode(), status.value, {"Content-Type": f"{kind}; charset=utf-8", **headers})


def _packed(body: bytes, kind: str) -> HTTPResponse:
    """What is kept compressed, as the browser takes it."""
    if "gzip" in request.get_header("Accept-Encoding", ""):
        return HTTPResponse(body, headers={"Content-Type": kind, "Content-Encoding": "gzip"})
    return HTTPResponse(gzip.decompress(body), headers={"Content-Type": kind})


def _page(logout: bool) -> str:
    """optuna-dashboard's page, with our title, our style, and a way out."""
    page = (Path(optuna_dashboard.__file__).parent / "index.html").read_text(encoding="utf-8")
    page = page.replace("<title>Optuna Dashboard</title>", "<title>hpo dashboard</title>")
    page = page.replace("</head>", '<link rel="stylesheet" href="/login.css">\n</head>')
    return page.replace("</body>", f"{_LOGOUT}\n</body>") if logout else page
