"""The login: a form, sessions that live in this process, and the gate that asks for one."""

import hashlib
import hmac
import html
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from importlib.resources import files
from string import Template
from urllib.parse import parse_qs, quote

from hpo.web.answers import Application, Environ, Headers, StartResponse, answer, redirection, refusal
from hpo.web.password import Hash
from hpo.web.slowdown import Slowdown

SESSION, DEVICE = "hpo_session", "hpo_device"
"""Cookies: a session's key; a browser that has logged in before."""
LIFETIME = 12 * 3600.0
"""Seconds of a session without a request."""
KNOWN = 180 * 24 * 3600
"""Seconds for which a browser is known."""
SESSIONS = 1000
PUBLIC = ("/login.css", "/favicon.ico")
"""What the form itself needs."""
LONGEST_FORM = 4096
"""Bytes."""
PATIENCE = 5.0
"""Seconds that a try waits for those before it: a hash takes 32 MiB and a core, so one is made at a time."""
_PAGE = re.compile(r"/dashboard[\w/?=&.%-]*")


@dataclass(frozen=True)
class Account:
    """The one user."""

    name: str
    password: Hash


class Sessions:
    """Who is logged in, for any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: OrderedDict[str, float] = OrderedDict()
        """When each session was used last, the oldest first."""

    def begin(self) -> str:
        """A new session's key."""
        key = secrets.token_urlsafe(32)
        with self._lock:
            self._last[key] = self._clock()
            while len(self._last) > SESSIONS:
                self._last.popitem(last=False)
        return key

    def holds(self, key: str) -> bool:
        """Whether a session has this key, which counts as its use."""
        with self._lock:
            last = self._last.pop(key, None)
            if last is None or self._clock() - last > LIFETIME:
                return False
            self._last[key] = self._clock()
            return True

    def end(self, key: str) -> None:
        """Log out."""
        with self._lock:
            self._last.pop(key, None)


class Login:
    """WSGI: what is asked for without a session leads to the form."""

    def __init__(self, application: Application, account: Account, secure: Callable[[str], bool]) -> None:
        """secure: whether browsers reach a host by https."""
        self.application = application
        self.account = account
        self.secure = secure
        self.sessions = Sessions()
        self.slowdown = Slowdown()
        self._checking = threading.Lock()
        # Of the password's hash: browsers are known after a restart too, until the password changes.
        self._secret = hashlib.sha256(b"device" + account.password.digest).digest()

    def __call__(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        key = _cookie(environ, SESSION)
        if path == "/logout" and method == "POST":
            self.sessions.end(key)
            return redirection(start, "/login", [self._set(environ, SESSION, "", 0)])
        if path == "/login":
            return self._try(environ, start) if method == "POST" else _form(start, HTTPStatus.OK, "", environ)
        if path in PUBLIC or self.sessions.holds(key):
            return self.application(environ, start)
        if method in {"GET", "HEAD"} and (path in {"", "/"} or _PAGE.fullmatch(path)):
            query = f"?{query}" if (query := environ.get("QUERY_STRING", "")) else ""
            return redirection(start, f"/login?next={quote(path + query)}")
        return refusal(environ, start, HTTPStatus.UNAUTHORIZED, "not logged in: reload the page")

    def _try(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        fields = _fields(environ)
        if fields is None:
            return refusal(environ, start, HTTPStatus.BAD_REQUEST, "not a login form")
        device = self._device(environ)
        client = device or environ.get("REMOTE_ADDR", "")
        if not self._checking.acquire(timeout=PATIENCE):
            return _slow(start, 1.0, environ)
        try:
            wait = self.slowdown.wait(client, known=bool(device))
            if wait > 0:
                return _slow(start, wait, environ)
            # Both are compared, whichever is wrong: the time tells nothing.
            right = hmac.compare_digest(fields["user"].encode(), self.account.name.encode())
            right = self.account.password.fits(fields["password"]) and right
        finally:
            self._checking.release()
        if not right:
            self.slowdown.failed(client)
            return _form(start, HTTPStatus.FORBIDDEN, "Wrong user name or password.", environ)
        self.slowdown.succeeded(client)
        self.sessions.end(_cookie(environ, SESSION))
        cookies = [
            self._set(environ, SESSION, self.sessions.begin(), None),
            self._set(environ, DEVICE, device or self._new_device(), KNOWN),
        ]
        asked = fields["next"]
        return redirection(start, asked if _PAGE.fullmatch(asked) else "/dashboard", cookies)

    def _set(self, environ: Environ, name: str, value: str, seconds: int | None) -> tuple[str, str]:
        age = "" if seconds is None else f"; Max-Age={seconds}"
        secure = "; Secure" if self.secure(environ.get("HTTP_HOST", "")) else ""
        return "Set-Cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Strict{age}{secure}"

    def _new_device(self) -> str:
        name = secrets.token_urlsafe(12)
        return f"{name}.{self._mark(name)}"

    def _device(self, environ: Environ) -> str:
        """The device cookie, if it is one of ours."""
        value = _cookie(environ, DEVICE)
        name, _, mark = value.partition(".")
        return value if hmac.compare_digest(mark.encode(), self._mark(name).encode()) else ""

    def _mark(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), hashlib.sha256).hexdigest()


def _cookie(environ: Environ, name: str) -> str:
    try:
        found = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _fields(environ: Environ) -> dict[str, str] | None:
    """What the form sent; None if it was not the form."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > LONGEST_FORM:
        return None
    try:
        body = environ["wsgi.input"].read(int(length)).decode()
        sent = parse_qs(body, keep_blank_values=True, max_num_fields=8, errors="strict")
    except ValueError:
        return None
    fields = {name: sent.get(name, [""])[0] for name in ("user", "password", "next")}
    return fields if {"user", "password"} <= sent.keys() else None


def _slow(start: StartResponse, wait: float, environ: Environ) -> list[bytes]:
    seconds = max(1, round(wait + 0.5))
    message = f"Too many tries: the next one is possible in {seconds} s."
    return _form(start, HTTPStatus.TOO_MANY_REQUESTS, message, environ, [("Retry-After", str(seconds))])


def _form(
    start: StartResponse, status: HTTPStatus, message: str, environ: Environ, headers: Headers = ()
) -> list[bytes]:
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("next", [""])[0]
    asked = asked if _PAGE.fullmatch(asked) else ""
    page = Template(files("hpo.web").joinpath("login.html").read_text(encoding="utf-8"))
    shown = f'<p role="alert">{html.escape(message)}</p>' if message else ""
    query = f"?next={quote(asked)}" if asked else ""
    text = page.substitute(message=shown, query=html.escape(query), next=html.escape(asked))
    return answer(start, status, text, "text/html", headers)
