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
from hpo.search.samplers import middle
from hpo.search.trainer import MORE, Trainer
from hpo.training import capacity, choice, cohort
from hpo.training.capacity import ONE_LANE, Capacity, best_lanes
from hpo.training.cohort import Cohort
from hpo.training.memory import free_memory, out_of_memory, used_memory
from hpo.training.program import Program

SEARCH = "search: {learning_rate: {low: 1e-4, high: 1e-1, log: true}, batch_size: {choices: [32, 64]}}"


@pytest.mark.slow
def test_a_small_network_trains_many_lanes_of_each_shape() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    one_shape = best_lanes(lambda settings: trainer.group(settings).cohort, settings, 256)
    assert one_shape.lanes >= 8
    assert one_shape.lanes & (one_shape.lanes - 1) == 0
    assert 2 < one_shape.speed_up < one_shape.lanes * 4
    all_shapes = trainer.best_lanes(512)
    assert 2 * all_shapes.fused <= all_shapes.lanes <= MORE * 2 * all_shapes.fused


def test_no_more_lanes_are_measured_than_there_can_be() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    assert best_lanes(lambda settings: trainer.group(settings).cohort, settings, most=1) == ONE_LANE
    found = trainer.best_lanes(3)
    assert found.lanes <= 3 and found.fused <= 4


def test_a_trial_has_as_many_lanes_as_it_has_folds() -> None:
    config = study_of(f"{SEARCH}\nvalidation: {{folds: 3}}")
    assert Trainer(config, prepare(config)).best_lanes(3).lanes == 3


def test_where_lanes_gain_nothing_one_trial_trains_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.search.trainer.best_lanes", lambda *_: ONE_LANE)
    config = study_of(SEARCH)
    assert Trainer(config, prepare(config)).best_lanes(64).lanes == 1
    config = study_of(f"{SEARCH}\nvalidation: {{folds: 3}}")
    assert Trainer(config, prepare(config)).best_lanes(64).lanes == 3


def test_where_memory_runs_out_at_once_nothing_is_gained() -> None:
    config = study_of(SEARCH)

    def no_memory(_: TrialSettings) -> Cohort:
        raise MemoryError

    assert best_lanes(no_memory, config.settings(middle(config.search)), 256) == ONE_LANE


@pytest.mark.slow
def test_choosing_the_program_costs_the_measurement_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*arguments: Any) -> Program:
        time.sleep(1.1 * capacity.BUDGET)
        return choice.program_of(*arguments)

    monkeypatch.setattr(capacity, "BUDGET", 0.3)
    monkeypatch.setattr(cohort, "program_of", slow)
    config = study_of(SEARCH)
    trainer, settings = Trainer(config, prepare(config)), config.settings(middle(config.search))
    assert best_lanes(lambda settings: trainer.group(settings).cohort, settings, 256).lanes > 1


def test_lanes_that_run_one_by_one_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, one = Bench("user_networks.py:functional"), lane(1)
    monkeypatch.setattr(capacity, "_speed", None)
    found = best_lanes(
        lambda settings: Cohort(bench.architecture, bench.data, "loss", settings, 1), one.settings, 256
    )
    assert found == ONE_LANE


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
        lambda settings: Cohort(bench.architecture, bench.data, "loss", settings, 1), one.settings, 256
    )
    assert found == Capacity(8, 8.0, 8)


@pytest.mark.parametrize(
    ("memory", "last", "expected"),
    [
        (10**6, 99, Capacity(32, 32.0, 7812)),
        (10**6, 16, Capacity(16, 16.0, 16)),
        (2 * 64 * 24, 99, Capacity(16, 16.0, 24)),
        (2 * 64 * 15, 99, Capacity(8, 8.0, 15)),
    ],
)
def test_half_of_the_memory_suffices_for_the_largest_batch(
    monkeypatch: pytest.MonkeyPatch, memory: int, last: int, expected: Capacity
) -> None:
    """A lane takes its batch's size, a step of any number of lanes as long; more than `last` never fit."""
    bench, small = Bench(), lane(0).settings
    large = replace(small, hyperparameters=small.hyperparameters.model_copy(update={"batch_size": 64}))
    taken = 0

    def speed(make: object, settings: TrialSettings, lanes: int, **_: float) -> float:
        nonlocal taken
        if settings is large and lanes > last:
            raise torch.OutOfMemoryError("of this test")
        taken = max(taken, lanes * settings.hyperparameters.batch_size)
        return lanes

    monkeypatch.setattr(capacity, "_speed", speed)
    monkeypatch.setattr(capacity, "used_memory", lambda _: taken)
    monkeypatch.setattr(capacity, "free_memory", lambda _: memory)

    def make(settings: TrialSettings) -> Cohort:
        return Cohort(bench.architecture, bench.data, "loss", settings, 1)

    assert best_lanes(make, small, 32, large) == expected


@pytest.mark.parametrize(
    ("found", "more", "lanes"),
    [
        (Capacity(64, 9.0, 9000), "sampler: random", int(1.3 * (4 * 64 // 5)) * 5),
        (Capacity(64, 9.0, 9000), "sampler: random\npruner: asha", 4 * 64 // 5 * 5),
        (Capacity(64, 9.0, 9000), "sampler: tpe", 4 * 64 // 5 * 5),
        (Capacity(64, 9.0, 103), "sampler: random", 100),
        (Capacity(64, 9.0, 3), "sampler: random", 5),
        (Capacity(256, 9.0, 9000), "sampler: random", 640),
        (ONE_LANE, "sampler: random", 5),
    ],
)
def test_lanes_of_all_shapes_are_whole_trials_that_fit(
    monkeypatch: pytest.MonkeyPatch, found: Capacity, more: str, lanes: int
) -> None:
    asked = []

    def best(make: object, small: TrialSettings, most: int, largest: TrialSettings) -> Capacity:
        asked.append((small.hyperparameters.batch_size, most, largest.hyperparameters.batch_size))
        return found

    monkeypatch.setattr("hpo.search.trainer.best_lanes", best)
    config = study_of(
        f"search: {{batch_size: {{choices: [64, 16, 32, 128]}}}}\nvalidation: {{folds: 5}}\n{more}"
    )
    assert Trainer(config, prepare(config)).best_lanes(640).lanes == lanes
    assert asked == [(16, 640, 128)]


def test_where_the_smallest_batch_cannot_train_the_middle_is_measured() -> None:
    config = study_of("search: {batch_size: {low: 1, high: 127}}")
    assert Trainer(config, prepare(config)).best_lanes(8).lanes == 8


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
    assert middle(config.search, {"optimizer": "adam"}) == {
        "learning_rate": point["learning_rate"],
        "width": 48,
        "optimizer": "adam",
    }
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
