"""The checker of the fault suite finds what it is there to find: in doctored runs, and in stock Optuna's."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from checker import Entry, Log, check, read_logs
from commands import eventually
from crew import Crew, Every, Plan
from faults import optimize, stock_storage
from optuna.trial import FrozenTrial, TrialState, create_trial
from standin import value

EPOCHS = 4


def run_of(number: int) -> list[Entry]:
    """What a worker is told of a trial that it trains undisturbed; a second an epoch."""
    began = 100.0 * number
    told = [Entry("claim", "a", number, 1, began, began), Entry("start", "a", number, 1, began, began)]
    for epoch in range(1, EPOCHS + 1):
        at = began + epoch
        told.append(Entry("report", "a", number, 1, at - 0.1, at, epoch, value(number, epoch)))
    end = began + EPOCHS
    told.append(Entry("finish", "a", number, 1, end - 0.1, end, 0, value(number, EPOCHS), "COMPLETE"))
    return told


def stored(number: int) -> FrozenTrial:
    """The same in the database."""
    trial = create_trial(
        state=TrialState.COMPLETE,
        value=value(number, EPOCHS),
        intermediate_values={epoch: value(number, epoch) for epoch in range(1, EPOCHS + 1)},
        user_attrs={"attempt": 1},
    )
    trial.number = number
    return trial


@pytest.fixture
def entries() -> list[Entry]:
    return [entry for number in range(3) for entry in run_of(number)]


@pytest.fixture
def trials() -> list[FrozenTrial]:
    return [stored(number) for number in range(3)]


def found(entries: Sequence[Entry], trials: Sequence[FrozenTrial]) -> list[tuple[str, int | None]]:
    """The violations: promise and trial."""
    ordered = sorted(entries, key=lambda entry: entry.at)
    violations = check(ordered, trials, budget=3, save_every=1.0, expected=value)
    return sorted({(violation.promise, violation.trial) for violation in violations}, key=str)


def test_in_a_run_where_all_went_well_nothing_is_found(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    assert found(entries, trials) == []


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.WAITING])
def test_a_claimed_trial_without_an_end_breaks_p1(
    entries: list[Entry], trials: list[FrozenTrial], state: TrialState
) -> None:
    trials[1].state = state
    trials[1].values = None
    entries = [entry for entry in entries if (entry.trial, entry.kind) != (1, "finish")]
    assert found(entries, trials) == [("P1", 1), ("P3", None)]


def test_a_lost_report_breaks_p2(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    del trials[2].intermediate_values[3]
    assert found(entries, trials) == [("P2", 2)]


def test_a_changed_report_breaks_p2(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    trials[2].intermediate_values[3] += 1e-12
    assert found(entries, trials) == [("P2", 2)]


def test_a_changed_end_breaks_p2(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    trials[0].values = [0.0]
    trials[1].state, trials[1].values = TrialState.FAIL, None
    assert found(entries, trials) == [("P2", 0), ("P2", 1)]


def test_a_stored_value_that_nobody_trained_breaks_p2(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    trials[2].intermediate_values[3] = 9.0
    entries = [entry for entry in entries if (entry.trial, entry.epoch) != (2, 3)]
    assert found(entries, trials) == [("P2", 2)]


@pytest.mark.parametrize("count", [2, 4])
def test_too_few_or_too_many_trials_break_p3(
    entries: list[Entry], trials: list[FrozenTrial], count: int
) -> None:
    entries = [entry for entry in entries if entry.trial < count]
    assert found(entries, [stored(number) for number in range(count)]) == [("P3", None)]


def test_a_number_that_is_missing_or_there_twice_breaks_p3(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    trials[2].number = 1
    assert ("P3", None) in found(entries, trials)
    assert ("P3", 2) in found(entries, trials)


def test_a_trial_that_two_workers_claimed_as_the_same_attempt_breaks_p3(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    assert found([*entries, replace(entries[0], worker="b")], trials) == [("P3", 0)]


def test_a_trial_that_two_workers_finished_breaks_p3(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    finish = next(entry for entry in entries if entry.kind == "finish")
    assert found([*entries, replace(finish, worker="b")], trials) == [("P3", 0)]


def resumed(entries: list[Entry], after: int) -> list[Entry]:
    """Trial 0 whose first worker died before its end, and whose second one went on after some epochs."""
    begun = [entry for entry in run_of(0) if entry.kind != "finish"]
    later = [replace(e, worker="b", attempt=2, at=e.at + 50, began=e.began + 50) for e in run_of(0)]
    later = [replace(e, epoch=after) if e.kind == "start" else e for e in later]
    others = [entry for entry in entries if entry.trial != 0]
    return begun + [e for e in later if e.kind != "report" or e.epoch > after] + others


@pytest.mark.parametrize(
    ("after", "expected"), [(4, []), (3, []), (2, []), (1, [("P4", 0)]), (0, [("P4", 0)])]
)
def test_repeating_more_than_an_epoch_and_a_checkpoint_s_delay_breaks_p4(
    entries: list[Entry], trials: list[FrozenTrial], after: int, expected: list[tuple[str, int]]
) -> None:
    trials[0].user_attrs["attempt"] = 2
    assert found(resumed(entries, after), trials) == expected


def test_a_report_that_was_accepted_after_a_later_claim_breaks_p5(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    trials[0].user_attrs["attempt"] = 2
    late = Entry("report", "a", 0, 1, began=60.0, at=60.1, epoch=4, value=value(0, 4))
    assert found([*resumed(entries, 3), late], trials) == [("P5", 0)]


def test_a_report_that_began_before_the_later_claim_does_not_break_p5(
    entries: list[Entry], trials: list[FrozenTrial]
) -> None:
    trials[0].user_attrs["attempt"] = 2
    early = Entry("report", "a", 0, 1, began=49.9, at=50.1, epoch=4, value=value(0, 4))
    assert found([*resumed(entries, 3), early], trials) == []


def test_an_end_by_an_earlier_attempt_breaks_p5(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    trials[0].user_attrs["attempt"] = 1
    assert found(resumed(entries, 3), trials) == [("P5", 0)]


def test_a_refused_value_in_the_database_breaks_p5(entries: list[Entry], trials: list[FrozenTrial]) -> None:
    trials[0].intermediate_values[4] = 1000.0
    entries = [entry for entry in entries if (entry.trial, entry.epoch) != (0, 4)]
    refused = Entry("refused", "b", 0, 1, began=1.0, at=1.0, epoch=4, value=1000.0)
    assert found([*entries, refused], trials) == [("P5", 0)]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_breaks_p7(
    entries: list[Entry], trials: list[FrozenTrial], number: float
) -> None:
    trials[0].intermediate_values[9] = number
    assert ("P7", 0) in found(entries, trials)
    del trials[0].intermediate_values[9]
    trials[1].values = [number]
    assert ("P7", 1) in found(entries, trials)


def test_a_log_reads_back_without_the_line_that_its_worker_s_end_cut_off(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.claim(3, 2, began=1.0)
    log.add("report", 3, epoch=1, value=0.5)
    file = tmp_path / f"{log.worker}.log"
    file.write_text(file.read_text() + '{"kind": "rep')
    assert [(e.kind, e.trial, e.attempt, e.epoch, e.value) for e in read_logs(tmp_path)] == [
        ("claim", 3, 2, 0, None),
        ("report", 3, 2, 1, 0.5),
    ]


@pytest.mark.slow
def test_stock_optuna_claims_trials_twice_leaves_some_running_and_overshoots(tmp_path: Path) -> None:
    """It is a matter of chance whether two ask for the same trial at once: three times is enough."""
    told: set[tuple[str, str]] = set()
    for again in range(3):
        folder = tmp_path / str(again)
        folder.mkdir()
        told |= _told_of_stock_optuna(folder)
        if ("P3", "attempt 1 was claimed") in told:
            break
    assert ("P3", "attempt 1 was claimed") in told
    assert ("P1", "is RUNNING although nobody works any more") in told


def _told_of_stock_optuna(folder: Path) -> set[tuple[str, str]]:
    """40 enqueued trials for 8 processes on SQLite, 6 for each; some are killed, and started once more."""
    budget = 40
    plan = Plan(f"sqlite:///{folder}/stock.db", "stock", folder, share=6, epoch=0.1)
    study = optuna.create_study(study_name="stock", storage=stock_storage(plan.url))
    for number in range(budget):
        study.enqueue_trial({"number": number})
    with Crew(plan, 8, optimize) as crew:
        eventually(lambda: len(read_logs(folder)) > 20)
        storm = Every(0.4, crew.kill)
        crew.until_done(200, lambda: storm() if storm.times < 6 else None)
    violations = check(read_logs(folder), study.trials, budget)
    told = {(violation.promise, violation.text.split(" by ")[0]) for violation in violations}
    finished = sum(trial.state.is_finished() for trial in study.trials)
    assert finished > budget and ("P3", f"{finished} trials finished, not {budget}") in told
    return told
