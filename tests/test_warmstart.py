"""Warm start: the best trials of an earlier study are the first ones of a new study."""

import threading
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from conftest import study_of
from faults import ForgetfulDatabase
from optuna.trial import TrialState
from searching import search, submitted

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.errors import StudyFileError, UsageError
from hpo.search.database import FIXED_PARAMS, Database
from hpo.search.history import read_trials
from hpo.search.records import Changes, Finish
from hpo.search.status import WARM_START
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import submit
from hpo.search.warmstart import translated

WINE = "data: {source: sklearn, name: wine}\ntraining: {epochs: 1, batch_size: 64}\noptions: {depth: 1}\n"
SMALL = (
    f"{WINE}search: {{dropout: {{low: 0.0, high: 0.5}}, width: {{low: 4, high: 16}},"
    " optimizer: {choices: [adam, sgd]}}\nsampler: random\ntrials: 6\n"
)
LARGE = (
    f"{WINE}search: {{dropout: {{low: 0.1, high: 0.6}}, width: {{low: 8, high: 32}}, batch_size: "
    "{choices: [32, 64]}, optimizer: {choices: [adamw, adam, sgd]}, "
    "momentum: {low: 0.0, high: 0.9, when: {optimizer: sgd}}}\n"
    "warm_start: {study: early, top: 3}\n"
)
VALUES = {
    0: (0.5, {"dropout": 0.2, "width": 10, "optimizer": "adam"}),
    1: (0.9, {"dropout": 0.3, "width": 12, "optimizer": "sgd"}),
    2: (0.8, {"dropout": 0.05, "width": 4, "optimizer": "adam"}),
    3: (0.7, {"dropout": 0.3, "width": 12, "optimizer": "sgd"}),
}
"""Of the earlier study; trial 3 is 1 again, and 2 is partly outside the later space."""


def early(database: Database, values: Any = VALUES, text: str = SMALL) -> StudyConfig:
    """An earlier study with these trials, searched without training."""
    config = study_of(f"name: early\n{text}")
    study, store = submitted(database, config), Store(database)
    claims = store.claim(study.study_id, "worker", {}, len(values), 99)
    changes = Changes()
    for claim in claims:
        value, params = values[claim.number]
        for name, given in params.items():
            kind = config.search[name].distribution()
            changes.params.append((claim.trial_id, name, kind.to_internal_repr(given), kind))
        changes.finishes.append(Finish(claim.trial_id, TrialState.COMPLETE, value))
    store.record("worker", {claim.trial_id: claim.attempt for claim in claims}, changes)
    return config


def late(sampler: str = "random", trials: int = 5, text: str = LARGE) -> StudyConfig:
    return study_of(f"name: late\n{text}sampler: {sampler}\ntrials: {trials}")


FIRST = [
    {"dropout": 0.3, "width": 12, "optimizer": "sgd", "batch_size": 64, "momentum": 0.0},
    {"optimizer": "adam", "batch_size": 64},
    {"dropout": 0.2, "width": 10, "optimizer": "adam", "batch_size": 64},
]
"""What the later study begins with: also the batch size that was fixed before, and sgd's momentum."""


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_the_best_trials_of_an_earlier_study_are_the_first_of_a_larger_space(
    sqlite: Database, sampler: str
) -> None:
    early(sqlite)
    trials = search(sqlite, late(sampler), lanes=2)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    for trial, params in zip(trials, FIRST, strict=False):
        assert trial.params | params == trial.params
        assert all(type(trial.params[name]) is type(value) for name, value in params.items())
    assert 0.1 <= trials[1].params["dropout"] <= 0.6 and 8 <= trials[1].params["width"] <= 32
    assert not any(trial.params == trials[0].params for trial in trials[1:]), "each once"
    assert [FIXED_PARAMS in trial.system_attrs for trial in trials] == [True] * 3 + [False] * 2
    began = Studies(sqlite).study("late").attrs[WARM_START]
    assert [(trial["number"], trial["value"]) for trial in began["trials"]] == [(1, 0.9), (2, 0.8), (0, 0.5)]


