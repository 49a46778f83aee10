"""Samplers: what a trial draws depends on its number, not on who draws it or when."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import optuna
import pytest
from conftest import study_of
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig, TrialSettings
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.running import WorkerOptions
from hpo.search.samplers import NumberedQmc, default_in_flight, make_sampler
from hpo.search.studies import Studies
from hpo.search.submission import submit
from hpo.search.tpe import Known, Tpe
from hpo.search.training import Epoch
from hpo.search.worker import Worker
from hpo.space import distributions, suggest

SPACE = """
search:
  dropout: {low: 0.0, high: 0.7}
  width: {low: 8, high: 64, log: true}
  depth: {low: 1, high: 3}
  batch_size: {low: 16, high: 64, step: 16}
  optimizer: {choices: [adam, sgd]}
  momentum: {low: 0.0, high: 0.9, step: 0.3, when: {optimizer: sgd}}
  learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}
"""


class Instant:
    """Trains a trial in next to no time: its value is its learning rate."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}
        self.epochs: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.values)

    def shape_key(self, settings: TrialSettings) -> str:
        return "the only one"

    def group(self, settings: TrialSettings) -> "Instant":
        return Instant()

    def add(self, number: int, settings: TrialSettings, state: Any = None) -> None:
        self.values[number] = settings.hyperparameters.learning_rate

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[int, Epoch]:
        time.sleep(0.03)  # so that no worker is through before the others have begun
        self.epochs.update(list(self.values))
        return {number: Epoch(self.epochs[number], value, 0.0) for number, value in self.values.items()}

    def drop(self, numbers: Collection[int]) -> None:
        for number in numbers:
            del self.values[number]

    def state(self, number: int) -> Any:
        return None


def searched(database: Database, config: StudyConfig, workers: int) -> list[FrozenTrial]:
    """The study's trials after so many racing workers searched it."""
    study = submit(Studies(database), config, "fingerprint")

    together = threading.Barrier(workers)

    def work() -> None:
        options = WorkerOptions(lanes=4, workers=workers, poll=0.05)
        worker = Worker(database, study, config, Instant(), options, threading.Event())
        together.wait()
        worker.run()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    return read_trials(database, study.study_id)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "qmc", "{name: qmc, seed: 7}"])
def test_a_numbered_sampler_draws_the_same_with_any_number_of_workers(
    new_database: Callable[[], Database], sampler: str
) -> None:
    config = study_of(f"{SPACE}sampler: {sampler}\ntrials: 40\ntraining: {{epochs: 1}}")
    alone = searched(new_database(), config, 1)
    racing = searched(new_database(), config, 3)
    assert [trial.params for trial in alone] == [trial.params for trial in racing]
    assert len({trial.user_attrs["worker"] for trial in racing}) > 1
    assert all(("momentum" in trial.params) is (trial.params["optimizer"] == "sgd") for trial in alone)


def test_racing_workers_cover_a_grid_once(new_database: Callable[[], Database]) -> None:
    config = study_of(
        "search: {width: {low: 8, high: 17}, optimizer: {choices: [adam, sgd]},"
        " nesterov: {choices: [true, false], when: {optimizer: sgd}}, momentum: {choices: [0.5]}}\n"
        "sampler: grid\ntrials: 30\ntraining: {epochs: 1}"
    )
    points = Counter(tuple(sorted(trial.params.items())) for trial in searched(new_database(), config, 3))
    assert len(points) == 30 and set(points.values()) == {1}


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random", "qmc"])
def test_another_seed_draws_other_parameters(sampler: str) -> None:
    def first(seed: int) -> dict[str, Any]:
        config = study_of(f"{SPACE}sampler: {{name: {sampler}, seed: {seed}}}")
        study = optuna.create_study(sampler=make_sampler(config, 0))
        return study.ask(distributions(config.search)).params

    assert first(1) == first(1) != first(2)


