"""The dashboard as it is served, in the test's own process, and clients of it."""

import contextlib
import http.client
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from waitress import wasyncore

from hpo.search.database import Database
from hpo.web.app import application
from hpo.web.guard import Access
from hpo.web.login import Account
from hpo.web.password import Hash
from hpo.web.server import serving
from hpo.web.storage import View
from hpo.web.writing import WritableView

USER, PASSWORD = "ada", "correct horse"
HASH = Hash.of(PASSWORD)


@dataclass(frozen=True)
class Answer:
    """What the server said."""

    status: int
    headers: Mapping[str, str]
    body: str
    cookies: tuple[str, ...] = ()
    """As they are set."""


@dataclass(frozen=True)
class Served:
    """A dashboard at work."""

    port: int

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}"

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, cookie: str = "", **headers: str
    ) -> Answer:
        """One request; `headers` with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Host": f"localhost:{self.port}", "Cookie": cookie}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, sent)
            answered = connection.getresponse()
            text = answered.read().decode("utf-8", "replace")
            cookies = tuple(answered.headers.get_all("Set-Cookie", []))
            return Answer(answered.status, dict(answered.getheaders()), text, cookies)
        finally:
            connection.close()

    def log_in(self, password: str = PASSWORD, user: str = USER, cookie: str = "", **fields: str) -> Answer:
        """Send the form."""
        form = urlencode({"user": user, "password": password, **fields})
        return self.ask("/login", "POST", form, cookie, Origin=self.address)

    def session(self) -> str:
        """The cookie of somebody who has logged in."""
        return "; ".join(cookie.partition(";")[0] for cookie in self.log_in().cookies)


@contextlib.contextmanager
def served(url: str, login: bool = True, writes: bool = False, **access: Any) -> Iterator[Served]:
    """A dashboard over a database; what it is reached by is like `hpo dashboard` has it by default."""
    account = Account(USER, HASH) if login else None
    with Database(url, patience=2.0, read_only=True) as database, contextlib.ExitStack() as stack:
        view = View(database)
        if writes:
            view = WritableView(database, stack.enter_context(Database(url)))
        rules = Access(frozenset(access.get("names", ())), frozenset(access.get("secure", ())), writes)
        with serving(application(view, rules, account), "127.0.0.1", 0) as server:
            thread = threading.Thread(target=server.run, name="dashboard", daemon=True)
            thread.start()
            try:
                yield Served(server.effective_port)
            finally:
                with contextlib.suppress(OSError):  # the loop may have closed the trigger before it is pulled
                    server.trigger.pull_trigger(partial(_end, server))
                thread.join(20)


def _end(server: Any) -> None:
    """End the server's loop, from within it."""
    server.task_dispatcher.shutdown()
    wasyncore.close_all(server._map)
