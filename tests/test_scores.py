"""The validation metrics equal scikit-learn's, for all lanes at once."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from hpo.training.scores import score

LANES, ROWS = 3, 60


def logits(classes: int, decimals: int = 1) -> Tensor:
    """Rounded, so that there are ties."""
    generator = torch.Generator().manual_seed(classes)
    return torch.randn(LANES, ROWS, classes, generator=generator, dtype=torch.float64).round(
        decimals=decimals
    )


def labels(classes: int) -> Tensor:
    return torch.randint(0, classes, (LANES, ROWS), generator=torch.Generator().manual_seed(1))


def of_sklearn(metric: str, outputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> float:
    if metric in {"rmse", "mae", "r2"}:
        regression = {
            "rmse": metrics.root_mean_squared_error,
            "mae": metrics.mean_absolute_error,
            "r2": metrics.r2_score,
        }
        return float(regression[metric](targets, outputs[:, 0]))
    probabilities = torch.from_numpy(outputs).softmax(1).numpy()
    if metric == "accuracy":
        return float(metrics.accuracy_score(targets, outputs.argmax(1)))
    if metric == "f1":
        return float(metrics.f1_score(targets, outputs.argmax(1), average="macro"))
    if metric == "loss":
        return float(metrics.log_loss(targets, probabilities, labels=range(outputs.shape[1])))
    if outputs.shape[1] == 2:
        return float(metrics.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0]))
    return float(metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro"))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("metric", ["accuracy", "f1", "roc_auc", "loss"])
def test_classification_equals_sklearn(metric: Any, classes: int) -> None:
    outputs, targets = logits(classes), labels(classes)
    expected = [of_sklearn(metric, outputs[k].numpy(), targets[k].numpy()) for k in range(LANES)]
    assert score(metric, outputs, targets).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
def test_regression_equals_sklearn(metric: Any) -> None:
    outputs = logits(1)
    targets = torch.randn(LANES, ROWS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = [of_sklearn(metric, outputs[k].numpy(), targets[k].numpy()) for k in range(LANES)]
    assert score(metric, outputs, targets).tolist() == pytest.approx(expected, abs=1e-12)


def test_loss_of_a_regression_is_the_mean_squared_error() -> None:
    outputs, targets = torch.tensor([[[1.0], [3.0]]]), torch.tensor([0.0, 0.0])
    assert score("loss", outputs, targets).tolist() == [5.0]


def test_targets_may_be_shared_by_all_lanes() -> None:
    outputs, targets = logits(3), labels(3)[0]
    for metric in ("accuracy", "f1", "roc_auc", "loss"):
        shared = score(metric, outputs, targets)  # type: ignore[arg-type]
        assert torch.equal(shared, score(metric, outputs, targets.expand(LANES, ROWS)))  # type: ignore[arg-type]


def test_f1_counts_only_classes_that_occur() -> None:
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 0, 2, 2]]), 4).double()
    targets = torch.tensor([0, 2, 2, 2])
    expected = metrics.f1_score(targets.numpy(), [0, 0, 2, 2], average="macro")
    assert score("f1", outputs, targets).item() == pytest.approx(expected)


def test_undefined_is_nan() -> None:
    one_class = torch.zeros(ROWS, dtype=torch.int64)
    assert score("roc_auc", logits(2), one_class).isnan().all()
    assert score("roc_auc", logits(3), one_class).isnan().all()
    assert score("r2", logits(1), torch.full((ROWS,), 0.1, dtype=torch.float64)).isnan().all()
    assert score("accuracy", torch.zeros(LANES, 0, 2), torch.zeros(0, dtype=torch.int64)).isnan().all()


@pytest.mark.parametrize("metric", ["accuracy", "f1", "roc_auc", "loss"])
def test_a_lane_that_diverged_is_nan_and_disturbs_no_other(metric: Any) -> None:
    outputs, targets = logits(3), labels(3)
    broken = outputs.clone()
    broken[1, 5, 0] = torch.nan
    values = score(metric, broken, targets)
    assert values.isnan().tolist() == [False, True, False]
    assert torch.equal(values[[0, 2]], score(metric, outputs, targets)[[0, 2]])
