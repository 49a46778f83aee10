"""How many lanes train side by side: what pays, within the memory there is."""

import resource
import subprocess
import sys
import textwrap

import pytest
import torch
from conftest import study_of

from hpo.data.prepare import prepare
from hpo.search.samplers import middle
from hpo.search.trainer import Trainer
from hpo.training.capacity import best_lanes, free_memory, out_of_memory, used_memory

SEARCH = "search: {learning_rate: {low: 1e-4, high: 1e-1, log: true}, batch_size: {choices: [32, 64]}}"


def test_a_small_network_trains_many_lanes_of_each_shape() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    one_shape = best_lanes(lambda: trainer.group(settings).cohort, settings)
    assert one_shape >= 8
    assert one_shape & (one_shape - 1) == 0
    assert trainer.best_lanes() % 2 == 0


def test_no_more_lanes_are_measured_than_allowed() -> None:
    config = study_of(SEARCH)
    trainer = Trainer(config, prepare(config))
    settings = config.settings(middle(config.search))
    assert best_lanes(lambda: trainer.group(settings).cohort, settings, most=2) <= 2


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


def test_a_process_limit_counts_as_the_end_of_memory() -> None:
    program = """
        import resource
        from hpo.training.capacity import free_memory, used_memory
        free = free_memory()
        resource.setrlimit(resource.RLIMIT_DATA, (used_memory() + 2**28, resource.RLIM_INFINITY))
        print(free > 2**28, 0 < free_memory() <= 2**28)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 0 and free_memory() > 0 and used_memory() > 0
