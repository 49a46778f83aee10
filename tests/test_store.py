"""The store's contract, on SQLite and on Postgres."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from faults import ForgetfulDatabase
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.errors import StorageError, UsageError
from hpo.search.database import LEASES, Database
from hpo.search.history import History, read_trials
from hpo.search.leases import Heartbeat, Leases, Watch
from hpo.search.records import Changes, Claim, Finish, StudyRecord
from hpo.search.store import Store
from hpo.search.studies import Studies

PLENTY = 1000


@pytest.fixture
def study(database: Database) -> StudyRecord:
    return Studies(database).submit("s", StudyDirection.MAXIMIZE, {"note": {"a": 1}}, 20)


def held(claims: list[Claim]) -> dict[int, int]:
    return {claim.trial_id: claim.attempt for claim in claims}


def stock_storage(database: Database) -> optuna.storages.RDBStorage:
    url = database.url.render_as_string(hide_password=False)
    return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": sa.NullPool})


def stock(database: Database, name: str = "s") -> optuna.Study:
    """The study as plain Optuna reads it."""
    return optuna.load_study(study_name=name, storage=stock_storage(database))


def test_submitting_twice_makes_one_study_with_its_trials(database: Database, study: StudyRecord) -> None:
    again = Studies(database).submit("s", StudyDirection.MAXIMIZE, {"note": "another"}, 50)
    assert again == study
    assert Studies(database).counts(study.study_id)[TrialState.WAITING] == 20


def test_extending_adds_numbered_trials(database: Database, study: StudyRecord) -> None:
    assert Studies(database).extend(study.study_id, 5) == 25
    assert Studies(database).extend(study.study_id, 1) == 26
    assert [trial.number for trial in stock(database).trials] == list(range(26))


def test_extensions_at_the_same_time_add_up(database: Database, study: StudyRecord) -> None:
    totals: list[int] = []
    start = threading.Barrier(6)

    def extend() -> None:
        start.wait()
        totals.append(Studies(database).extend(study.study_id, 5))

    threads = [threading.Thread(target=extend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(totals) == [25, 30, 35, 40, 45, 50]
    assert [trial.number for trial in stock(database).trials] == list(range(50))


def test_an_extension_whose_answer_was_lost_is_not_made_twice(database: Database, study: StudyRecord) -> None:
    forgetful = ForgetfulDatabase(database.url.render_as_string(hide_password=False))
    forgetful.lost_answers = 1.0
    with forgetful:
        assert Studies(forgetful).extend(study.study_id, 5) == 25
    assert len(stock(database).trials) == 25


def test_an_unknown_study_is_named_with_those_that_there_are(database: Database, study: StudyRecord) -> None:
    with pytest.raises(UsageError, match=r"no study 'x'; there are s"):
        Studies(database).study("x")


def test_what_is_recorded_reads_back_the_same_through_optuna(database: Database, study: StudyRecord) -> None:
    store = Store(database)
    claims = store.claim(study.study_id, "w", {}, 3, PLENTY)
    first, second, third = (claim.trial_id for claim in claims)
    kind = CategoricalDistribution(["adam", 2, None, True])
    changes = Changes(
        params=[(first, "lr", 0.25, FloatDistribution(0.1, 1.0)), (first, "kind", 1.0, kind)],
        steps=[(first, 1, 0.5), (first, 2, 0.75), (second, 1, 0.1)],
        user_attrs=[(first, "seconds", 1.5)],
        system_attrs=[(second, "completed_rung_0", 0.1)],
        finishes=[
            Finish(first, TrialState.COMPLETE, 0.75),
            Finish(second, TrialState.PRUNED, 0.1),
            Finish(third, TrialState.FAIL),
        ],
    )
    assert store.record("w", held(claims), changes) == set()
    theirs = stock(database).trials[:3]
    assert theirs[0].params == {"lr": 0.25, "kind": 2} and theirs[0].value == 0.75
    assert theirs[0].intermediate_values == {1: 0.5, 2: 0.75}
    assert [trial.state for trial in theirs] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert stock(database).best_trial.number == 0
    assert read_trials(database, study.study_id) == theirs


def test_recording_the_same_again_changes_nothing(database: Database, study: StudyRecord) -> None:
    store = Store(database)
    claims = store.claim(study.study_id, "w", {}, 1, PLENTY)
    trial = claims[0].trial_id
    changes = Changes(steps=[(trial, 1, 0.5)], finishes=[Finish(trial, TrialState.COMPLETE, 0.5)])
    store.record("w", held(claims), changes)
    before = read_trials(database, study.study_id)
    assert store.record("w", held(claims), changes) == set()
    assert read_trials(database, study.study_id) == before


def test_a_finished_trial_never_changes_its_end(database: Database, study: StudyRecord) -> None:
    store = Store(database)
    claims = store.claim(study.study_id, "w", {}, 1, PLENTY)
    trial = claims[0].trial_id
    store.record("w", held(claims), Changes(finishes=[Finish(trial, TrialState.COMPLETE, 0.5)]))
    store.record("w", held(claims), Changes(finishes=[Finish(trial, TrialState.FAIL)]))
    store.record("w", held(claims), Changes(releases=[trial]))
    assert stock(database).trials[0].state == TrialState.COMPLETE


def test_a_trial_that_another_tool_left_running_takes_nobody_s_place(
    database: Database, study: StudyRecord
) -> None:
    assert stock(database).ask().number == 0
    assert [claim.number for claim in Store(database).claim(study.study_id, "w", {}, 5, 1)] == [1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_stored(
    database: Database, study: StudyRecord, value: float
) -> None:
    store = Store(database)
    claims = store.claim(study.study_id, "w", {}, 1, PLENTY)
    trial = claims[0].trial_id
    changes = Changes(steps=[(trial, 1, value)], finishes=[Finish(trial, TrialState.FAIL, value)])
    store.record("w", held(claims), changes)
    stored = stock(database).trials[0]
    assert stored.intermediate_values == {} and stored.values is None


def test_no_trial_is_claimed_twice_by_racing_workers(database: Database) -> None:
    study = Studies(database).submit("race", StudyDirection.MINIMIZE, {}, 100)
    taken: list[int] = []

    def work(name: str) -> None:
        store, mine = Store(database), {}
        while claims := store.claim(study.study_id, name, mine, 3, PLENTY):
            mine |= held(claims)
            taken.extend(claim.number for claim in claims)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(100))


def test_no_more_trials_run_than_may_be_in_flight(database: Database, study: StudyRecord) -> None:
    store = Store(database)
    assert len(store.claim(study.study_id, "a", {}, 3, 5)) == 3
    assert len(store.claim(study.study_id, "b", {}, 3, 5)) == 2
    assert store.claim(study.study_id, "c", {}, 3, 5) == []


def test_a_claim_whose_answer_was_lost_is_not_made_twice(database: Database, study: StudyRecord) -> None:
    with ForgetfulDatabase(database.url.render_as_string(hide_password=False)) as forgetful:
        store = Store(forgetful)
        first = store.claim(study.study_id, "w", {}, 1, PLENTY)
        forgetful.lost_answers = 1.0
        claims = store.claim(study.study_id, "w", held(first), 2, PLENTY)
    assert [claim.number for claim in (*first, *claims)] == [0, 1, 2]
    running = [trial.number for trial in stock(database).get_trials(states=[TrialState.RUNNING])]
    assert running == [0, 1, 2]


class SlowlyCommitting(Database):
    """The first try's connection is lost while it commits: the next one begins before it has."""

    def write(self, work: Callable[[sa.Connection], Any]) -> Any:
        options: dict[str, Any] = {"hpo_write": True} if self.sqlite else {}
        first = self.engine.connect().execution_options(**options)
        transaction = first.begin()
        work(first)

        def commit() -> None:
            transaction.commit()
            first.close()

        threading.Timer(0.5, commit).start()
        return super().write(work)


