"""Metrics of a model on a test part: what a report shows and a results folder keeps."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_curve,
    precision_recall_fscore_support,
    r2_score,
    roc_auc_score,
    roc_curve,
)

from hpo.config import Task
from hpo.results.calibration import Calibration, calibration
from hpo.results.record import Record as Record
from hpo.results.values import evenly

Array = npt.NDArray[Any]
Interval = tuple[float, float]

MAX_CURVE_POINTS = 200
MAX_SCATTER_POINTS = 1000


class ClassMetrics(Record):
    """One class against all others."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Test examples of this class."""


class RocCurve(Record):
    """The curve of one class against all others, thinned to at most `MAX_CURVE_POINTS` points."""

    name: str
    auc: float
    false_positive_rate: list[float]
    true_positive_rate: list[float]


class PrecisionRecallCurve(Record):
    """The curve of one class against all others, thinned to at most `MAX_CURVE_POINTS` points."""

    name: str
    average_precision: float
    prevalence: float
    """Share of the class in the test part: the precision of guessing."""
    recall: list[float]
    precision: list[float]


class ClassificationMetrics(Record):
    """A classifier on `n` test examples.

    precision, recall and f1 are means over the classes that occur, in the test part or among the predictions.
    """

    task: Literal["classification"] = "classification"
    n: int
    loss: float
    """Mean cross-entropy in nats."""
    accuracy: float
    accuracy_interval: Interval
    """95 % Wilson score interval (Wilson, 1927): the uncertainty of a test set of this size."""
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    roc_auc_undefined: str | None = None
    """Why `roc_auc` is None."""
    confusion_matrix: list[list[int]]
    """[true class][predicted class]"""
    classes: list[ClassMetrics]
    roc_curves: list[RocCurve]
    """Of the classes that have both positive and negative examples; of a binary task, class 1's alone."""
    precision_recall_curves: list[PrecisionRecallCurve] = Field(default_factory=list)
    """Of the same classes; none in results of before they were recorded."""
    calibration: Calibration | None = None
    """None in results of before it was recorded."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """95 % of each scalar, over test examples; empty where they were not resampled."""

    def interval(self, name: str) -> Interval | None:
        """95 % of a scalar: of the accuracy Wilson's, which has a width where every example is right."""
        return self.accuracy_interval if name == "accuracy" else self.intervals.get(name)

    def scalars(self) -> dict[str, float | None]:
        """The metrics that are one number, by their name in a study file."""
        return {
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "roc_auc": self.roc_auc,
            "loss": self.loss,
        }


