"""Intervals of test metrics over examples and seeds, and calibration."""

import numpy as np
import pytest
from scipy.special import softmax

from hpo.results.bootstrap import RESAMPLES, _weights, intervals, intervals_of_means, resample
from hpo.results.calibration import calibration
from hpo.results.metrics import Array, evaluate


def classifier(examples: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Logits with ties, and targets: right more often than not."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, examples)
    outputs = generator.normal(size=(examples, classes)).round(1)
    outputs[np.arange(examples), targets] += 1.5
    return outputs, targets


@pytest.mark.slow
@pytest.mark.parametrize(("examples", "classes"), [(60, 2), (90, 4)])
def test_each_resample_has_the_metrics_that_its_examples_have(examples: int, classes: int) -> None:
    outputs, targets = classifier(examples, classes)
    found = resample("classification", {3: outputs}, targets, [1])[3]
    weights = next(_weights(examples, classes, [1])).astype(int)
    names = [str(index) for index in range(classes)]
    for number in range(20):
        rows = np.repeat(np.arange(examples), weights[:, number])
        scalars = evaluate("classification", outputs[rows], targets[rows], names).scalars()
        assert set(scalars) == set(found)
        for name, value in scalars.items():
            assert found[name][number] == pytest.approx(value), name


def test_each_resample_of_a_regression_has_its_metrics_too() -> None:
    generator = np.random.default_rng(0)
    targets = 100 + generator.normal(size=50)
    outputs = targets[:, None] + generator.normal(0, 0.3, (50, 1))
    found = resample("regression", {0: outputs}, targets, [1])[0]
    weights = next(_weights(50, 1, [1])).astype(int)
    for number in range(10):
        rows = np.repeat(np.arange(50), weights[:, number])
        for name, value in evaluate("regression", outputs[rows], targets[rows]).scalars().items():
            assert found[name][number] == pytest.approx(value), name


def test_interval_of_an_accuracy_is_as_wide_as_the_binomials() -> None:
    targets = np.zeros(400, int)
    outputs = np.eye(2)[(np.arange(400) % 4 == 0).astype(int)]  # right on three of four
    low, high = intervals(resample("classification", {0: outputs}, targets, [0])[0])["accuracy"]
    reach = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert (low, high) == pytest.approx((0.75 - reach, 0.75 + reach), abs=0.006)


@pytest.mark.slow
def test_interval_of_a_mean_over_seeds_knows_that_seeds_differ() -> None:
    outputs, targets = classifier(2000, 3)
    worse = outputs + np.random.default_rng(1).normal(0, 2, outputs.shape)
    alike = intervals_of_means(resample("classification", {0: outputs, 1: outputs}, targets, [0]), [1])
    unlike = intervals_of_means(resample("classification", {0: outputs, 1: worse}, targets, [0]), [1])
    width = {name: high - low for name, (low, high) in alike.items()}
    assert all(high - low > 1.5 * width[name] for name, (low, high) in unlike.items())
    assert alike == intervals(resample("classification", {0: outputs}, targets, [0])[0])


def test_equal_seeds_draw_equal_intervals() -> None:
    outputs, targets = classifier(50, 2)
    first, again, other = (
        intervals(resample("classification", {0: outputs}, targets, seed)[0])
        for seed in ([1, 2], [1, 2], [3])
    )
    assert first == again != other


def test_metric_that_no_resample_defines_has_no_interval() -> None:
    found = intervals(resample("classification", {0: np.eye(3)[[0, 1, 1]]}, np.array([0, 1, 1]), [0])[0])
    assert "roc_auc" not in found and "accuracy" in found


def test_many_examples_of_many_classes_are_resampled_less_often() -> None:
    assert sum(part.shape[1] for part in _weights(300, 2, [0])) == RESAMPLES
    assert sum(part.shape[1] for part in _weights(60_000, 36, [0])) < RESAMPLES / 2


def test_calibration_of_hand_counted_bins() -> None:
    # Confidences 0.95, 0.95 (one right), 0.55 (right): (2 · |0.5 - 0.95| + |1 - 0.55|) / 3.
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]])
    found = calibration(probabilities, np.array([0, 1, 1]))
    assert found.ece == pytest.approx((2 * 0.45 + 0.45) / 3)
    assert [(bin_.n, bin_.accuracy) for bin_ in found.bins] == [(1, 1), (2, 0.5)]
    assert found.bins[1].low == pytest.approx(14 / 15) and found.bins[1].confidence == pytest.approx(0.95)


def test_probabilities_that_are_true_are_calibrated_and_sharpened_ones_are_not() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (20_000, 3))
    probabilities = softmax(logits, axis=1)
    targets = (generator.random((20_000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert calibration(probabilities, targets).ece < 0.015
    assert calibration(softmax(3 * logits, axis=1), targets).ece > 0.1
    assert sum(bin_.n for bin_ in calibration(probabilities, targets).bins) == 20_000
