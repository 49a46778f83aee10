"""Optuna's contract: its storage works beside our tables, and our search is as its own would be."""

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from checker import Log
from conftest import study_of
from crew import Plan
from faults import stock_storage, study_record
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial
from standin import StandIn, value

from hpo.config import StudyConfig
from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.pruners import make_pruner
from hpo.search.samplers import make_sampler
from hpo.search.snapshot import Snapshot
from hpo.search.studies import Studies
from hpo.search.worker import Worker
from hpo.space import suggest

LANES = 4


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    """A storage on a database with our tables, one for all: making the tables takes longer than a test."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('contract')}/hpo.db"
    else:
        url = request.getfixturevalue("postgres").database()
    with Database(url) as database:
        database.create_schema()
    storage = stock_storage(url)
    sa.event.listen(storage.engine, "connect", unsafely)
    return storage


def unsafely(connection: Any, _: object) -> None:
    """What is not to outlive the test need not reach the disk."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.mark.slow
class TestStorageBesideOurTables(StorageTestCase):
    """Optuna's own suite."""

    @pytest.fixture
    def storage(self, beside: RDBStorage) -> Iterator[RDBStorage]:
        yield beside
        for study in beside.get_all_studies():
            beside.delete_study(study._study_id)
        beside.remove_session()


def trials_of_every_kind() -> list[FrozenTrial]:
    distributions = {
        "float": FloatDistribution(-1.0, 1.0),
        "log": FloatDistribution(1e-5, 1.0, log=True),
        "stepped": FloatDistribution(0.0, 1.0, step=0.25),
        "int": IntDistribution(1, 9, step=2),
        "int log": IntDistribution(1, 1024, log=True),
        "choice": CategoricalDistribution(["adam", 1, 0.5, True, None]),
    }
    params = {"float": -0.1, "log": 3e-4, "stepped": 0.75, "int": 7, "int log": 33, "choice": None}
    full = {"params": params, "distributions": distributions}
    noted = {"user_attrs": {"text": "ü", "list": [1, {"a": None}]}, "system_attrs": {"completed_rung_0": 0.1}}
    steps = {"intermediate_values": {1: 0.1, 2: float("nan"), 3: float("inf"), 7: -float("inf"), 10: 1e300}}
    return [
        create_trial(state=TrialState.COMPLETE, value=0.1 + 0.2, **full, **noted, **steps),
        create_trial(state=TrialState.COMPLETE, value=-float("inf")),
        create_trial(state=TrialState.PRUNED, value=1e-300, **full),
        create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.5}),
        create_trial(state=TrialState.FAIL, **full, **noted),
        create_trial(state=TrialState.RUNNING, **full, **steps),
        create_trial(state=TrialState.RUNNING),
    ]