class RegressionMetrics(Record):
    """A regressor on `n` test examples, in the target's own unit."""

    task: Literal["regression"] = "regression"
    n: int
    rmse: float
    mae: float
    r2: float | None
    """None for a test part without variance."""
    loss: float
    """Mean squared error."""
    truth: list[float]
    """Targets, thinned evenly to at most `MAX_SCATTER_POINTS`."""
    predicted: list[float]
    """Predictions of the same examples."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """95 % of each scalar, over test examples; empty where they were not resampled."""

    def interval(self, name: str) -> Interval | None:
        """95 % of a scalar."""
        return self.intervals.get(name)

    def scalars(self) -> dict[str, float | None]:
        """The metrics that are one number, by their name in a study file."""
        return {"rmse": self.rmse, "mae": self.mae, "r2": self.r2, "loss": self.loss}


TestMetrics = Annotated[ClassificationMetrics | RegressionMetrics, Field(discriminator="task")]


def evaluate(task: Task, outputs: Any, targets: Any, classes: Sequence[str] = ()) -> TestMetrics:
    """Metrics of `outputs` against `targets`.

    outputs: [N, C] logits, or [N, 1] predictions in the target's unit. targets: [N] class indices or
    numbers. classes: names by index, of length C; not used for regression. Tensors and arrays alike.

    Raises:
        ValueError: shapes do not fit, there are no examples, or an output is not finite.
    """
    scores, truth = np.asarray(outputs, dtype=np.float64), np.asarray(targets)
    width = len(classes) if task == "classification" else 1
    if scores.shape != (len(truth), width) or len(truth) == 0:
        raise ValueError(
            f"outputs {scores.shape} do not fit {len(truth)} targets: must be [N, {width}] with N > 0"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{(~np.isfinite(scores)).any(axis=1).sum()} of {len(truth)} outputs are not finite")
    if task == "classification":
        return _classification(scores, truth.astype(np.int64), list(classes))
    return _regression(scores[:, 0], truth.astype(np.float64))


def _classification(scores: Array, truth: Array, classes: list[str]) -> ClassificationMetrics:
    labels = np.arange(len(classes))
    predicted = scores.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, zero_division=0
    )
    occurring = (support > 0) | np.isin(labels, predicted)  # scikit-learn's macro averages are over these
    hits = int((predicted == truth).sum())
    wilson = binomtest(hits, len(truth)).proportion_ci(0.95, method="wilson")
    ordered = ordering(scores)
    undefined = _roc_auc_undefined(truth, classes)
    return ClassificationMetrics(
        n=len(truth),
        loss=float(-log_softmax(scores, axis=1)[np.arange(len(truth)), truth].mean()),
        accuracy=hits / len(truth),
        accuracy_interval=(float(wilson.low), float(wilson.high)),
        precision=float(precision[occurring].mean()),
        recall=float(recall[occurring].mean()),
        f1=float(f1[occurring].mean()),
        roc_auc=None if undefined else _roc_auc(truth, ordered),
        roc_auc_undefined=undefined,
        confusion_matrix=confusion_matrix(truth, predicted, labels=labels).tolist(),
        classes=[
            ClassMetrics(name=name, precision=p, recall=r, f1=f, support=s)
            for name, p, r, f, s in zip(classes, precision, recall, f1, support, strict=True)
        ],
        roc_curves=_roc_curves(truth, ordered, classes),
        calibration=calibration(softmax(scores, axis=1), truth),
        precision_recall_curves=_precision_recall_curves(truth, ordered, classes),
    )


def _roc_auc_undefined(truth: Array, classes: list[str]) -> str | None:
    present = set(np.unique(truth).tolist())
    absent = [name for index, name in enumerate(classes) if index not in present]
    if not absent:
        return None
    shown = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
    return f"the test part has no example of {shown}"


def ordering(scores: Array) -> Array:
    """[N, C], growing with each class's probability.

    Of two classes the difference of the logits, for a probability rounds to ties at 0 and 1.
    """
    if scores.shape[1] == 2:
        difference = scores[:, 1] - scores[:, 0]
        return np.stack([-difference, difference], axis=1)
    return np.asarray(softmax(scores, axis=1))


def _roc_auc(truth: Array, ordered: Array) -> float:
    if ordered.shape[1] == 2:
        return float(roc_auc_score(truth, ordered[:, 1]))
    return float(roc_auc_score(truth, ordered, multi_class="ovr", average="macro"))


def _roc_curves(truth: Array, ordered: Array, classes: list[str]) -> list[RocCurve]:
    curves = []
    for index, positive in _one_against_others(truth, classes):
        false_positives, true_positives, _ = roc_curve(positive, ordered[:, index])
        kept = evenly(len(false_positives), MAX_CURVE_POINTS)
        curves.append(
            RocCurve(
                name=classes[index],
                auc=float(roc_auc_score(positive, ordered[:, index])),
                false_positive_rate=false_positives[kept].tolist(),
                true_positive_rate=true_positives[kept].tolist(),
            )
        )
    return curves


def _precision_recall_curves(truth: Array, ordered: Array, classes: list[str]) -> list[PrecisionRecallCurve]:
    curves = []
    for index, positive in _one_against_others(truth, classes):
        precision, recall, _ = precision_recall_curve(positive, ordered[:, index])
        kept = evenly(len(recall), MAX_CURVE_POINTS)
        curves.append(
            PrecisionRecallCurve(
                name=classes[index],
                average_precision=float(average_precision_score(positive, ordered[:, index])),
                prevalence=float(positive.mean()),
                recall=recall[kept].round(5).tolist(),
                precision=precision[kept].round(5).tolist(),
            )
        )
    return curves


def _one_against_others(truth: Array, classes: list[str]) -> Iterator[tuple[int, Array]]:
    """The classes that have a curve, and which examples are theirs."""
    for index in [1] if len(classes) == 2 else range(len(classes)):
        positive = truth == index
        if positive.any() and not positive.all():
            yield index, positive


def _regression(predicted: Array, truth: Array) -> RegressionMetrics:
    squared = float(mean_squared_error(truth, predicted))
    kept = evenly(len(truth), MAX_SCATTER_POINTS)
    return RegressionMetrics(
        n=len(truth),
        rmse=math.sqrt(squared),
        mae=float(mean_absolute_error(truth, predicted)),
        r2=float(r2_score(truth, predicted)) if np.ptp(truth) > 0 else None,
        loss=squared,
        truth=truth[kept].tolist(),
        predicted=predicted[kept].tolist(),
    )
