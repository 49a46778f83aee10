"""A hostile client: it reaches every route by every method, and changes, breaks and learns nothing."""

import contextlib
import itertools
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import study_of
from dashboards import Served, served
from optuna.trial import TrialState
from searching import submitted

from hpo.config import StudyConfig
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies
from hpo.web.app import routes
from hpo.web.storage import View

pytestmark = pytest.mark.slow

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")
PLACES = {
    "study_id": ("1", "99", "-1", "0x1", "9" * 30, "1%00", "..%2f1", "1;2", "٣"),
    "trial_id": ("1", "-1", "9" * 400),
    "filename": ("bundle.js", "../index.html", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/_app.py", "....//x"),
    "artifact_id": ("abc", "..%2f..%2fetc"),
    "history_id": ("a", "'; DROP TABLE trials; --"),
    "plot_type": (
        "slice",
        "contour",
        "timeline",
        "parallel_coordinate",
        "rank",
        "edf",
        "pareto_front",
        "x",
        "../x",
    ),
}
ODD = (
    "/../../etc/passwd",
    "//evil.example/",
    "/static/%2e%2e/%2e%2e/index.html",
    "/api/studies/1?after=-1",
    "/api/studies/1?after=x",
    "/csv/1?trial_ids=a,b",
    "/csv/1?trial_ids=" + "1," * 1000,
    "/%ff%fe",
    "/login?next=//evil.example",
    "/dashboard/<script>alert(1)</script>".replace("<", "%3C").replace(">", "%3E"),
)
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\n=cmd|x'
BODY = json.dumps(
    {
        "version": 1,
        "body": "x",
        "study_name": "x",
        "directions": ["minimize"],
        "state": "Fail",
        "user_attrs": {"a": 1},
    }
)


def dump(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    tables = sa.MetaData()
    tables.reflect(database.engine)

    def work(connection: sa.Connection) -> dict[str, list[Any]]:
        return {
            name: sorted(map(repr, connection.execute(sa.select(table)).all()))
            for name, table in tables.tables.items()
        }

    return database.read(work)


@pytest.fixture
def hostile(database: Database) -> Iterator[Database]:
    """With a study whose names, parameters and attributes are scripts; on SQLite and Postgres."""
    name = HOSTILE.splitlines()[0]
    with database.engine.begin() as connection:
        ids = "study_id, study_name"
        connection.execute(sa.text(f"INSERT INTO studies ({ids}) VALUES (1, :name)"), {"name": name})
        direction = "INSERT INTO study_directions (study_id, objective, direction) VALUES (1, 0, 'MINIMIZE')"
        connection.execute(sa.text(direction))
        for trial, state in enumerate(("COMPLETE", "COMPLETE", "RUNNING", "FAIL"), 1):
            row = {"id": trial, "number": trial - 1, "state": state}
            sql = "INSERT INTO trials (trial_id, study_id, number, state) VALUES (:id, 1, :number, :state)"
            connection.execute(sa.text(sql), row)
            attr = {"id": trial, "key": HOSTILE, "value": json.dumps(HOSTILE)}
            sql = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (:id, :key, :value)"
            connection.execute(sa.text(sql), attr)
            kind = {"name": "CategoricalDistribution", "attributes": {"choices": [HOSTILE, "b"]}}
            param = {"id": trial, "name": HOSTILE, "json": json.dumps(kind)}
            sql = (
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
                "VALUES (:id, :name, 0, :json)"
            )
            connection.execute(sa.text(sql), param)
        for trial, kind in ((1, "FINITE"), (2, "INF_POS")):
            value = {"id": trial, "kind": kind, "value": 0.5 if kind == "FINITE" else None}
            columns = "trial_id, objective, value, value_type"
            sql = f"INSERT INTO trial_values ({columns}) VALUES (:id, 0, :value, :kind)"
            connection.execute(sa.text(sql), value)
        note = {
            "dashboard:note_ver": 1,
            "dashboard:note_str:0": HOSTILE,
            "artifacts:x": "{",
            "preference:values": 3,
        }
        for key, value in note.items():
            sql = "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (1, :key, :value)"
            connection.execute(sa.text(sql), {"key": key, "value": json.dumps(value)})
    yield database


def url_of(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


def paths() -> list[str]:
    """Every route of the application, with good and bad values in its places."""
    with Database("sqlite:///nothing.db") as nothing:
        rules = {route.rule for route in routes(View(nothing), logout=False).routes}
    found = {"/login", "/logout", "/healthz", *ODD}
    for rule in rules:
        names = re.findall(r"<(\w*):?[^>]*>", rule)
        template = re.sub(r"<(\w*):?[^>]*>", lambda named: f"{{{named[1] or 'rest'}}}", rule)
        first = {name: PLACES.get(name, ("/studies/1",))[0] for name in names if name}
        for name in names:
            for value in PLACES.get(name, ("/studies/1",)):
                found.add(template.format(**(first | {name or "rest": value})))
        if not names:
            found.add(rule)
    return sorted(path for path in found if path)


@pytest.mark.parametrize("writes", [False, True], ids=["read-only", "allow-writes"])
def test_no_request_changes_a_row_or_is_answered_by_an_error_of_ours(hostile: Database, writes: bool) -> None:
    before = dump(hostile)
    asked = paths()
    assert len(asked) > 60
    found: dict[str, int] = {}
    with served(url_of(hostile), login=False, writes=writes) as site:
        for path in asked:
            for method in METHODS:
                # Ours is the only Origin from which notes and deletions are taken.
                answer = raw(site, method, path, "Origin: http://evil.example\r\n" if writes else "")
                found[f"{method} {path}"] = answer
        found |= {f"GET of ours {path}": raw(site, "GET", path) for path in asked}
        for name in ("evil.example", "localhost.evil.example", "", "localhost@evil.example", "127.0.0.1:x"):
            assert site.ask("/api/studies", Host=name).status in {400, 421}, name
        for origin in ("http://evil.example", "null", "https://localhost", site.address + "0"):
            assert site.ask("/api/studies", Origin=origin).status == 403, origin
    assert {place: status for place, status in found.items() if not 200 <= status < 500} == {}
    assert {m for m in METHODS if any(s < 400 for p, s in found.items() if p.startswith(f"{m} "))} <= {
        "GET",
        "HEAD",
    }
    assert found["GET of ours /api/studies/1"] == found["GET of ours /csv/1"] == 200
    assert dump(hostile) == before


def raw(site: Served, method: str, path: str, headers: str = "") -> int:
    """The status of a request that no library would send; 400 where it is not even answered as HTTP."""
    body = BODY.encode() if method not in {"GET", "HEAD"} else b""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost:{site.port}\r\nConnection: close\r\n{headers}"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as connection:
        connection.sendall(head.encode("utf-8") + body)
        with connection.makefile("rb") as answer:
            start = answer.readline()
            answer.read()  # what nobody takes, waitress leaves in a file that is not closed
    return int(start.split()[1])


def test_nothing_answers_that_a_file_outside_or_a_secret_could_be_in(hostile: Database) -> None:
    with served(url_of(hostile), login=False) as site:
        for path in (*ODD, "/static/..%2f_app.py", "/static/../index.html"):
            body = site.ask(path.replace(" ", "%20")).body
            assert "root:" not in body and "def create_app" not in body and "Traceback" not in body, path
        answer = site.ask("/csv/1")
        assert "attachment; filename=script-alert" in answer.headers["Content-Disposition"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        trial = json.loads(site.ask("/api/studies/1").body)["trials"][1]
        assert trial["state"] == "Fail", "an infinite value is never a result"


@contextlib.contextmanager
def slow_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Clients that send a byte of a request now and then."""
    opened = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.2):
            for connection in opened:
                with contextlib.suppress(OSError):
                    connection.send(b"G" if ended.is_set() else b"X-A: b\r\n")

    for connection in opened:
        connection.sendall(b"GET /api/studies HTTP/1.1\r\nHost: localhost\r\n")
    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield opened
    finally:
        ended.set()
        thread.join()
        for connection in opened:
            connection.close()


def searched(name: str) -> StudyConfig:
    """A study that a worker searches in a second."""
    return study_of(
        f"name: {name}\ndata: {{source: sklearn, name: wine}}\nsampler: random\ntrials: 6\n"
        "training: {epochs: 2}\nsearch: {learning_rate: {low: 1.0e-3, high: 1.0e-1}}\noptions: {width: 8}"
    )


@contextlib.contextmanager
def assaults(site: Served) -> Iterator[list[int]]:
    """All requests of all methods, again and again, by four clients; their statuses."""
    ended = threading.Event()
    statuses: list[int] = []
    requests = [(method, path) for path in paths() for method in METHODS]
    random.Random(0).shuffle(requests)  # so that few of them are of all kinds
    asked = itertools.cycle(requests)
    turn = threading.Lock()

    def assault() -> None:
        while not ended.is_set():
            with turn:
                method, path = next(asked)
            statuses.append(raw(site, method, path))

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(assault) for _ in range(4)]
        try:
            yield statuses
        finally:
            ended.set()
        for client in clients:
            client.result()


def test_a_search_amid_hostile_requests_comes_to_the_same(database: Database) -> None:
    found, statuses = {}, []
    with served(url_of(database), login=False, writes=False) as site:
        for name, company in (("beset", assaults(site)), ("alone", contextlib.nullcontext())):
            study = submitted(database, searched(name))
            with company as answered:
                statuses = statuses if answered is None else answered
                serve(database, study, WorkerOptions(4, 1, poll=0.05), threading.Event())
            trials = read_trials(database, study.study_id)
            found[name] = [(trial.number, trial.state, trial.params, trial.value) for trial in trials]
    assert len(statuses) > 50 and set(statuses) <= set(range(200, 500))
    assert found["alone"] == found["beset"]
    assert {state for _, state, _, _ in found["beset"]} == {TrialState.COMPLETE}


def test_200_slow_connections_block_neither_others_nor_workers(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.web.server.TIMEOUT", 4)
    config = searched("wine")
    study = submitted(sqlite, config)
    with served(url_of(sqlite), login=False) as site, slow_connections(site.port, 200) as slow:
        serve(sqlite, study, WorkerOptions(4, 1, poll=0.05), threading.Event())
        assert site.ask("/api/studies/1").status == 200
        trials = read_trials(sqlite, study.study_id)
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
        assert len(json.loads(site.ask("/api/studies/1").body)["trials"]) <= 6
        # Bytes that drip in win no time: the server ends each of them.
        slow[0].settimeout(60)
        began = time.monotonic()
        assert slow[0].recv(1) == b"" and time.monotonic() - began < 50
    assert Studies(sqlite).study("wine").attrs.keys() >= {"hpo:config"}
