"""Simulated studies of known truth: what selection makes of luck, and that re-evaluation takes it back."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import study_of
from searching import submitted

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.results.candidates import (
    DEFAULTS,
    Candidate,
    Entrant,
    assess,
    choose,
    selection_cost,
    shrink,
)
from hpo.results.finalize import FinalResult, finalize
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions

CONFIG = study_of("search: {dropout: {low: 0.0, high: 0.5}}")
TRUTH, NOISE = 0.8, 0.02
TRIALS, TOP, SEEDS, REPETITIONS = 200, 5, 10, 300


def outcome(generator: np.random.Generator, lead_of_defaults: float = 0.0) -> tuple[float, Candidate]:
    """A study whose trials are all equally good: the search's best value, and the winner.

    Each split is easy or hard for all candidates alike, as it is in truth.
    """
    searched = np.sort(TRUTH + generator.normal(0, NOISE, TRIALS))[::-1]
    entered = [Entrant(number, {}, float(searched[number]), 1) for number in range(TOP)]
    entered.append(Entrant(DEFAULTS, {}, None, 1))
    hardness = generator.normal(0, NOISE, SEEDS)
    values = {found.number: list(TRUTH + hardness + generator.normal(0, NOISE, SEEDS)) for found in entered}
    values[DEFAULTS] = [value + lead_of_defaults for value in values[DEFAULTS]]
    return float(searched[0]), choose(CONFIG, assess(CONFIG, entered, values, {}, overlap=0.0))


def outcomes(**how: float) -> tuple[list[float], list[Candidate]]:
    generator = np.random.default_rng(0)
    claimed, winners = zip(*(outcome(generator, **how) for _ in range(REPETITIONS)), strict=True)
    return list(claimed), list(winners)


def bias(estimates: Any) -> tuple[float, float]:
    """How far estimates are above the truth on average, and the standard error of that."""
    errors = np.array(estimates, dtype=float) - TRUTH
    return float(errors.mean()), float(errors.std(ddof=1)) / len(errors) ** 0.5


@pytest.mark.slow
def test_best_of_equal_trials_looks_better_than_it_is_and_its_shrunk_estimate_does_not() -> None:
    claimed, winners = outcomes()
    search, _ = bias(claimed)
    assert search > 2.5 * NOISE, "the best of 200 values"
    plain, error = bias([winner.mean for winner in winners])
    assert plain > 3 * error, "the best of 6 means is lucky too"
    honest, _ = bias([winner.shrunk for winner in winners])
    assert abs(honest) < 0.25 * NOISE / SEEDS**0.5, "well within the error of a candidate's mean"
    assert abs(honest) < 0.25 * plain
    lost = [selection_cost(CONFIG, winner) for winner in winners if winner.value is not None]
    assert np.mean([cost for cost in lost if cost is not None]) > 2 * NOISE


@pytest.mark.slow
def test_defaults_that_are_as_good_win_as_often_as_any_other() -> None:
    _, winners = outcomes()
    share = sum(winner.number is None for winner in winners) / len(winners)
    assert share == pytest.approx(1 / (TOP + 1), abs=0.08)


@pytest.mark.slow
def test_poor_defaults_do_not_make_equal_trials_look_different() -> None:
    """Shrunk with the trials they would: the winner would keep its luck."""
    _, winners = outcomes(lead_of_defaults=-5 * NOISE)
    assert all(winner.number is not None for winner in winners)
    honest, _ = bias([winner.shrunk for winner in winners])
    assert abs(honest) < 0.25 * NOISE / SEEDS**0.5
    generator = np.random.default_rng(0)
    rows = TRUTH + generator.normal(0, NOISE, (REPETITIONS, TOP + 1, SEEDS))
    rows[:, TOP] -= 5 * NOISE
    together, error = bias([max(shrink(row.tolist(), 0.0)) for row in rows])
    assert together > 5 * error, "this is what the simulation would notice"


@pytest.mark.slow
def test_better_defaults_win_and_keep_their_lead() -> None:
    _, winners = outcomes(lead_of_defaults=5 * NOISE)
    assert all(winner.number is None and winner.value is None for winner in winners)
    honest, _ = bias([winner.shrunk for winner in winners])
    assert honest == pytest.approx(5 * NOISE, abs=0.1 * NOISE)


# --- a real study


COINS = """
import numpy as np

def load(rows=240):
    generator = np.random.default_rng(7)
    labels = np.arange(rows) % 2
    return generator.normal(size=(rows, 5)).astype("float32"), generator.permutation(labels)
"""


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[StudyConfig, FinalResult]:
    """Labels that are coins: whatever is trained, its accuracy is 0.5 in truth."""
    folder = tmp_path_factory.mktemp("coins")
    (folder / "coins.py").write_text(COINS)
    config = study_of(
        "data: {source: 'coins.py:load'}\nsearch: {learning_rate: {low: 1e-3, high: 1e-1, log: true}}\n"
        "options: {width: 4, depth: 1}\nsampler: random\ntrials: 40\n"
        "training: {epochs: 2, batch_size: 64}\nfinal: {top: 4, seeds: 8}",
        folder,
    )
    path = folder / "hpo.db"
    path.write_bytes(empty_database.read_bytes())
    with Database(f"sqlite:///{path}") as database:
        study = submitted(database, config)
        serve(database, study, WorkerOptions(40, poll=0.05), threading.Event())
        trials = read_trials(database, study.study_id)
    return config, finalize(config, prepare(config), trials, lambda: None).result


@pytest.mark.slow
def test_study_of_coins_is_found_out(coins: tuple[StudyConfig, FinalResult]) -> None:
    config, result = coins
    best = result.candidates[0]
    assert best.value is not None and best.value > 0.58, "the best of 40 tosses of 36 coins"
    winner = result.winner
    assert winner.shrunk is not None and abs(winner.shrunk - 0.5) < 0.07
    assert winner.interval is not None and winner.interval[0] < 0.5 < winner.interval[1]
    cost = selection_cost(config, best)
    assert cost is not None and cost > 0.05


@pytest.mark.slow
def test_network_that_learned_nothing_does_not_beat_the_baselines(
    coins: tuple[StudyConfig, FinalResult],
) -> None:
    _, result = coins
    assert [baseline.name for baseline in result.baselines] == ["logistic regression", "gradient boosting"]
    assert not any(baseline.beaten for baseline in result.baselines)
