"""How much a test metric depends on the seed that a model was trained with."""

from collections.abc import Iterable, Mapping

import numpy as np

from hpo.results.metrics import Interval, Record, TestMetrics


class SeedStatistics(Record):
    """One test metric over the retrainings of the winner."""

    mean: float
    std: float | None
    """Sample standard deviation; None for a single seed."""
    n: int
    interval: Interval | None = None
    """95 % of the mean, over seeds and over test examples."""


def over_seeds(
    tested: Iterable[TestMetrics], intervals: Mapping[str, Interval] | None = None
) -> dict[str, SeedStatistics]:
    """Mean and deviation of each metric over models, of those on which it is defined.

    intervals: of the means, by metric.
    """
    collected: dict[str, list[float]] = {}
    for metrics in tested:
        for name, value in metrics.scalars().items():
            if value is not None:
                collected.setdefault(name, []).append(value)
    return {
        name: SeedStatistics(
            mean=float(np.mean(values)),
            std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
            n=len(values),
            interval=(intervals or {}).get(name),
        )
        for name, values in collected.items()
    }