def same(left: FrozenTrial, right: FrozenTrial) -> bool:
    """Whether they are equal; nan equals nan, which `==` denies."""
    ours, theirs = (
        {key: sorted(fact.items()) if isinstance(fact, dict) else fact for key, fact in vars(trial).items()}
        for trial in (left, right)
    )
    return repr(ours) == repr(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_the_snapshot_shows_every_kind_of_trial_as_optuna_s_storage_does(
    database: Database, direction: StudyDirection
) -> None:
    storage = stock_storage(str(database.url))
    study = optuna.create_study(study_name="s", storage=storage, direction=direction.name.lower())
    study.set_user_attr("note", {"a": [1, None]})
    study_id = storage.get_study_id_from_name("s")
    for trial in trials_of_every_kind():
        storage.create_new_trial(study_id, trial)
    snapshot = Snapshot(Studies(database).study("s"), History(database, study_id))
    snapshot.refresh(own=())
    theirs, ours = storage.get_all_trials(study_id), snapshot.get_all_trials(study_id)
    assert len(ours) == len(theirs) == 7
    for left, right in zip(ours, theirs, strict=True):
        assert same(left, right)
        assert [type(param) for param in left.params.values()] == [type(p) for p in right.params.values()]
    for state in TrialState:
        found = [trial.number for trial in snapshot.get_all_trials(study_id, states=(state,))]
        assert found == [trial.number for trial in storage.get_all_trials(study_id, states=(state,))]
        assert snapshot.get_n_trials(study_id, state) == storage.get_n_trials(study_id, state)
    assert snapshot.get_best_trial(study_id).number == storage.get_best_trial(study_id).number
    assert snapshot.get_study_directions(study_id) == storage.get_study_directions(study_id)
    assert snapshot.get_study_user_attrs(study_id) == storage.get_study_user_attrs(study_id)
    assert snapshot.get_study_name_from_id(study_id) == storage.get_study_name_from_id(study_id)
    with pytest.raises(KeyError):
        snapshot.get_study_id_from_name("another")


def as_stock_optuna(config: StudyConfig, storage: RDBStorage) -> list[FrozenTrial]:
    """Search with ask, report, should_prune and tell, as the worker does: in lockstep, refilled at once."""
    optuna.delete_study(study_name=config.name, storage=storage)  # Hyperband draws brackets by the name
    study = optuna.create_study(
        study_name=config.name, storage=storage, direction=config.direction, pruner=make_pruner(config)
    )
    running: dict[int, optuna.Trial] = {}
    epochs: dict[int, int] = {}
    while len(epochs) < config.trials or running:
        while len(running) < LANES and len(epochs) < config.trials:
            study.sampler = make_sampler(config, len(epochs))
            trial = study.ask()
            suggest(trial, config.search)
            running[trial.number], epochs[trial.number] = trial, 0
        for number, trial in list(running.items()):
            epochs[number] += 1
            trial.report(value(number, epochs[number]), epochs[number])
            if epochs[number] == config.training.epochs:
                study.tell(running.pop(number), value(number, epochs[number]))
        for number, trial in list(running.items()):
            if trial.should_prune():
                study.tell(running.pop(number), state=TrialState.PRUNED)
    return study.trials


def as_hpo(config: StudyConfig, database: Database, folder: Path) -> list[FrozenTrial]:
    """Search with the worker."""
    study = study_record(database, config)
    plan = Plan("", config.name, folder, lanes=LANES, epoch=0.0)
    Worker(database, study, config, StandIn(plan, Log(folder)), plan.options, threading.Event()).run()
    return optuna.load_study(study_name=config.name, storage=stock_storage(str(database.url))).trials


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("{name: tpe, startup_trials: 6}", "{name: asha, min_epochs: 1, reduction_factor: 2}"),
        ("{name: tpe, startup_trials: 6, multivariate: true}", "{name: median, startup_trials: 3}"),
        ("random", "{name: hyperband, min_epochs: 1, reduction_factor: 2}"),
        ("qmc", "{name: patient, patience: 1}"),
        ("{name: gp, startup_trials: 24}", "none"),
    ],
)
def test_the_worker_suggests_and_prunes_what_stock_optuna_would(
    sqlite: Database, tmp_path: Path, sampler: str, pruner: str
) -> None:
    config = study_of(
        "search: {dropout: {low: 0.0, high: 0.7}, learning_rate: {low: 1.0e-4, high: 0.1, log: true},"
        " optimizer: {choices: [adam, sgd]}, momentum: {low: 0.0, high: 0.9, when: {optimizer: sgd}}}\n"
        f"trials: 32\ntraining: {{epochs: 8}}\nsampler: {sampler}\npruner: {pruner}"
    )
    ours = as_hpo(config, sqlite, tmp_path)
    theirs = as_stock_optuna(config, stock_storage(str(sqlite.url)))
    for left, right in zip(ours, theirs, strict=True):
        assert (left.number, left.state, left.params, left.values) == (
            right.number,
            right.state,
            right.params,
            right.values,
        )
        assert left.intermediate_values == right.intermediate_values
        assert left.system_attrs == right.system_attrs
    assert {trial.state for trial in ours} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert pruner == "none" or any(trial.state == TrialState.PRUNED for trial in ours)
