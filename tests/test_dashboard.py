"""The dashboard's answers: who gets in, what is shown, and that nothing of it can break the page."""

import csv
import gzip
import io
import json
import math
import stat
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import report_example as example
from commands import HPO, Desk
from conftest import study_of
from dashboards import HASH, PASSWORD, USER, Served, served
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard._serializer import serialize_frozen_trial
from searching import search

from hpo.errors import StorageError, UsageError
from hpo.search.database import Database
from hpo.search.records import Changes, Finish, StudyRecord
from hpo.search.status import STOPPED, StatusReader
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.web import bundle, password
from hpo.web.detail import BEST, LATEST, MAX_CURVES, Details
from hpo.web.downloads import trials_csv
from hpo.web.notes import MARK
from hpo.web.password import Hash, known_hash, write_hash
from hpo.web.readable import readable_attrs, readable_trial
from hpo.web.serialized import trial_json
from hpo.web.slowdown import APART, LONGEST, MANY, Slowdown
from hpo.web.storage import ReadOnlyError, View
from hpo.web.writing import WritableView

STUDY = """\
name: wine
data: {source: sklearn, name: wine}
search: {learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}, optimizer: {choices: [adam, sgd]}}
sampler: random
trials: 4
training: {epochs: 2}
options: {width: 8}
"""


