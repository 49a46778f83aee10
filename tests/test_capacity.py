"""How many lanes train side by side: what pays, within the memory there is."""

import resource
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import study_of
from test_cohort import Bench, lane

from hpo.config import TrialSettings
from hpo.data.prepare import prepare
from hpo.search.samplers import middle, with_each_end
from hpo.search.trainer import MORE, Trainer, in_even_rounds
from hpo.training import capacity, choice, cohort
from hpo.training.capacity import Capacity, best_lanes
from hpo.training.cohort import Cohort
from hpo.training.memory import free_memory, out_of_memory, used_memory
from hpo.training.program import Program

SEARCH = "search: {learning_rate: {low: 1e-4, high: 1e-1, log: true}, batch_size: {choices: [32, 64]}}"


@pytest.mark.slow
def test_a_small_network_trains_many_lanes_of_each_shape() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    one_shape = best_lanes(lambda settings: trainer.group(settings).cohort, settings)
    assert one_shape.lanes >= 8
    assert one_shape.lanes & (one_shape.lanes - 1) == 0
    assert 2 < one_shape.speed_up < one_shape.lanes * 4
    all_shapes = trainer.best_lanes(512)
    assert 2 * all_shapes.fused <= all_shapes.lanes <= MORE * 2 * all_shapes.fused


def test_no_more_lanes_are_measured_than_there_can_be() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    assert best_lanes(lambda settings: trainer.group(settings).cohort, settings, most=1) == Capacity(1, 1.0)
    found = trainer.best_lanes(3)
    assert found.lanes <= 3 and found.fused <= 4


def test_a_trial_has_as_many_lanes_as_it_has_folds() -> None:
    config = study_of(f"{SEARCH}\nvalidation: {{folds: 3}}")
    assert Trainer(config, prepare(config)).best_lanes(3).lanes == 3


def test_where_lanes_gain_nothing_one_trial_trains_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.trainer.best_lanes", lambda *_: Capacity(1, 1.0))
    config = study_of(SEARCH)
    assert Trainer(config, prepare(config)).best_lanes(64).lanes == 1
    config = study_of(f"{SEARCH}\nvalidation: {{folds: 3}}")
    assert Trainer(config, prepare(config)).best_lanes(64).lanes == 3


def test_where_memory_runs_out_at_once_nothing_is_gained() -> None:
    config = study_of(SEARCH)

    def no_memory(_: TrialSettings) -> Cohort:
        raise MemoryError

    assert best_lanes(no_memory, config.settings(middle(config.search))) == Capacity(1, 1.0)


@pytest.mark.slow
def test_choosing_the_program_costs_the_measurement_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any) -> Program:
        time.sleep(1.1 * capacity.BUDGET)
        return choice.program_of(*arguments)

    monkeypatch.setattr(capacity, "BUDGET", 0.3)
    monkeypatch.setattr(cohort, "program_of", slow)
    config = study_of(SEARCH)
    trainer, settings = Trainer(config, prepare(config)), config.settings(middle(config.search))
    assert best_lanes(lambda settings: trainer.group(settings).cohort, settings).lanes > 1


def test_lanes_that_run_one_by_one_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, one = Bench("user_networks.py:functional"), lane(1)
    monkeypatch.setattr(capacity, "_speed", None)
    found = best_lanes(
        lambda settings: Cohort(bench.architecture, bench.data, "loss", settings, 1), one.settings
    )
    assert found == Capacity(1, 1.0)


def test_memory_that_runs_out_at_the_end_leaves_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, one = Bench(), lane(0)
    measured: list[int] = []

    def speed(make: object, settings: object, lanes: int) -> float:
        if lanes in measured or lanes > 8:
            raise torch.OutOfMemoryError("of this test")
        measured.append(lanes)
        return lanes

    monkeypatch.setattr(capacity, "_speed", speed)
    found = best_lanes(
        lambda settings: Cohort(bench.architecture, bench.data, "loss", settings, 1), one.settings
    )
    assert found == Capacity(8, 8.0)


def test_as_many_lanes_fit_of_the_largest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, small = Bench(), lane(0).settings
    large = replace(small, hyperparameters=small.hyperparameters.model_copy(update={"batch_size": 64}))
    taken = [0]

    def speed(make: object, settings: TrialSettings, lanes: int) -> float:
        if settings is large and lanes > 16:
            raise torch.OutOfMemoryError("of this test")
        taken[0] = max(taken[0], lanes * settings.hyperparameters.batch_size)
        return lanes

    def make(settings: TrialSettings) -> Cohort:
        return Cohort(bench.architecture, bench.data, "loss", settings, 1)

    monkeypatch.setattr(capacity, "_speed", speed)
    monkeypatch.setattr(capacity, "used_memory", lambda _: taken[0])
    monkeypatch.setattr(capacity, "free_memory", lambda _: 10**9)
    assert best_lanes(make, small, 32).lanes == 32
    assert best_lanes(make, small, 32, large).lanes == 16, "memory ran out"
    monkeypatch.setattr(capacity, "free_memory", lambda _: 2 * 640)
    taken[0] = 0
    assert best_lanes(make, small, 16, large).lanes == 10, "half of the memory"


@pytest.mark.parametrize(
    ("trials", "at_once", "expected"),
    [(128, 51, 64), (256, 51, 64), (66, 51, 66), (67, 51, 34), (3, 8, 3), (9, 1, 1), (7, 3, 3)],
)
def test_no_few_trials_are_left_to_train_by_themselves(trials: int, at_once: int, expected: int) -> None:
    assert in_even_rounds(trials, at_once) == expected


def test_a_space_has_trials_of_the_smallest_and_the_largest_batch() -> None:
    def ends(text: str) -> list[Any]:
        return [point.get("batch_size") for point in with_each_end(study_of(text).search, "batch_size")]

    assert ends(SEARCH) == [32, 64]
    assert ends("search: {batch_size: {choices: [64, 16, 32]}}") == [16, 64]
    assert ends("search: {batch_size: {low: 8, high: 100}}") == [8, 100]
    assert ends("search: {dropout: {low: 0.0, high: 0.5}}") == [None, None]


def test_the_middle_of_a_space_is_a_valid_trial() -> None:
    config = study_of(
        """
        search:
          learning_rate: {low: 1e-4, high: 1e-2, log: true}
          width: {low: 16, high: 64, step: 16}
          optimizer: {choices: [adam, sgd]}
          momentum: {low: 0.0, high: 0.8, when: {optimizer: sgd}}
        """
    )
    point = middle(config.search)
    assert point["learning_rate"] == pytest.approx(1e-3)
    assert point == {
        "learning_rate": point["learning_rate"],
        "width": 48,
        "optimizer": "sgd",
        "momentum": 0.4,
    }


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("CUDA"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@pytest.mark.slow
def test_a_process_limit_counts_as_the_end_of_memory() -> None:
    program = """
        import resource
        from hpo.training.memory import free_memory, used_memory
        free = free_memory()
        resource.setrlimit(resource.RLIMIT_DATA, (used_memory() + 2**28, resource.RLIM_INFINITY))
        print(free > 2**28, 0 < free_memory() <= 2**28)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 0 and free_memory() > 0 and used_memory() > 0
