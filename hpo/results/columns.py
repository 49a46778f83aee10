"""What a model makes of each column of a table: shuffled, and moved through its range."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence, permutation_importance

from hpo.results.attribution import outputs_of
from hpo.results.metrics import Array, Interval
from hpo.results.subject import Subject, spread

MAX_ROWS = 1000
"""Rows that are shuffled."""
REPEATS = 10
"""Shufflings of all rows, for the estimate."""
PREDICTIONS = 4000
"""Predictions of all rows that the interval may cost; at least `FEWEST` resamples, at most `MOST`."""
FEWEST, MOST = 20, 60
MAX_CURVE_ROWS = 400
GRID = 24


@dataclass(frozen=True)
class Importance:
    """What shuffling a column costs."""

    column: str
    cost: float
    """Accuracy that is lost, or RMSE that is gained in the target's unit; below 0 where it was chance."""
    interval: Interval
    """95 %."""

    @property
    def beyond_noise(self) -> bool:
        return self.interval[0] > 0


@dataclass(frozen=True)
class Importances:
    """Of all columns, the costliest first."""

    columns: tuple[Importance, ...]
    rows: int
    resamples: int


@dataclass(frozen=True)
class Dependence:
    """How the mean prediction moves with one column while the others stay as they are."""

    column: str
    categorical: bool
    grid: tuple[Any, ...]
    means: Array
    """[outputs, grid]: probabilities of classes, or the number."""
    quartiles: Array
    """[2, outputs, grid], over rows."""


class _Model(BaseEstimator):  # type: ignore[misc]
    """A subject's model as scikit-learn sees one: of raw rows."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def fit(self, _x: Any, _y: Any = None) -> "_Model":
        """It is trained."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def outputs(self, x: pd.DataFrame) -> torch.Tensor:
        assert self.subject.table is not None
        return outputs_of(self.subject.module, self.subject.table.encode(x).to(self.subject.features.device))


class _Classifier(ClassifierMixin, _Model):  # type: ignore[misc]
    @property
    def classes_(self) -> Array:
        return np.arange(len(self.subject.classes))

    def predict(self, x: pd.DataFrame) -> Array:
        return np.asarray(self.outputs(x).argmax(1))

    def predict_proba(self, x: pd.DataFrame) -> Array:
        return np.asarray(self.outputs(x).softmax(1))


class _Regressor(RegressorMixin, _Model):  # type: ignore[misc]
    def predict(self, x: pd.DataFrame) -> Array:
        return np.asarray(self.outputs(x)[:, 0])


def _model(subject: Subject) -> Any:
    return (_Classifier if subject.classification else _Regressor)(subject)


def _frame(subject: Subject) -> pd.DataFrame:
    assert subject.table is not None
    return subject.table.frame


def importances(subject: Subject) -> Importances:
    """Permutation importances (Breiman, 2001) of all columns, on at most `MAX_ROWS` rows.

    The interval is of resampled rows, each shuffled anew, so that it has both what other rows and what other
    shufflings would change. Where the targets are not known, what is lost is agreement with the model itself.
    """
    rows = spread(subject.groups, MAX_ROWS).numpy()
    x, y = _frame(subject).iloc[rows].reset_index(drop=True), np.asarray(subject.truth)[rows]
    scoring = "accuracy" if subject.classification else "neg_root_mean_squared_error"
    model = _model(subject)

    def costs(x: pd.DataFrame, y: Array, repeats: int, seed: int) -> Array:
        found = permutation_importance(model, x, y, scoring=scoring, n_repeats=repeats, random_state=seed)
        return np.asarray(found.importances_mean)

    resamples = int(np.clip(PREDICTIONS // x.shape[1], FEWEST, MOST))
    generator = np.random.default_rng(0)
    drawn = []
    for seed in range(resamples):
        some = generator.integers(0, len(x), len(x))
        drawn.append(costs(x.iloc[some].reset_index(drop=True), y[some], 1, seed + 1))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    estimate = costs(x, y, REPEATS, 0)
    found = [
        Importance(str(name), float(cost), (float(min(cost, least)), float(max(cost, most))))
        for name, cost, least, most in zip(x, estimate, low, high, strict=True)
    ]
    ordered = sorted(found, key=lambda one: -one.cost)
    return Importances(tuple(ordered), len(x), resamples)


def dependences(subject: Subject, columns: Sequence[str]) -> list[Dependence]:
    """Partial dependence (Friedman, 2001) on each of `columns`, over at most `MAX_CURVE_ROWS` rows."""
    rows = spread(subject.groups, MAX_CURVE_ROWS).numpy()
    x = _frame(subject).iloc[rows].reset_index(drop=True)
    names = [str(name) for name in x]
    return [_dependence(subject, x, names.index(name)) for name in columns]


def _dependence(subject: Subject, x: pd.DataFrame, index: int) -> Dependence:
    assert subject.table is not None
    column = subject.table.columns[index]
    grid = _grid(x.iloc[:, index], column.categorical)
    found = partial_dependence(
        _model(subject),
        x,
        [index],
        custom_values={index: grid},
        categorical_features=[index] if column.categorical else None,
        kind="individual",
        response_method="predict_proba" if subject.classification else "auto",
        method="brute",
    )
    each = np.asarray(found["individual"])  # [outputs, rows, grid]; of two classes the second alone
    return Dependence(
        column.name,
        column.categorical,
        tuple(grid.tolist()),
        each.mean(1),
        np.percentile(each, [25, 75], axis=1),
    )


def _grid(values: pd.Series, categorical: bool) -> Array:
    """Where to look: each value there is or, of many numbers, evenly from the 5th to the 95th percentile."""
    distinct = np.unique(values.to_numpy())
    if categorical or len(distinct) <= GRID:
        return distinct[:GRID]
    low, high = np.percentile(values, [5, 95])
    return np.linspace(low, high, GRID) if low < high else np.linspace(distinct[0], distinct[-1], GRID)
