"""How fast a study goes: lately and over the whole search, whatever interrupted it."""

from datetime import datetime, timedelta

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.search.pace import Pace, pace


def ended(minutes_ago: float, lasting: float = 1.0) -> FrozenTrial:
    """A trial of so many minutes that ended so long ago."""
    trial = optuna.trial.create_trial(value=0.5)
    trial.datetime_complete = datetime.now() - timedelta(minutes=minutes_ago)
    trial.datetime_start = trial.datetime_complete - timedelta(minutes=lasting)
    return trial


def running(minutes: float) -> FrozenTrial:
    """A trial that has run for so long."""
    trial = optuna.trial.create_trial(state=TrialState.RUNNING)
    trial.datetime_start = datetime.now() - timedelta(minutes=minutes)
    return trial


def test_the_pace_of_quick_trials_is_that_of_the_last_minute() -> None:
    quick = [ended(second / 60, lasting=0.01) for second in range(59)]
    slow = [ended(30 + minute, lasting=1) for minute in range(20)]
    assert pace([*slow, *quick]).lately == pytest.approx(3600, rel=0.05)


def test_the_pace_of_a_study_that_has_just_begun_counts_only_its_own_time() -> None:
    found = pace([ended(0.01 * n, lasting=0.05) for n in range(10)])
    assert found.lately == pytest.approx(10 / 0.14 * 60, rel=0.1)
    assert found.overall == found.lately


def test_the_pace_of_slow_trials_does_not_jump_when_one_ends() -> None:
    before = pace([*(ended(5 * n + 4.9, lasting=5) for n in range(12)), running(4.9)]).lately
    after = pace([ended(5 * n, lasting=5) for n in range(12)]).lately
    assert before == pytest.approx(12, rel=0.1) and after == pytest.approx(12, rel=0.1)


def test_a_trial_that_is_still_running_counts_with_its_time() -> None:
    assert pace([ended(8, lasting=2), running(8)]).overall == pytest.approx(6, rel=0.01)


def test_trials_side_by_side_share_their_time() -> None:
    assert pace([ended(1, lasting=10) for _ in range(5)]).overall == pytest.approx(30, rel=0.01)


def test_the_time_between_two_searches_does_not_count() -> None:
    night = 10 * 60
    before = [ended(night + minute, lasting=1) for minute in range(30)]
    after = [ended(0.5 * n, lasting=0.5) for n in range(8)]
    found = pace([*before, *after])
    assert found.lately == pytest.approx(120, rel=0.01)
    assert found.overall == pytest.approx(38 / 34 * 60, rel=0.01)


def test_a_pause_in_the_last_minutes_does_not_count_either() -> None:
    before = [ended(7 + 0.1 * n, lasting=0.1) for n in range(10)]
    after = [ended(0.1 * n, lasting=0.1) for n in range(5)]
    assert pace([*before, *after]).lately == pytest.approx(600, rel=0.01)


def test_the_moment_between_two_trials_counts() -> None:
    trials = [ended(minutes_ago=5 * n / 60, lasting=1 / 60) for n in range(100)]
    assert pace(trials).overall == pytest.approx(3600 / 5, rel=0.02)


def test_a_study_that_rests_keeps_only_its_overall_pace() -> None:
    assert pace([]) == Pace(None, None)
    assert pace([running(1)]) == Pace(None, None)
    found = pace([ended(300), ended(200)])
    assert found.lately is None
    assert found.overall == pytest.approx(60, rel=0.01)


def test_a_worker_s_clock_that_is_ahead_does_no_harm() -> None:
    found = pace([ended(-0.05, lasting=0.5), running(-0.05)])
    assert found.lately == found.overall == pytest.approx(120, rel=0.2)
