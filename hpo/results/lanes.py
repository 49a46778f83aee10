"""Lanes that are trained to their end, as many at a time as fit into memory."""

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpo.training.cohort import Cohort
from hpo.training.lane import EpochResult, Lane, LaneKey
from hpo.training.memory import out_of_memory

Progress = Callable[[str, int, int], None]
"""Told what is being done, and how many epochs of single lanes are done, of how many."""

Chunk = tuple[list[tuple[LaneKey, EpochResult | None]], Cohort]
"""The last results of lanes that trained together, and their cohort."""

MAX_LANES = 256


def silent(_doing: str, _done: int, _total: int) -> None:
    """Nobody watches."""


@dataclass
class Watch:
    """Tells how far lanes have come."""

    tell: Progress
    doing: str
    total: int
    done: int = 0

    def advance(self, epochs: int) -> None:
        self.done += epochs
        self.tell(self.doing, self.done, self.total)


def in_chunks(lanes: list[Lane], train: Callable[[list[Lane]], Chunk]) -> Iterator[Chunk]:
    """Train so many lanes at a time as fit into memory."""
    start, size = 0, MAX_LANES
    while start < len(lanes):
        chunk = lanes[start : start + size]
        try:
            yield train(chunk)
        except (RuntimeError, MemoryError) as error:
            if len(chunk) == 1 or not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the chunk's tensors
            size = len(chunk) // 2
        else:
            start += len(chunk)


def train_lanes(cohort: Cohort, lanes: Sequence[Lane], epochs: int, watch: Watch) -> Chunk:
    """Train `lanes` for `epochs`: the last result of each, in their order; None if a loss was not finite."""
    cohort.add(lanes)
    last: dict[LaneKey, EpochResult | None] = {}
    for _ in range(epochs):
        watch.advance(len(lanes))
        results = cohort.train_epoch() if cohort.keys else {}
        broken = [key for key, result in results.items() if not math.isfinite(result.train_loss)]
        last.update(results)
        last.update(dict.fromkeys(broken))
        if broken:
            cohort.drop(broken)
    return [(lane.key, last[lane.key]) for lane in lanes], cohort