def test_a_claim_that_is_still_being_committed_is_not_made_twice(
    database: Database, study: StudyRecord
) -> None:
    with SlowlyCommitting(database.url.render_as_string(hide_password=False)) as slow:
        claims = Store(slow).claim(study.study_id, "w", {}, 2, PLENTY)
    assert [claim.number for claim in claims] == [0, 1]
    assert len(stock(database).get_trials(states=[TrialState.RUNNING])) == 2


def test_a_released_trial_keeps_its_number_and_its_parameters(database: Database, study: StudyRecord) -> None:
    store = Store(database)
    claims = store.claim(study.study_id, "w", {}, 1, PLENTY)
    trial = claims[0].trial_id
    params = [(trial, "lr", 0.25, FloatDistribution(0.1, 1.0))]
    store.record("w", held(claims), Changes(params=params, releases=[trial]))
    assert stock(database).trials[0].state == TrialState.WAITING
    again = store.claim(study.study_id, "other", {}, 1, PLENTY)
    assert again == [Claim(trial, 0, 2, alone=False)]
    history = History(database, study.study_id)
    history.refresh()
    assert history.trials[0].params == {"lr": 0.25}


def test_a_worker_that_lost_its_lease_cannot_write(database: Database, study: StudyRecord) -> None:
    store, leases = Store(database), Leases(database)
    claims = store.claim(study.study_id, "frozen", {}, 1, PLENTY)
    trial = claims[0].trial_id
    leases.reclaim(leases.running(), retries=2)
    late = Changes(steps=[(trial, 1, 9.0)], finishes=[Finish(trial, TrialState.COMPLETE, 9.0)])
    assert store.record("frozen", held(claims), late) == {trial}
    other = store.claim(study.study_id, "other", {}, 1, PLENTY)
    assert store.record("frozen", held(claims), late) == {trial}
    store.record("other", held(other), Changes(finishes=[Finish(trial, TrialState.COMPLETE, 0.5)]))
    assert store.record("frozen", held(claims), late) == {trial}
    stored = stock(database).trials[0]
    assert stored.value == 0.5 and stored.intermediate_values == {}


