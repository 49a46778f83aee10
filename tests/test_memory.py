"""A worker whose memory is limited: it finishes the study with as many lanes as fit."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import study_of
from searching import submitted

from hpo.search.database import Database
from hpo.search.history import read_trials

pytestmark = pytest.mark.slow
STUDY = """
name: large
data: {source: sklearn, name: breast_cancer}
options: {width: 1500, depth: 3}
search: {learning_rate: {low: 1e-4, high: 1e-3, log: true}, dropout: {low: 0.0, high: 0.5}}
training: {epochs: 1, batch_size: 256}
trials: 12
sampler: random
"""

LIMITED = """
    import math, resource, sys
    from hpo.training import capacity
    from hpo.training.memory import used_memory
    import hpo.search.launch, torch
    from hpo.cli import main
    torch.set_num_threads(1)
    capacity.GAIN, capacity.BUDGET = 0.0, math.inf  # memory alone is to limit the lanes, not the clock
    resource.setrlimit(resource.RLIMIT_DATA, (used_memory() + int(sys.argv.pop(1)), resource.RLIM_INFINITY))
    main()
"""
MIB = 2**20
ONE_LANE = 120 * MIB
"""Weights, gradients and two optimizer slots of 4.8 million parameters, and what a step needs besides."""


def work(url: str, limit: int, lanes: str) -> str:
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), str(limit), "worker", "large"]
    done = subprocess.run([*command, f"--storage={url}", f"--lanes={lanes}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("lanes", "says"), [("auto", "memory limits the lanes"), ("12", "memory ran out")])
def test_a_cohort_larger_than_memory_costs_no_trial(tmp_path: Path, lanes: str, says: str) -> None:
    url = f"sqlite:///{tmp_path}/hpo.db"
    with Database(url) as database:
        database.create_schema()
        study = submitted(database, study_of(STUDY))
        assert says in work(url, 8 * ONE_LANE, lanes)
        trials = read_trials(database, study.study_id)
    assert [trial.number for trial in trials] == list(range(12))
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 12