def test_what_cannot_be_taken_over_is_said_with_its_reason(
    sqlite: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    early(sqlite)
    submitted(sqlite, late())
    said = capsys.readouterr().out
    assert "of trial 2 of study 'early', dropout 0.05 is left out and will be sampled" in said
    assert "it is not from 0.1 to 0.6" in said
    assert "width 4 is left out and will be sampled: it is not a whole number from 8 to 32" in said
    assert "of trial 1" not in said, "all of it is in the new space"


def test_plain_optuna_reads_the_enqueued_trials_as_its_own(sqlite: Database) -> None:
    early(sqlite)
    submitted(sqlite, late())
    study = optuna.load_study(study_name="late", storage=str(sqlite.url))
    assert [trial.system_attrs.get("fixed_params") for trial in study.trials] == [*FIRST, None, None]
    trial = study.ask()
    assert trial.suggest_int("width", 8, 32) == 12


def test_a_trial_that_plain_optuna_enqueues_is_tried_as_it_is(sqlite: Database) -> None:
    config = study_of(f"name: plain\n{SMALL}").model_copy(update={"trials": 1})
    submitted(sqlite, config)
    params = {"dropout": 0.25, "width": 7, "optimizer": "sgd"}
    optuna.load_study(study_name="plain", storage=str(sqlite.url)).enqueue_trial(params)
    trials = search(sqlite, config)
    assert [trial.params == params for trial in trials] == [False, True]


def test_a_grid_begins_with_the_earlier_trials_and_has_every_point_once(sqlite: Database) -> None:
    early(sqlite)
    space = (
        f"{WINE}search: {{width: {{low: 10, high: 14, step: 2}}, optimizer: {{choices: [adam, sgd]}}, "
        "momentum: {choices: [0.9, 0.0], when: {optimizer: sgd}}}\nwarm_start: {study: early, top: 2}\n"
    )
    trials = search(sqlite, late("grid", 9, space))
    assert [trial.params for trial in trials[:2]] == [
        {"width": 12, "optimizer": "sgd", "momentum": 0.0},
        {"width": 10, "optimizer": "adam"},
    ]
    assert len({repr(sorted(trial.params.items())) for trial in trials}) == len(trials) == 9


@pytest.mark.slow
def test_submits_that_race_enqueue_each_trial_once(
    database: Database, new_database: Callable[[], Database]
) -> None:
    early(database)
    config = late()
    fingerprint = prepare(config).fingerprint
    threads = [
        threading.Thread(target=lambda: submit(Studies(database), config, fingerprint)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = submit(Studies(database), config, fingerprint)
    with ForgetfulDatabase(database.url.render_as_string(hide_password=False)) as forgetful:
        forgetful.lost_answers = 1.0  # the same ones come back, with what is fixed
        claims = Store(forgetful).claim(study.study_id, "worker", {}, 99, 99)
    assert [dict(claim.fixed) for claim in claims] == [*FIRST, {}, {}]


@pytest.mark.slow
def test_a_trial_that_is_handed_back_keeps_its_parameters(database: Database) -> None:
    early(database)
    study, store = submitted(database, late()), Store(database)
    (claim,) = store.claim(study.study_id, "one", {}, 1, 99)
    store.record("one", {claim.trial_id: 1}, Changes(releases=[claim.trial_id]))
    (again,) = store.claim(study.study_id, "other", {}, 1, 99)
    assert (again.attempt, again.fixed) == (2, claim.fixed)


def test_submitting_again_needs_the_earlier_study_no_longer(sqlite: Database) -> None:
    early(sqlite)
    first = submitted(sqlite, late())
    optuna.delete_study(study_name="early", storage=str(sqlite.url))
    assert submitted(sqlite, late()) == first


def test_what_is_no_study_to_begin_with_is_refused(sqlite: Database) -> None:
    config = late()
    with pytest.raises(UsageError, match=r"warm_start.study: .*no study 'early'; there are none yet"):
        submitted(sqlite, config)
    with pytest.raises(StudyFileError, match=r"warm_start.study: must be another study .*, not 'late'"):
        late(text=LARGE.replace("early", "late"))
    early(sqlite, values={})
    with pytest.raises(UsageError, match="study 'early' has no complete trial to begin with"):
        submitted(sqlite, config)


def test_a_study_of_another_metric_or_space_is_refused(sqlite: Database) -> None:
    early(sqlite)
    with pytest.raises(UsageError, match="'early' was searched for accuracy, this one is for loss"):
        submitted(sqlite, late(text=f"{LARGE}metric: loss\n"))
    space = f"{WINE}search: {{ema_decay: {{low: 0.5, high: 0.9}}}}\nwarm_start: {{study: early}}\n"
    with pytest.raises(
        UsageError, match="it searched dropout, width, optimizer, this one searches ema_decay"
    ):
        submitted(sqlite, late(text=space))


def test_other_data_are_allowed_and_said(sqlite: Database, capsys: pytest.CaptureFixture[str]) -> None:
    early(sqlite)
    submitted(sqlite, late(text=LARGE.replace("{epochs: 1", "{seed: 3, epochs: 1")))
    assert "was searched on other data or other parts of them" in capsys.readouterr().out
    assert not Studies(sqlite).study("late").attrs[WARM_START]["same_data"]


def test_there_are_never_more_than_the_budget(sqlite: Database) -> None:
    early(sqlite)
    assert len(search(sqlite, late(trials=2))) == 2
    assert len(read_trials(sqlite, Studies(sqlite).study("late").study_id)) == 2


def test_values_are_taken_over_by_kind() -> None:
    space = study_of(
        "search: {batch_size: {low: 16, high: 64, step: 16}, nesterov: {choices: [true]}, "
        "weight_decay: {low: 0.0, high: 1.0}}"
    ).search
    found = translated(space, {"batch_size": 32.0, "nesterov": 1, "weight_decay": 1}, {})
    assert found.params == {"batch_size": 32, "weight_decay": 1.0}
    assert isinstance(found.params["batch_size"], int) and isinstance(found.params["weight_decay"], float)
    assert found.left_out == ["nesterov 1 is left out and will be sampled: it is not one of [true]"]
    (said,) = translated(space, {"batch_size": 40}, {}).left_out
    assert said.endswith("it is not a whole number from 16 to 64 in steps of 16")