def test_a_worker_that_claims_its_own_lost_trial_again_is_fenced_from_its_old_attempt(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    old = store.claim(study.study_id, "w", {}, 1, PLENTY)
    leases.reclaim(leases.running(), retries=2)
    new = store.claim(study.study_id, "w", {}, 1, PLENTY)
    assert [claim.number for claim in new] == [0] and new[0].attempt == 2
    assert store.record("w", held(old), Changes(steps=[(old[0].trial_id, 1, 9.0)])) == {old[0].trial_id}
    assert store.record("w", held(new), Changes()) == set()


def test_a_renewed_lease_is_not_reclaimed(database: Database, study: StudyRecord) -> None:
    store, leases = Store(database), Leases(database)
    store.claim(study.study_id, "w", {}, 1, PLENTY)
    seen = leases.running()
    leases.renew("w")
    leases.reclaim(seen, retries=2)
    assert stock(database).trials[0].state == TrialState.RUNNING


def test_a_trial_that_kills_its_worker_alone_again_and_again_fails_with_the_cause(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    for attempt in range(1, 4):
        claims = store.claim(study.study_id, f"w{attempt}", {}, 1, PLENTY)
        assert claims[0].number == 0 and claims[0].attempt == attempt
        leases.reclaim(leases.running(), retries=2)
    failed = stock(database).trials[0]
    assert failed.state == TrialState.FAIL
    assert failed.user_attrs["failure"].startswith("its worker died 3 times in a row after epoch 0")


def test_an_attempt_that_reached_a_new_epoch_does_not_count_as_fruitless(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    for epoch in range(1, 6):
        claims = store.claim(study.study_id, f"w{epoch}", {}, 1, PLENTY)
        store.record(f"w{epoch}", held(claims), Changes(steps=[(claims[0].trial_id, epoch, 0.5)]))
        leases.reclaim(leases.running(), retries=0)
    assert stock(database).trials[0].state == TrialState.WAITING


def test_trials_that_died_together_are_retried_one_by_one_and_only_the_guilty_one_fails(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    store.claim(study.study_id, "first", {}, 4, PLENTY)
    leases.reclaim(leases.running(), retries=1)
    guilty, tries = 2, 0
    while tries < 20:
        tries += 1
        claims = store.claim(study.study_id, f"w{tries}", {}, 4, PLENTY)
        if not claims[0].alone:  # all the others were retried already
            break
        assert len(claims) == 1
        if claims[0].number == guilty:
            leases.reclaim(leases.running(), retries=1)
        else:
            finish = Finish(claims[0].trial_id, TrialState.COMPLETE, 1.0)
            store.record(f"w{tries}", held(claims), Changes(finishes=[finish]))
    states = [trial.state for trial in stock(database).trials[:4]]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]


def test_a_busy_worker_is_not_given_a_trial_to_be_retried_alone(
    database: Database, study: StudyRecord
) -> None:
    store, leases = Store(database), Leases(database)
    store.claim(study.study_id, "first", {}, 2, PLENTY)
    leases.reclaim(leases.running(), retries=1)
    busy = held(store.claim(study.study_id, "busy", {0: 1}, 2, PLENTY))
    assert [trial.number for trial in stock(database).trials if trial._trial_id in busy] == [2, 3]


def test_a_lease_expires_only_after_it_was_watched_unrenewed_for_its_whole_time(
    database: Database, study: StudyRecord
) -> None:
    Store(database, lease=0.6).claim(study.study_id, "dead", {}, 2, PLENTY)
    watch = Watch(Leases(database), retries=2)
    assert watch.look() == []
    started = time.monotonic()
    while not (expired := watch.look()):
        time.sleep(0.1)
    assert time.monotonic() - started > 0.5
    assert len(expired) == 2
    assert Studies(database).counts(study.study_id)[TrialState.WAITING] == 20


def test_a_pause_of_the_watcher_does_not_make_everyone_look_dead(
    database: Database, study: StudyRecord
) -> None:
    Store(database, lease=0.4).claim(study.study_id, "alive", {}, 1, PLENTY)
    watch = Watch(Leases(database), retries=2)
    watch.look()
    time.sleep(0.8)  # as if this process had been stopped, or the database away
    assert watch.look() == []


def test_a_heartbeat_keeps_its_worker_s_trials_and_takes_back_those_of_the_dead(
    database: Database, study: StudyRecord
) -> None:
    store = Store(database, lease=0.5)
    mine = store.claim(study.study_id, "alive", {}, 1, PLENTY)
    store.claim(study.study_id, "dead", {}, 1, PLENTY)
    with Heartbeat(Leases(database), "alive", seconds=0.5, retries=2):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and stock(database).trials[1].state != TrialState.WAITING:
            time.sleep(0.1)
    assert stock(database).trials[1].state == TrialState.WAITING
    assert store.record("alive", held(mine), Changes()) == set()


def test_history_reads_each_change_once_and_forgets_what_was_handed_back(
    database: Database, study: StudyRecord
) -> None:
    store, history = Store(database), History(database, study.study_id)
    claims = store.claim(study.study_id, "w", {}, 4, PLENTY)
    ids = [claim.trial_id for claim in claims]
    store.record(
        "w", held(claims), Changes(finishes=[Finish(ids[0], TrialState.COMPLETE, 1.0)], releases=[ids[1]])
    )
    history.refresh()
    assert {trial.number: trial.state for trial in history.trials} == {
        0: TrialState.COMPLETE,
        2: TrialState.RUNNING,
        3: TrialState.RUNNING,
    }
    kept = history.trials[0]
    rest = dict.fromkeys(ids[2:], 1)
    store.record("w", rest, Changes(steps=[(ids[2], 1, 0.5)], releases=[ids[3]]))
    store.claim(study.study_id, "w2", {}, 1, PLENTY)
    history.refresh()
    assert history.trials[0] is kept
    assert history.trials[2].intermediate_values == {1: 0.5}
    assert [trial.number for trial in history.trials] == [0, 1, 2]


def test_deleting_a_study_with_optuna_deletes_its_leases(database: Database, study: StudyRecord) -> None:
    Store(database).claim(study.study_id, "w", {}, 5, PLENTY)
    optuna.delete_study(study_name="s", storage=stock_storage(database))
    count = sa.select(sa.func.count()).select_from(LEASES)
    assert database.read(lambda connection: connection.execute(count).scalar_one()) == 0


def test_plain_optuna_goes_on_with_a_study_of_ours(database: Database) -> None:
    Studies(database).submit("mixed", StudyDirection.MAXIMIZE, {}, 3)
    study = stock(database, "mixed")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_an_attribute_is_claimed_by_one_only(database: Database, study: StudyRecord) -> None:
    studies = Studies(database)
    assert studies.claim_attr(study.study_id, "finalizer", {"pid": 1})
    assert not studies.claim_attr(study.study_id, "finalizer", {"pid": 2})
    studies.drop_attr(study.study_id, "finalizer", {"pid": 2})
    assert studies.study("s").attrs["finalizer"] == {"pid": 1}
    studies.drop_attr(study.study_id, "finalizer", {"pid": 1})
    assert studies.claim_attr(study.study_id, "finalizer", {"pid": 2})


def test_schemas_made_by_racing_workers_are_one(make_database: Callable[[], str]) -> None:
    url = make_database()
    errors: list[BaseException] = []

    def make() -> None:
        with Database(url) as racing:
            try:
                racing.create_schema()
            except StorageError as error:
                errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Database(url) as made:
        assert Studies(made).studies() == []
