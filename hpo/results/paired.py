"""Whether two models that were tested on the same examples differ by more than noise."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, norm, t

from hpo.results.metrics import Array, Interval, Record

LEVEL = 0.05
"""What counts as more than noise: p values below it."""


class AccuracyTest(Record):
    """McNemar's test of two classifiers, on the examples that only one of them gets right."""

    only_first: int
    """Examples that the first one alone is right on."""
    only_second: int
    difference: float
    """Accuracy of the first less that of the second."""
    interval: Interval
    """95 % of the difference (Agresti and Min, 2005)."""
    p: float


class ErrorTest(Record):
    """A paired t-test of two regressors' squared errors."""

    difference: float
    """Mean squared error of the first less that of the second."""
    interval: Interval | None
    """95 % of the difference; None for a single example."""
    p: float


def mcnemar(first_right: Array, second_right: Array) -> AccuracyTest:
    """Whether two classifiers are equally often right, from which of [N] examples each is right on.

    Only the examples that one of the two alone gets right tell something: if the classifiers are equally
    good, each of these is as likely one's as the other's. The exact, two-sided binomial test says how odd
    their split is, however few or many they are (McNemar, 1947; Dietterich, 1998, section 3.1).
    """
    n = len(first_right)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    # Half an example is added to each of the four cells, so that no difference has no interval of width 0.
    center = (only_first - only_second) / (n + 2)
    variance = (discordant + 1 - (only_first - only_second) ** 2 / (n + 2)) / (n + 2) ** 2
    reach = float(norm.ppf(0.975)) * math.sqrt(variance)
    return AccuracyTest(
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / n,
        interval=(max(-1.0, center - reach), min(1.0, center + reach)),
        p=p,
    )


def squared_errors(first: Array, second: Array, targets: Array) -> ErrorTest:
    """Whether two regressors' squared errors on [N] examples are equally large on average.

    The test of Diebold and Mariano (1995) for errors that do not depend on each other: a paired t-test.
    """
    truth = targets.astype(np.float64)
    differences = (first - truth) ** 2 - (second - truth) ** 2
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return ErrorTest(difference=mean, interval=None, p=1.0)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return ErrorTest(difference=mean, interval=(mean, mean), p=float(mean == 0))
    reach = float(t.ppf(0.975, n - 1)) * error
    p = 2 * float(t.sf(abs(mean) / error, n - 1))
    return ErrorTest(difference=mean, interval=(mean - reach, mean + reach), p=p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm, 1979), in their order.

    Below `LEVEL`, all of them together are wrong with at most that probability.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
