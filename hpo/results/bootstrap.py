"""What another test set, and another seed, would change of a test metric: the bootstrap.

Test examples are drawn with replacement, as many as there are (Efron, 1979). An example that is drawn w times
weighs w, so that the metrics of all resamples come from a few products of sparse matrices, which say what is
summed, with the weights [N, B]. All models are measured on the same resamples. Intervals are percentiles
(Efron and Tibshirani, 1993, chapter 13).

Shapes: B resamples, N examples, C classes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import log_softmax

from hpo.config import Task
from hpo.results.metrics import Array, Interval, ordering

RESAMPLES = 1000
FEWEST = 200
WORK = 600_000_000
"""Resamples times examples times classes: beyond it there are fewer resamples, so that 36 classes and 14,400
examples take seconds."""
CELLS = 1_000_000
"""Weights that are held at a time."""

Resampled = dict[str, Array]
"""By metric: [B], nan where a resample leaves it undefined."""


def resample(
    task: Task, outputs: Mapping[int, Any], targets: Any, seed: Sequence[int]
) -> dict[int, Resampled]:
    """The metrics of each model, by its seed, on resamples of the test examples.

    outputs: [N, C] logits, or [N, 1] predictions, by the model's seed. targets: [N]. seed: what the resamples
    are drawn by.
    """
    truth = np.asarray(targets)
    scores = {model: np.asarray(found, dtype=np.float64) for model, found in outputs.items()}
    kind = _Classifier if task == "classification" else _Regressor
    models = {model: kind(found, truth) for model, found in scores.items()}
    parts: dict[int, list[Resampled]] = {model: [] for model in models}
    width = next(iter(scores.values())).shape[1]
    for weights in _weights(len(truth), width, seed):
        for model, measure in models.items():
            parts[model].append(measure.metrics(weights))
    return {
        model: {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        for model, found in parts.items()
    }


def intervals(resampled: Resampled) -> dict[str, Interval]:
    """95 % of each metric; of one that no resample defines, none."""
    return {name: interval for name, values in resampled.items() if (interval := _percentiles(values))}


def intervals_of_means(resampled: Mapping[int, Resampled], seed: Sequence[int]) -> dict[str, Interval]:
    """95 % of each metric's mean over models that differ in their seed: over examples and seeds.

    To each resample of the examples belongs one of the models. With few of them this is a little narrow.
    """
    models = list(resampled.values())
    count = len(next(iter(models[0].values())))
    drawn = np.random.default_rng(seed).integers(0, len(models), (len(models), count))
    means = {
        name: np.take_along_axis(np.stack([model[name] for model in models]), drawn, axis=0).mean(axis=0)
        for name in models[0]
    }
    return intervals(means)


def _weights(examples: int, classes: int, seed: Sequence[int]) -> Iterator[Array]:
    """How often each example is drawn, [N, B], a part of the resamples at a time."""
    left = max(FEWEST, min(RESAMPLES, WORK // (examples * classes)))
    generator = np.random.default_rng(seed)
    while left:
        size = min(left, max(1, CELLS // examples))
        drawn = generator.integers(0, examples, (size, examples)) * size + np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * examples).reshape(examples, size).astype(np.float64)
        left -= size


def _percentiles(values: Array) -> Interval | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


class _Regressor:
    """Predictions [N, 1] of one model."""

    def __init__(self, outputs: Array, truth: Array) -> None:
        self.truth = truth.astype(np.float64)
        self.errors = outputs[:, 0] - self.truth

    def metrics(self, weights: Array) -> Resampled:
        """weights: [N, B]"""
        n = len(self.truth)
        squared = self.errors**2 @ weights / n
        centered = self.truth - self.truth.mean()
        variance = centered**2 @ weights / n - (centered @ weights / n) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            r2 = np.where(variance > 0, 1 - squared / variance, np.nan)
        return {
            "rmse": np.sqrt(squared),
            "mae": np.abs(self.errors) @ weights / n,
            "r2": r2,
            "loss": squared,
        }


class _Classifier:
    """Logits [N, C] of one model."""

    def __init__(self, outputs: Array, truth: Array) -> None:
        self.classes = outputs.shape[1]
        examples = np.arange(len(truth))
        self.losses = -log_softmax(outputs, axis=1)[examples, truth]
        self.cells = _sums(
            truth * self.classes + outputs.argmax(axis=1), examples, len(truth), self.classes**2
        )
        columns = ordering(outputs)
        pairs = [1] if self.classes == 2 else range(self.classes)
        self.rankings = [_Ranking(columns[:, index], truth == index) for index in pairs]

    def metrics(self, weights: Array) -> Resampled:
        """weights: [N, B]"""
        examples = len(weights)
        confusion = (self.cells @ weights).reshape(self.classes, self.classes, -1)
        hits = np.einsum("ccb->cb", confusion)
        support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
        occurring = (support + predicted) > 0
        return {
            "accuracy": hits.sum(axis=0) / examples,
            "precision": _macro(hits, predicted, occurring),
            "recall": _macro(hits, support, occurring),
            "f1": _macro(2 * hits, support + predicted, occurring),
            "roc_auc": np.mean([ranking.areas(weights) for ranking in self.rankings], axis=0),
            "loss": self.losses @ weights / examples,
        }


def _macro(hits: Array, of: Array, occurring: Array) -> Array:
    """The mean of hits / of over the classes that occur, 0 where there is nothing to divide by: [B]"""
    shares = np.divide(hits, of, out=np.zeros_like(hits), where=of > 0)
    return np.asarray(shares.sum(axis=0) / occurring.sum(axis=0))


class _Ranking:
    """Scores [N] of one class against the others, ordered once for all resamples."""

    def __init__(self, scores: Array, positive: Array) -> None:
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        steps, step = np.unique(scores[positives], return_inverse=True)
        self.positives = _sums(step, positives, len(scores), len(steps))
        # Negatives matter by where they lie: below the first step, on it, between it and the next, and so on.
        place = np.searchsorted(steps, scores[negatives]) + np.searchsorted(steps, scores[negatives], "right")
        self.negatives = _sums(place, negatives, len(scores), 2 * len(steps) + 1)

    def areas(self, weights: Array) -> Array:
        """The share of pairs in the right order, ties counting half (Mann and Whitney, 1947): [B]"""
        own, others = self.positives @ weights, np.cumsum(self.negatives @ weights, axis=0)
        right = (own * (others[:-1:2] + others[1::2]) / 2).sum(axis=0)
        pairs = own.sum(axis=0) * others[-1]
        return np.asarray(np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))


def _sums(row: Array, example: Array, examples: int, rows: int) -> Any:
    """A sparse matrix [rows, examples] that adds each of these examples to its row."""
    return csr_matrix((np.ones(len(example)), (row, example)), shape=(rows, examples))