@pytest.mark.slow
@pytest.mark.parametrize(("multivariate", "direction"), [(True, "maximize"), (False, "minimize")])
def test_tpe_draws_what_optuna_s_own_draws(
    multivariate: bool, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # From 1 to 3 is symmetric around a trial of 2: between the others rounding would decide.
    config = study_of(
        f"{SPACE.replace('high: 3}', 'high: 4}')}trials: 40\n"
        f"sampler: {{name: tpe, startup_trials: 8, multivariate: {str(multivariate).lower()}}}"
    )

    def drawn() -> list[dict[str, Any]]:
        study, known, draw = optuna.create_study(direction=direction), Known(), random.Random(0)
        running: list[optuna.Trial] = []
        for number in range(60):
            study.sampler = make_sampler(config, number, known)
            running.append(study.ask())
            suggest(running[-1], config.search)
            if len(running) == 4:
                _end(study, running.pop(draw.randrange(4)), draw)
        return [trial.params for trial in study.trials]

    ours = drawn()
    monkeypatch.delattr(Tpe, "_sample")
    monkeypatch.delattr(Tpe, "_sample_relative")
    for mine, theirs in zip(ours, drawn(), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():  # its error functions are approximated otherwise
            assert theirs[name] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


def _end(study: optuna.Study, trial: optuna.Trial, draw: random.Random) -> None:
    """Complete, pruned early or late or before its first value, beyond a constraint, or failed."""
    kind = draw.choice(["complete", "complete", "pruned", "infeasible", "failed"])
    if kind == "failed":
        study.tell(trial, state=TrialState.FAIL)
        return
    if kind == "infeasible":
        trial.set_constraint("0", draw.choice([-1.0, 1.0, 2.0]))
    value = round(draw.random(), 1)  # of few values, so that some are equal
    for epoch in range(1, draw.randint(1, 3)):
        trial.report(value, epoch)
    if kind == "pruned":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


@pytest.mark.slow
def test_a_model_based_sampler_finds_better_than_chance(new_database: Callable[[], Database]) -> None:
    for sampler in ("tpe", "gp"):
        config = study_of(
            "search: {learning_rate: {low: 1.0e-4, high: 1.0}}\nmetric: loss\n"
            f"sampler: {{name: {sampler}, startup_trials: 5}}\ntrials: 40\ntraining: {{epochs: 1}}"
        )
        values = [trial.value or 0.0 for trial in searched(new_database(), config, 1)]
        assert np.median(values[20:]) < 0.5 * np.median(values[:5])


def test_qmc_fills_every_dimension_more_evenly_than_chance() -> None:
    config = study_of(SPACE)
    sampler = NumberedQmc(config.search, seed=3)
    points = [sampler.point(number) for number in range(64)]
    counts, _ = np.histogram([point["dropout"] for point in points], bins=16, range=(0, 0.7))
    assert set(counts) == {4}
    assert Counter(point["optimizer"] for point in points) == {"adam": 32, "sgd": 32}
    assert set(Counter(point["batch_size"] for point in points)) == {16, 32, 48, 64}
    assert set(Counter(point["depth"] for point in points)) == {1, 2, 3}


def test_qmc_points_lie_in_their_distributions() -> None:
    config = study_of(SPACE)
    kinds = distributions(config.search)
    sampler = NumberedQmc(config.search, seed=0)
    for number in range(200):
        for name, value in sampler.point(number).items():
            kind = kinds[name]
            assert kind._contains(kind.to_internal_repr(value)), (name, value)
            expected = {FloatDistribution: float, IntDistribution: int, CategoricalDistribution: str}
            assert type(value) is expected[type(kind)], (name, value)


def test_trials_in_flight_are_capped_where_the_sampler_learns() -> None:
    assert default_in_flight(study_of(f"{SPACE}trials: 80")) == 10
    assert default_in_flight(study_of(f"{SPACE}trials: 4")) == 1
    assert default_in_flight(study_of(f"{SPACE}trials: 80\nsampler: random")) == 80


def test_no_qmc_point_lies_beyond_the_end_of_a_range_with_a_step() -> None:
    config = study_of("search: {dropout: {low: 0.0, high: 0.3, step: 0.1}}\nsampler: qmc\ntrials: 16")
    values = {NumberedQmc(config.search, seed=0).point(number)["dropout"] for number in range(16)}
    assert max(values) == 0.3 and len(values) == 4
