"""How many lanes to train side by side: found by measuring, within the memory that is there."""

import itertools
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import torch

from hpo.config import TrialSettings
from hpo.errors import Interrupted
from hpo.training.cohort import Cohort
from hpo.training.lane import LaneKey
from hpo.training.memory import free_memory, give_back_freed_memory, out_of_memory, used_memory

log = structlog.get_logger()

MOST = {"cpu": 128, "cuda": 256}
"""Lanes of one shape that are tried at most. Workers share a cache: on two cores with 36 MB, trials of 5
folds, of four shapes, took a worker 0.42 s each with 320 lanes of a shape, and 0.27 s with 160 or 80."""
STEPS, SECONDS = 6, 0.03
"""At least so many steps, of which the first warms up, and seconds for each count: short steps are noisy."""
GAIN = 1.05
"""Twice the lanes must train at least so many times as many lane steps a second."""
BUDGET = 5.0
"""Seconds for the whole measurement, without the choice of the program, but for the last count."""
SHARE = 0.5
"""Of the memory that is free; the rest is for checkpoints, evaluation and other workers' peaks."""
_PROBE = 2**30
"""First trial number of the lanes that are measured: no study has so many trials."""


Make = Callable[[TrialSettings], Cohort]
"""An empty cohort for lanes of the shape key of some settings."""


@dataclass(frozen=True)
class Capacity:
    """How many lanes pay, and how much."""

    lanes: int
    speed_up: float
    """Times as many lane steps a second as one lane by itself makes."""
    fit: int
    """Lanes for which half of the free memory suffices, of all shapes together."""


ONE_LANE = Capacity(1, 1.0, 1)


def best_lanes(
    make: Make, settings: TrialSettings, most: int, largest: TrialSettings | None = None
) -> Capacity:
    """The number of lanes of `settings` at which one program does most.

    Doubles the lanes, until there are `most` or `MOST`, as long as that trains notably more of them a second.
    Stops before they would need more than half of the free memory, or at once when memory runs out.

    largest: of lanes that take more memory, for which it must suffice too.

    Raises:
        TrialError: a network of these settings cannot be trained.
    """
    # First of all, since it chooses the program, which may take longer than all that is measured here.
    if most == 1 or not _or_0(lambda: _cohort(make, settings, 1).fuses):
        return ONE_LANE
    device = make(settings).data.device
    began, best, lanes, tried = time.monotonic(), 1, 1, 1
    speeds: dict[int, float] = {}
    """Lane steps a second, by lanes."""
    room, before, taken = SHARE * free_memory(device), used_memory(device), 0
    while lanes < 2 * min(most, MOST[device.type]) and time.monotonic() - began < BUDGET:
        speeds[lanes] = _speed_if_they_fit(make, settings, largest, lanes)
        if speeds[lanes] > speeds[best] * GAIN:
            best = lanes
        elif lanes >= 4 * best:
            break
        if speeds[lanes]:
            tried, taken = lanes, used_memory(device) - before
        if not speeds[lanes] or 2 * taken > room:
            log.info("memory limits the lanes", lanes=best)
            break
        lanes *= 2
    if best == 1:
        return ONE_LANE
    # Once more, since the first time warms up the process too: 4 lanes seemed 6.5 times as fast as one.
    alone = max(speeds[1], _or_0(lambda: _speed(make, settings, 1)))
    ran_out = not all(speeds.values())
    fit = tried if ran_out else int(tried * room / max(1, taken))  # 0: there was room in what is kept anyway
    return Capacity(best, speeds[best] / alone, max(best, fit))


def _speed_if_they_fit(
    make: Make, settings: TrialSettings, largest: TrialSettings | None, lanes: int
) -> float:
    """Lane steps a second; 0 where memory runs out, by them or by as many of `largest`."""
    speed = _or_0(lambda: _speed(make, settings, lanes))
    if not speed or largest is None:
        return speed
    return speed if _or_0(lambda: _speed(make, largest, lanes, steps=2, seconds=0.0)) else 0.0


def _or_0(measure: Callable[[], float]) -> float:
    """What `measure` comes to; 0 where memory runs out."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the lanes' tensors
        give_back_freed_memory()
        return 0.0


def _cohort(make: Make, settings: TrialSettings, lanes: int) -> Cohort:
    cohort = make(settings)
    cohort.add_copies(settings, [LaneKey(_PROBE + index) for index in range(lanes)])
    return cohort


def _speed(
    make: Make, settings: TrialSettings, lanes: int, steps: int = STEPS, seconds: float = SECONDS
) -> float:
    """Lane steps a second, by the shortest step of a few, as other processes only add to it."""
    cohort = _cohort(make, settings, lanes)
    moments: list[float] = []

    def enough() -> bool:
        if cohort.data.device.type == "cuda":
            torch.cuda.synchronize(cohort.data.device)
        moments.append(time.perf_counter())
        return done()

    def done() -> bool:
        return len(moments) > steps and moments[-1] - moments[0] > seconds

    while not done():
        try:
            cohort.train_epoch(enough)
        except Interrupted:
            break
    return lanes / min(later - sooner for sooner, later in itertools.pairwise(moments))
