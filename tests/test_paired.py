"""Paired tests, against published values and scipy."""

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from hpo.results.paired import holm, mcnemar, squared_errors


def right(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers' right answers, from the four cells of their table."""
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    second = np.repeat([True, False, True, False], [both, only_first, only_second, neither])
    return first, second


@pytest.mark.parametrize(
    ("cells", "p"),
    [
        # statsmodels, stats.contingency_tables.mcnemar, exact: its own test's table; p = 4.434e-06.
        ((101, 121, 59, 33), pytest.approx(4.434e-06, rel=1e-3)),
        ((4, 2, 1, 3), pytest.approx(1.0)),
        # By hand: 2 · (1 + 8) / 2^8.
        ((20, 7, 1, 2), pytest.approx(18 / 256)),
    ],
)
def test_mcnemars_test_gives_published_values(cells: tuple[int, int, int, int], p: float) -> None:
    found = mcnemar(*right(*cells))
    assert found.p == p
    assert found.p == pytest.approx(binomtest(cells[1], cells[1] + cells[2]).pvalue)
    assert (found.only_first, found.only_second) == cells[1:3]
    assert found.difference == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert mcnemar(*reversed(right(*cells))).p == pytest.approx(found.p)


def test_classifiers_that_are_right_on_the_same_examples_do_not_differ() -> None:
    found = mcnemar(*right(90, 0, 0, 10))
    assert (found.p, found.difference) == (1.0, 0.0)
    low, high = found.interval
    assert -0.03 < low < 0 < high < 0.03


@pytest.mark.slow
def test_the_intervals_cover_the_true_difference_of_accuracies() -> None:
    generator = np.random.default_rng(0)
    shares = [0.75, 0.12, 0.06, 0.07]
    covered = 0
    for _ in range(400):
        low, high = mcnemar(*right(*generator.multinomial(200, shares))).interval
        covered += low <= 0.12 - 0.06 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.slow
def test_equally_good_classifiers_are_told_apart_in_at_most_one_of_twenty() -> None:
    generator = np.random.default_rng(1)
    p = [mcnemar(*right(*generator.multinomial(100, [0.7, 0.1, 0.1, 0.1]))).p for _ in range(1000)]
    assert np.mean(np.array(p) < 0.05) <= 0.06


def test_the_test_of_squared_errors_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(size=60)
    first, second = truth + generator.normal(0, 1, 60), truth + generator.normal(0, 1.5, 60)
    found = squared_errors(first, second, truth)
    known = ttest_rel((first - truth) ** 2, (second - truth) ** 2)
    assert found.p == pytest.approx(known.pvalue)
    assert found.difference < 0
    assert found.interval == pytest.approx(tuple(known.confidence_interval(0.95)))


def test_regressors_with_equal_errors_do_not_differ() -> None:
    truth = np.arange(5.0)
    assert squared_errors(truth + 1, truth - 1, truth).p == 1
    assert squared_errors(truth[:1] + 1, truth[:1] + 2, truth[:1]).p == 1
    constant = squared_errors(truth + 1, truth + 2, truth)
    assert (constant.p, constant.difference) == (0, -3)


def test_holms_correction() -> None:
    # Holm (1979), as statsmodels' multipletests(method="holm") corrects these.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
