"""Metrics of the test part."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from sklearn import metrics as sk

from hpo.results.metrics import (
    ClassificationMetrics,
    RegressionMetrics,
    TestMetrics,
    evaluate,
)


def classification(outputs: object, targets: object, classes: list[str]) -> ClassificationMetrics:
    found = evaluate("classification", outputs, targets, classes)
    assert isinstance(found, ClassificationMetrics)
    return found


def test_perfect_classifier_scores_one_everywhere() -> None:
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    found = classification(20 * torch.nn.functional.one_hot(targets).float(), targets, ["a", "b", "c"])
    assert found.accuracy == found.precision == found.recall == found.f1 == found.roc_auc == 1
    assert found.confusion_matrix == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert found.loss < 1e-6
    assert [curve.name for curve in found.roc_curves] == ["a", "b", "c"]


def test_hand_counted_binary_metrics() -> None:
    # True 0 0 0 1 1, predicted 0 0 1 1 0: of class 1, precision 1/2 and recall 1/2; of class 0, 2/3 and 2/3.
    outputs = np.array([[2.0, 0], [2, 0], [0, 2], [0, 3], [1, 0]])
    found = classification(outputs, [0, 0, 0, 1, 1], ["no", "yes"])
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.confusion_matrix == [[2, 1], [1, 1]]
    assert found.precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.classes[1].recall == pytest.approx(1 / 2)
    assert found.classes[0].support == 3
    # Of the 6 pairs (positive, negative) class 1's score orders 5 rightly.
    assert found.roc_auc == pytest.approx(5 / 6)
    assert [curve.name for curve in found.roc_curves] == ["yes"]
    # Wilson's interval for 3 of 5 as published: 0.231 to 0.882.
    assert found.accuracy_interval == pytest.approx((0.2307, 0.8824), abs=1e-4)


def test_multiclass_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 4, 300)
    outputs = generator.normal(size=(300, 4))
    outputs[np.arange(300), targets] += 1
    found = classification(outputs, targets, list("abcd"))
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    assert found.loss == pytest.approx(sk.log_loss(targets, probabilities))
    assert found.roc_auc == pytest.approx(sk.roc_auc_score(targets, probabilities, multi_class="ovr"))
    assert found.f1 == pytest.approx(sk.f1_score(targets, outputs.argmax(axis=1), average="macro"))
    assert np.sum(found.confusion_matrix) == 300


def test_class_that_the_test_part_lacks_leaves_roc_auc_undefined_with_its_name() -> None:
    found = classification(np.eye(3)[[0, 1, 1]], [0, 1, 1], ["a", "b", "rare"])
    assert found.roc_auc is None
    assert found.roc_auc_undefined == "the test part has no example of rare"
    assert [curve.name for curve in found.roc_curves] == ["a", "b"]
    assert found.classes[2].precision == 0
    assert found.f1 == 1, "as in scikit-learn, a class that occurs nowhere does not count"


def test_roc_curve_of_many_examples_is_thinned_and_keeps_its_ends() -> None:
    generator = np.random.default_rng(0)
    found = classification(generator.normal(size=(5000, 2)), generator.integers(0, 2, 5000), ["a", "b"])
    curve = found.roc_curves[0]
    assert len(curve.false_positive_rate) == len(curve.true_positive_rate) <= 200
    assert (curve.false_positive_rate[0], curve.true_positive_rate[0]) == (0, 0)
    assert (curve.false_positive_rate[-1], curve.true_positive_rate[-1]) == (1, 1)
    assert curve.auc == pytest.approx(found.roc_auc)


def test_regression_metrics_are_in_the_targets_unit() -> None:
    found = evaluate("regression", torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([1.0, 4.0, 4.0]))
    assert isinstance(found, RegressionMetrics)
    assert found.rmse == pytest.approx((8 / 3) ** 0.5)
    assert found.mae == pytest.approx(4 / 3)
    assert found.r2 == pytest.approx(1 - 8 / 6)
    assert (found.truth, found.predicted) == ([1, 4, 4], [1, 2, 6])


def test_r2_of_a_constant_target_is_undefined() -> None:
    found = evaluate("regression", np.array([[1.0], [2.0]]), np.array([3.0, 3.0]))
    assert isinstance(found, RegressionMetrics)
    assert found.r2 is None


@pytest.mark.parametrize(
    "found",
    [
        evaluate("classification", np.eye(2), [0, 1], ["a", "b"]),
        evaluate("regression", np.eye(2)[:, :1], [0.0, 1.0]),
    ],
)
def test_metrics_survive_json(found: TestMetrics) -> None:
    adapter: TypeAdapter[TestMetrics] = TypeAdapter(TestMetrics)
    assert adapter.validate_json(found.model_dump_json()) == found
    assert set(found.scalars()) <= set(type(found).model_fields)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.full((2, 2), np.nan), "2 of 2 outputs are not finite"),
        (np.zeros((3, 2)), r"\(3, 2\) do not fit 2 targets"),
        (np.zeros((2, 3)), r"must be \[N, 2\]"),
    ],
)
def test_unusable_outputs_are_refused(outputs: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate("classification", outputs, [0, 1], ["a", "b"])
