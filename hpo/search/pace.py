"""How fast trials come to their end: lately, and over the whole search."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

WINDOWS, ENOUGH = (60.0, 600.0, 3600.0), 10
"""Seconds over which the pace is measured: the shortest in which so many trials ended."""
REST = 10.0
"""Seconds without a running trial from which on a study rests. A worker goes from one trial to the next in
far less, and one that takes the place of a crashed one begins within 5."""

_Span = tuple[float, float]
"""When a trial began and ended, or now: seconds since 1970."""


@dataclass(frozen=True)
class Pace:
    """Trials finished an hour; None when none did.

    Only time counts in which trials ran: neither the pause after an interruption nor what lies between two
    searches of a study that was extended. Of a trial that was started again the last attempt counts.
    """

    lately: float | None
    """Over the last minute or, when few trials ended in it, over longer: it neither jumps nor lags."""
    overall: float | None
    """Since the first trial began."""


def pace(trials: Sequence[FrozenTrial]) -> Pace:
    """How fast these trials, running and finished, came to their end."""
    now = time.time()
    spans = sorted(_span(trial, now) for trial in trials if trial.datetime_start)
    ends = [trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete]
    for window in WINDOWS:
        recent = sum(now - end <= window for end in ends)
        if recent >= ENOUGH:
            break
    return Pace(
        lately=_per_hour(recent, _busy(spans, since=now - window)),
        overall=_per_hour(len(ends), _busy(spans, since=-math.inf)),
    )


def _span(trial: FrozenTrial, now: float) -> _Span:
    began, ended = trial.datetime_start, trial.datetime_complete
    assert began is not None
    return began.timestamp(), now if ended is None else ended.timestamp()


def _per_hour(trials: int, seconds: float) -> float | None:
    return trials / max(seconds, 1.0) * 3600 if trials else None


def _busy(spans: Sequence[_Span], since: float) -> float:
    """Seconds after `since` in which one of the spans, which are in order, was under way."""
    seconds, reached = 0.0, -math.inf
    for began, ended in spans:
        if ended <= reached:
            continue
        resumed = began if began - reached > REST else reached
        seconds += max(0.0, ended - max(resumed, since))
        reached = ended
    return seconds
