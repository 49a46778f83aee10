"""How many lanes to train side by side: found by measuring, within the memory that is there."""

import itertools
import resource
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import torch

from hpo.config import TrialSettings
from hpo.errors import Interrupted
from hpo.training.cohort import Cohort
from hpo.training.lane import Lane, LaneKey

log = structlog.get_logger()

MOST = 256
STEPS = 6
"""Steps for each count; the first warms up."""
GAIN = 1.08
"""Twice the lanes must train at least so many times as many lane steps a second."""
BUDGET = 5.0
"""Seconds for the whole measurement, but for the count that is being measured."""
SHARE = 0.5
"""Of the memory that is free; the rest is for checkpoints, evaluation and other workers' peaks."""
_PROBE = 2**30
"""First trial number of the lanes that are measured: no study has so many trials."""


def best_lanes(make: Callable[[], Cohort], settings: TrialSettings, most: int = MOST) -> int:
    """The number of lanes of `settings` at which one program does most.

    Doubles the lanes as long as that trains notably more of them a second. Stops before they would need
    more than half of the free memory, or at once when memory runs out.

    make: an empty cohort for lanes of the shape key of `settings`.
    """
    began, best, fastest, lanes = time.monotonic(), 1, 0.0, 1
    free, before = free_memory(), used_memory()
    while lanes <= most and time.monotonic() - began < BUDGET:
        try:
            speed = lanes / _step_seconds(make(), settings, lanes)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            log.info("memory limits the lanes", lanes=best)
            break
        if speed > fastest * GAIN:
            best, fastest = lanes, speed
        elif lanes >= 4 * best:
            break
        if 2 * (used_memory() - before) > SHARE * free:
            log.info("memory limits the lanes", lanes=best)
            break
        lanes *= 2
    return best


def _step_seconds(cohort: Cohort, settings: TrialSettings, lanes: int) -> float:
    """Seconds of one step of so many lanes: the shortest of a few, as other processes only add to it."""
    cohort.add([Lane(LaneKey(_PROBE + index), settings) for index in range(lanes)])
    moments: list[float] = []

    def enough() -> bool:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        moments.append(time.perf_counter())
        return len(moments) > STEPS

    while len(moments) <= STEPS:
        try:
            cohort.train_epoch(enough)
        except Interrupted:
            break
    return min(later - sooner for sooner, later in itertools.pairwise(moments))


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or here."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def used_memory() -> int:
    """Bytes that this process has taken: its data segment, or the device's memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, its cgroup, its limit, or the device."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    found = [_machine(), _cgroup(), _limit()]
    return min(number for number in found if number is not None)


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**32  # not Linux: a modest machine's


def _cgroup() -> int | None:
    """cgroup v2, then v1."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = (Path("/sys/fs/cgroup") / most).read_text().strip()
            if limit != "max":
                return int(limit) - int((Path("/sys/fs/cgroup") / used).read_text())
        except OSError:
            continue
    return None


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return None if soft == resource.RLIM_INFINITY else soft - used_memory()