def detail(view: View, study_id: int = 1, after: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(gzip.decompress(Details(view).answer(study_id, after)))
    return answer


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The URL of a database with a searched study."""
    path = tmp_path_factory.mktemp("dashboard") / "hpo.db"
    path.write_bytes(empty_database.read_bytes())
    with pytest.MonkeyPatch.context() as patch, Database(f"sqlite:///{path}") as database:
        patch.setenv("HPO_CACHE", str(path.parent / "cache"))
        search(database, study_of(STUDY))
    yield f"sqlite:///{path}"


@pytest.fixture(scope="module")
def site(searched: str) -> Iterator[Served]:
    with served(searched, names=["hpo.example"], secure=["hpo.example"]) as running:
        yield running


def made(database: Database, count: int, values: int = 2, run: int = 0, sign: int = 1) -> StudyRecord:
    """A study of hpo's with `count` finished trials, `run` running and 5 waiting ones.

    Values rise with the numbers, or fall where `sign` is -1.
    """
    config = study_of(STUDY).model_dump(mode="json")
    attrs = {"hpo:config": config, "hpo:folder": "/", "hpo:fingerprint": "none"}
    study = Studies(database).submit("made", StudyDirection.MAXIMIZE, attrs, count + run + 5)
    store = Store(database)
    claims = store.claim(study.study_id, "worker-1-a", {}, count + run, count + run)
    changes = Changes()
    for claim in claims:
        changes.steps += [(claim.trial_id, step, claim.number / 1000 + step) for step in range(1, values + 1)]
    changes.finishes = [
        Finish(c.trial_id, TrialState.COMPLETE, sign * c.number / 1000) for c in claims if c.number < count
    ]
    store.record("worker-1-a", {claim.trial_id: claim.attempt for claim in claims}, changes)
    return study


# --- who gets in


def test_without_a_session_there_is_nothing_but_the_form(site: Served) -> None:
    assert site.ask("/healthz").body == "ok\n"
    assert (
        site.ask("/dashboard/studies/1?x=2").headers["Location"] == "/login?next=/dashboard/studies/1%3Fx%3D2"
    )
    for path in ("/api/studies", "/api/studies/1", "/csv/1", "/static/bundle.js", "/api/meta", "/nowhere"):
        answer = site.ask(path)
        assert answer.status == 401 and "wine" not in answer.body, path
    assert '<input type="hidden" name="next" value="/dashboard">' in site.ask("/login?next=/dashboard").body


def test_the_right_password_opens_the_dashboard_until_one_logs_out(site: Served) -> None:
    answer = site.log_in(next="/dashboard/studies/1")
    assert answer.status == 303 and answer.headers["Location"] == "/dashboard/studies/1"
    assert all("; HttpOnly; SameSite=Strict" in cookie for cookie in answer.cookies)
    assert not any("Secure" in cookie for cookie in answer.cookies)
    cookie = "; ".join(cookie.partition(";")[0] for cookie in answer.cookies)
    assert site.ask("/api/studies", cookie=cookie).status == 200
    assert site.ask("/logout", "POST", cookie=cookie, Origin=site.address).status == 303
    assert site.ask("/api/studies", cookie=cookie).status == 401


def test_a_wrong_password_or_name_is_refused_and_slows_only_the_one_who_failed(searched: str) -> None:
    with served(searched) as site:
        known = site.session()
        refused = site.log_in("wrong password")
        assert refused.status == 403 and "Wrong user name or password." in refused.body
        assert not refused.cookies
        assert site.log_in().status == 429, "the next try comes too soon, whatever the password"
        assert site.log_in(cookie=known).status == 303, "a browser that was in before is not slowed"
    with served(searched) as site:
        assert site.log_in(user="eve").status == 403


def test_only_places_of_the_dashboard_are_returned_to(site: Served) -> None:
    for place in ("//evil.example", "https://evil.example", "/\\evil.example", "/dashboard\nX: y"):
        assert site.log_in(next=place, cookie=site.session()).headers["Location"] == "/dashboard"


def test_behind_a_proxy_with_https_cookies_are_secure_and_its_origin_is_the_only_one(site: Served) -> None:
    form = f"user={USER}&password={PASSWORD.replace(' ', '+')}"
    for origin, status in (("https://hpo.example", 303), ("http://hpo.example", 403)):
        answer = site.ask("/login", "POST", form, Host="hpo.example", Origin=origin)
        assert answer.status == status
        assert all(cookie.endswith("; Secure") for cookie in answer.cookies)


def test_sizes_of_requests_are_limited(site: Served) -> None:
    assert site.ask("/login", "POST", "user=a&password=" + "x" * 5000, Origin=site.address).status == 400
    assert site.ask("/login", X_Long="x" * 20_000).status == 431
    assert site.ask("/login", "POST", "x" * 300_000, Origin=site.address).status == 413


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_waits_double_up_to_seconds_and_never_lock_out() -> None:
    clock = Clock()
    slow = Slowdown(clock)
    waits = []
    for _ in range(8):
        slow.failed("eve")
        waits.append(slow.wait("eve", known=False))
        clock.now += LONGEST
        assert slow.wait("eve", known=False) == 0
    assert waits == [1, 2, 4, 8, 16, 16, 16, 16]
    assert slow.wait("ada", known=False) == 0
    slow.succeeded("eve")
    slow.failed("eve")
    assert slow.wait("eve", known=False) == 1


def test_an_attack_from_many_addresses_slows_strangers_but_no_known_browser() -> None:
    clock = Clock()
    slow = Slowdown(clock)
    for number in range(MANY):
        assert slow.wait(f"address {number}", known=False) == 0
        slow.failed(f"address {number}")
    assert slow.wait("another", known=False) == APART
    assert slow.wait("ada's browser", known=True) == 0
    clock.now += APART
    assert slow.wait("another", known=False) == 0
    assert slow.wait("one more", known=False) == APART


# --- the password


def test_a_hash_fits_its_password_alone_and_survives_being_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hash"
    write_hash(PASSWORD, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and PASSWORD not in path.read_text()
    read = known_hash(path)
    assert read is not None and read.fits(PASSWORD) and not read.fits(PASSWORD + " ")
    assert "$" not in str(HASH) and Hash.parse(str(HASH), "x") == HASH


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_hash_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    write_hash(PASSWORD, tmp_path / "hash")
    (tmp_path / "hash").chmod(mode)
    with pytest.raises(UsageError, match=r"others can read it \(mode .*chmod 600"):
        known_hash(tmp_path / "hash")


@pytest.mark.parametrize("text", ["", "secret", "scrypt:15:a:b", "scrypt:30:AAAA:AAAA", "md5:15:AAAA:AAAA"])
def test_what_is_no_hash_is_refused_and_not_quoted(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(password.HASH, text or " ")
    with pytest.raises(UsageError, match=f"{password.HASH}: not a hash") as refused:
        known_hash(None)
    assert not text or text not in str(refused.value)


@pytest.fixture
def desk(tmp_path: Path, empty_database: Path) -> Desk:
    (tmp_path / "hpo.db").write_bytes(empty_database.read_bytes())
    desk = Desk(tmp_path)
    desk.environment["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    return desk


@pytest.mark.slow
def test_others_are_not_let_in_without_a_password(desk: Desk) -> None:
    answer = desk.hpo("dashboard", "--host", "0.0.0.0", "--port", "0", code=2)
    assert "hpo dashboard set-password" in answer.stderr
    assert "without a path" in desk.hpo("dashboard", "--url", "https://a.example/b", code=2).stderr
    desk.environment["HPO_STORAGE"] = f"sqlite:///{desk.folder}/none.db"
    assert "hpo db init" in desk.hpo("dashboard", code=2).stderr


@pytest.mark.slow
def test_the_command_serves_with_the_password_that_was_set(desk: Desk) -> None:
    def set_password(text: str, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*HPO, "dashboard", "set-password", *more],
            input=text,
            env=desk.environment,
            capture_output=True,
            text=True,
        )

    assert set_password("short\n").returncode == 2
    printed = set_password(f"{PASSWORD}\n", "--print")
    assert Hash.parse(printed.stdout, "stdout").fits(PASSWORD)
    assert set_password(f"{PASSWORD}\n").returncode == 0
    with desk.started("dashboard", "--host", "0.0.0.0", "--port", "0", "--user", USER) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "read-only, with a login" in line, line
        site = Served(int(line.split()[2].rpartition(":")[2]))
        assert site.ask("/api/studies", cookie=site.session()).status == 200
        process.terminate()
        assert process.wait(30) == 0


# --- what is shown


def test_a_study_is_answered_as_optuna_dashboard_would(searched: str) -> None:
    with Database(searched, read_only=True) as database:
        view = View(database)
        answer = detail(view)
        with view.study(1) as study:
            for trial, shown in zip(study.trials, answer["trials"], strict=True):
                theirs = serialize_frozen_trial(1, trial, {})
                assert shown.keys() == theirs.keys()
                for key in theirs.keys() - {"values", "params", "intermediate_values"}:
                    assert shown[key] == theirs[key], key
                assert shown["values"] == pytest.approx(theirs["values"], rel=1e-5)
                for mine, its in zip(shown["params"], theirs["params"], strict=True):
                    assert mine["distribution"] == its["distribution"] and mine["name"] == its["name"]
                    assert mine["param_internal_value"] == pytest.approx(
                        its["param_internal_value"], rel=1e-5
                    )
        assert [trial["number"] for trial in detail(view, after=2)["trials"]] == [2, 3]
        names = {"worker", "attempt", "epochs", "seconds"}
        assert names <= {attr["key"] for attr in answer["trials"][0]["user_attrs"]}
        assert {"key": "sampler", "value": "name: random"} in answer["user_attrs"]
        assert answer["best_trials"][0]["values"] == [max(t["values"][0] for t in answer["trials"])]
        plots = {plot["id"]: json.loads(plot["graph_object"]) for plot in answer["plotly_graph_objects"]}
        assert plots.keys() == {"learning-curves", "over-time", "lanes"}


def test_the_note_tells_what_status_tells(searched: str) -> None:
    with Database(searched, read_only=True) as database:
        note = detail(View(database))["note"]["body"]
        status = StatusReader(database, Studies(database).study("wine")).read()
    assert status.best is not None
    for fact in (
        "maximize the validation accuracy of `mlp` on `wine`",
        f"**State:** {status.state}. {status.finished} of {status.total} trials finished",
        f"{status.best.value:.4g} (trial {status.best.number})",
        "| `learning_rate` | 0.001 to 0.1, logarithmic |",
        "| `optimizer` | adam, sgd |",
        "sampler `random`",
    ):
        assert fact in note, note


def test_waiting_trials_behind_the_last_are_hidden_and_others_keep_their_place(sqlite: Database) -> None:
    study = made(sqlite, 3, run=2)
    store = Store(sqlite)
    (first,) = sqlite.read(
        lambda connection: connection.exec_driver_sql(
            "SELECT trial_id FROM trials WHERE state = 'RUNNING' ORDER BY number LIMIT 1"
        ).all()
    )
    store.record("worker-1-a", {first[0]: 1}, Changes(releases=[first[0]]))
    answer = detail(View(sqlite), study.study_id)
    assert [(trial["number"], trial["state"]) for trial in answer["trials"]] == [
        *((number, "Complete") for number in range(3)),
        (3, "Waiting"),
        (4, "Running"),
    ]
    assert "5 waiting trials behind the last claimed one are not listed." in answer["note"]["body"]
    assert "`hpo worker made`" in answer["note"]["body"] and "worker-1-a (1)" in answer["note"]["body"]


def test_of_many_trials_the_best_the_latest_and_the_running_keep_their_values(sqlite: Database) -> None:
    count = MAX_CURVES + 60
    study = made(sqlite, count, run=2)
    view = View(sqlite)
    answer = detail(view, study.study_id)
    kept = {trial["number"] for trial in answer["trials"] if trial["intermediate_values"]}
    best = set(range(count - BEST, count))  # values rise with the numbers
    assert kept == best | set(range(count + 2 - LATEST, count + 2))
    assert [trial["number"] for trial in answer["trials"]] == list(range(count + 2)), "no trial is dropped"
    assert not answer["has_intermediate_values"] and "intermediate" in {
        plot["id"] for plot in answer["plotly_graph_objects"]
    }
    assert f"the {BEST} best and the {LATEST} latest" in answer["note"]["body"]


def test_what_changed_is_shown_and_what_has_not_is_answered_as_it_was(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.web.watched.FRESH", 0.0)
    monkeypatch.setattr("hpo.web.storage.FRESH", 0.0)
    study = made(sqlite, 2)
    view = View(sqlite)
    details = Details(view)
    first = details.answer(study.study_id, 0)
    assert details.answer(study.study_id, 0) is first
    Studies(sqlite).set_attrs(study.study_id, {STOPPED: True})
    assert "**State:** stopped" in detail(view, study.study_id)["note"]["body"]
    store = Store(sqlite)
    (claim,) = store.claim(study.study_id, "worker-2-b", {}, 1, 9)
    assert [trial["state"] for trial in detail(view, study.study_id)["trials"]] == [
        "Complete",
        "Complete",
        "Running",
    ]
    store.record(
        "worker-2-b", {claim.trial_id: 1}, Changes(finishes=[Finish(claim.trial_id, TrialState.FAIL)])
    )
    assert detail(view, study.study_id)["trials"][2]["state"] == "Fail"


def test_while_the_database_is_away_the_last_view_is_shown(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.web.watched.FRESH", 0.0)
    monkeypatch.setattr("hpo.web.storage.FRESH", 0.0)
    study = made(sqlite, 2)
    view = View(sqlite)
    before = detail(view, study.study_id)["trials"]

    def gone(*_: object) -> None:
        raise StorageError("gone")

    monkeypatch.setattr(sqlite, "read", gone)
    monkeypatch.setattr(sqlite, "look", gone)
    assert detail(view, study.study_id)["trials"] == before
    assert list(view.rows()) == [study.study_id]


def test_another_study_in_the_place_of_a_deleted_one_is_read_anew(
    sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.web.watched.FRESH", 0.0)
    study = made(sqlite, 4)
    view = WritableView(sqlite, sqlite)
    assert len(detail(view, study.study_id)["trials"]) == 4
    view.delete_study(study.study_id)
    again = made(sqlite, 1)
    assert again.study_id == study.study_id
    assert len(detail(view, study.study_id)["trials"]) == 1


# --- nothing breaks the page


def test_the_installed_optuna_dashboard_has_what_is_changed_in_its_script(site: Served) -> None:
    found = {theirs: bundle.original().count(theirs) for theirs in bundle.CHANGES}
    assert set(found.values()) == {1}, found
    script = site.ask("/static/bundle.js", cookie=site.session()).body
    assert all(ours in script for ours in bundle.CHANGES.values())


def odd(**changes: Any) -> FrozenTrial:
    trial = create_trial(value=1.0)
    trial.number, trial._trial_id, trial.datetime_start = 7, 8, datetime(2026, 1, 1)
    for name, value in changes.items():
        setattr(trial, name, value)
    return trial


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_complete_trial_without_a_finite_value_is_shown_as_failed(value: float) -> None:
    shown = readable_trial(odd(values=[value]))
    assert (shown.state, shown.values) == (TrialState.FAIL, None)
    assert shown.user_attrs == {"stored value": str(value)}


def test_values_that_json_has_no_number_for_never_reach_it() -> None:
    steps = {1: math.nan, 2: math.inf, 3: 0.123456789}
    attrs = {
        "nan": math.nan,
        "deep": {"a": [math.inf, {"b": None}], "c": "<b>"},
        "text": "x" * 9999,
        "yes": True,
    }
    trial = readable_trial(
        odd(intermediate_values=steps, user_attrs=attrs, system_attrs={"constraints": [math.nan]})
    )
    shown = json.loads(trial_json(1, trial, (0, ""), True), parse_constant=lambda name: pytest.fail(name))
    assert [step["value"] for step in shown["intermediate_values"]] == ["nan", "inf", 0.123457]
    values = {attr["key"]: attr["value"] for attr in shown["user_attrs"]}
    assert values["deep"] == "a: (inf, ()), c: <b>"
    assert values["nan"] == "nan" and values["yes"] == "true" and len(values["text"]) == 2000
    assert shown["constraints"] == []


def test_attributes_are_numbers_and_text() -> None:
    shown = readable_attrs({"fold_spread": 0.0123456, "epochs": 30, "list": [1, 2.5], "none": None})
    assert shown == {"fold_spread": 0.01235, "epochs": 30, "list": "1, 2.5", "none": ""}


def test_a_spreadsheet_runs_nothing_from_the_csv() -> None:
    trial = odd(user_attrs={"=cmd()": "=HYPERLINK(1)", "n": -1.5, "at": "@x"})
    rows = list(csv.reader(io.StringIO(trials_csv([trial], ["Value"], None))))
    assert rows[0][:3] == ["Number", "State", "Value"] and rows[1][:3] == ["7", "COMPLETE", "1.0"]
    cells = dict(zip(rows[0], rows[1], strict=True))
    assert cells["UserAttribute =cmd()"] == "'=HYPERLINK(1)" and cells["UserAttribute n"] == "-1.5"
    assert cells["UserAttribute at"] == "'@x"


def test_every_write_of_the_view_is_refused_and_so_it_is_by_the_database(sqlite: Database) -> None:
    study = made(sqlite, 1)
    view = View(sqlite)
    writes: list[Callable[[], Any]] = [
        lambda: view.create_new_study([StudyDirection.MINIMIZE], "x"),
        lambda: view.delete_study(1),
        lambda: view.set_study_user_attr(1, "a", 1),
        lambda: view.set_study_system_attr(1, "a", 1),
        lambda: view.create_new_trial(1),
        lambda: view.set_trial_param(1, "x", 1.0, example.distributions(example.config().search)["dropout"]),
        lambda: view.set_trial_state_values(1, TrialState.FAIL),
        lambda: view.set_trial_intermediate_value(1, 1, 1.0),
        lambda: view.set_trial_user_attr(1, "a", 1),
        lambda: view.set_trial_system_attr(1, "a", 1),
    ]
    for write in writes:
        with pytest.raises(ReadOnlyError):
            write()
    with Database(str(sqlite), read_only=True) as reader, pytest.raises(StorageError, match="readonly"):
        Studies(reader).set_attrs(study.study_id, {"a": 1})


@pytest.mark.postgres
def test_postgres_refuses_what_a_read_only_connection_writes(postgres: Any) -> None:
    with Database(postgres.database()) as database:
        database.create_schema()
        study = made(database, 1)
        url = database.url.render_as_string(hide_password=False)
        with Database(url, patience=0.0, read_only=True) as reader:
            assert detail(View(reader), study.study_id)["name"] == "made"
            with pytest.raises(StorageError, match="read-only"):
                Studies(reader).set_attrs(study.study_id, {"a": 1})


# --- writing, where it is allowed


def test_notes_and_deletions_need_allow_writes_and_our_own_page(sqlite: Database) -> None:
    study = made(sqlite, 1, run=1)
    place = f"/api/studies/{study.study_id}"
    note = json.dumps({"version": 1, "body": f"mine\n\n{MARK}\n\nours, sent back"})
    with served(str(sqlite), login=False) as site:
        assert site.ask(f"{place}/note", "PUT", note, Origin=site.address).status == 405
    with served(str(sqlite), login=False, writes=True) as site:

        def ask(path: str, method: str, body: str | None = None, origin: str = site.address) -> int:
            kind = "application/json"
            return site.ask(path, method, body, Origin=origin, Content_Type=kind).status

        assert ask(f"{place}/note", "PUT", note, origin="http://evil.example") == 403
        assert site.ask(f"{place}/note", "PUT", note).status == 403, "without an Origin"
        assert ask(f"{place}/note", "PUT", note) == 204
        assert ask(f"{place}/note", "PUT", note) == 409, "of an old version"
        assert ask(f"{place}/note", "PUT", '{"version": "1", "body": 2}') == 400
        shown = json.loads(site.ask(place).body)["note"]
        assert shown["version"] == 1 and shown["body"].startswith(f"mine\n\n{MARK}\n\n**Goal:**")
        assert ask(f"{place}/rename", "POST", '{"study_name": "x"}') == 405
        assert ask(place, "DELETE", "{}") == 409, "a trial of it runs"
        Store(sqlite).record("worker-1-a", {2: 1}, Changes(releases=[2]))
        assert ask(place, "DELETE", "{}") == 204
        assert site.ask(place).status == 404
    assert Studies(sqlite).studies() == []
    left = ("trials", "hpo_leases", "trial_intermediate_values", "study_user_attributes", "study_directions")
    for table in left:
        query = f"SELECT * FROM {table}"
        rows = sqlite.look(lambda connection, query=query: connection.exec_driver_sql(query).all())
        assert rows == [], table
