"""What scikit-learn's classics come to on the very splits and test examples of the winner.

Tables: logistic regression and gradient boosting; for a number to predict, ridge regression and gradient
boosting. Images: logistic (or ridge) regression of their pixels. They are not tuned. A tuned network that is
no better than these is not worth its trouble.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import structlog
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from hpo.config import StudyConfig
from hpo.data import preprocessing
from hpo.data.prepared import FinalTraining, Fold, Normalization, Part, PreparedData
from hpo.data.splits import stratified_subset
from hpo.results.candidates import Candidate, mean_interval, value_interval
from hpo.results.lanes import Progress, Watch
from hpo.results.metrics import Array, Interval, Record, evaluate
from hpo.results.reevaluate import overlap_of
from hpo.training.scores import score

log = structlog.get_logger()

MOST_ROWS = 100_000
"""Training rows of a table that a baseline is given; of more, a stratified subset, to take minutes."""
MOST_IMAGES = 10_000
"""Of images: with 28 x 28 pixels and 36 classes a regression then takes seconds."""
ITERATIONS = {False: 1000, True: 100}
"""Of the solver of logistic regression at most, by whether the examples are images."""
LEAST_PROBABILITY = 1e-15
"""Trees give probabilities of 0, which have no logarithm."""


class Baseline(Record):
    """A model of scikit-learn beside the winner."""

    name: str
    how: str
    """Its settings, and of how many training examples it was given, where these were not all."""
    values: list[float]
    """The study's metric on each split of the re-evaluation, in the order of the winner's."""
    mean: float | None
    interval: Interval | None
    """95 %, of the mean."""
    lead: float | None
    """By how much the winner is better, as a mean over the same splits; negative where it is worse. It was
    chosen on these, which flatters it a little; the test part does not."""
    lead_interval: Interval | None
    """95 %, of `lead`: paired over the splits, with Nadeau and Bengio's correction."""
    test: dict[str, float | None]
    """Each metric on the sealed test part, trained on train + validation as the winner is."""
    out: str | None = None
    """Why there are no figures."""

    @property
    def beaten(self) -> bool:
        """Whether the winner is better by more than chance explains."""
        return self.lead_interval is not None and self.lead_interval[0] > 0


@dataclass(frozen=True)
class _Kind:
    name: str
    how: str
    make: Callable[[], Any]


@dataclass(frozen=True)
class _Fitted:
    """One kind, fitted on each split and on train + validation."""

    kind: _Kind
    how: str
    values: list[float]
    model: Any
    out: str | None = None


class Baselines:
    """The baselines of a study, fitted; the test part is not needed for that."""

    def __init__(
        self,
        config: StudyConfig,
        prepared: PreparedData,
        folds: Sequence[Fold],
        training: FinalTraining,
        tell: Progress,
    ) -> None:
        self.config = config
        self.prepared = prepared
        self.overlap = overlap_of(folds)
        kinds = _kinds(config, _is_images(training.train))
        watch = Watch(tell, "fitting baselines", len(kinds) * (len(folds) + 1))
        self.fitted = [self._fit(kind, folds, training, watch) for kind in kinds]

    def _fit(self, kind: _Kind, folds: Sequence[Fold], training: FinalTraining, watch: Watch) -> _Fitted:
        values: list[float] = []
        try:
            for fold in folds:
                model, _ = _trained(kind, self.config, fold.train, fold.normalization)
                values.append(self._value(model, fold))
                watch.advance(1)
            model, how = _trained(kind, self.config, training.train, training.normalization)
            watch.advance(1)
        except ValueError as error:  # scikit-learn's word for examples that it cannot learn from
            log.warning("a baseline could not be fitted", baseline=kind.name, error=str(error))
            return _Fitted(kind, kind.how, [], None, f"it could not be fitted: {error}")
        if not np.isfinite(values).all():
            return _Fitted(kind, how, [], None, f"its {self.config.metric} was not finite")
        return _Fitted(kind, how, values, model)

    def _value(self, model: Any, fold: Fold) -> float:
        """As the search would measure it."""
        outputs = self._outputs(model, _matrix(fold.validation, fold.normalization))
        return float(score(self.config.metric, torch.from_numpy(outputs)[None], fold.validation.targets))

    def _outputs(self, model: Any, features: Array) -> Array:
        """Logarithms of probabilities [N, C], or predictions [N, 1]."""
        if self.prepared.task == "regression":
            return np.asarray(model.predict(features), dtype=np.float64).reshape(-1, 1)
        found = np.full((len(features), self.prepared.outputs), LEAST_PROBABILITY)
        found[:, model.classes_] = np.maximum(model.predict_proba(features), LEAST_PROBABILITY)
        return np.asarray(np.log(found))

    def beside(self, winner: Candidate, test: Part) -> tuple[Baseline, ...]:
        """Each on the test examples, and against the winner on the splits."""
        features = _matrix(test, None)
        return tuple(self._beside(fitted, winner, features, test) for fitted in self.fitted)

    def _beside(self, fitted: _Fitted, winner: Candidate, features: Array, test: Part) -> Baseline:
        if fitted.out is not None:
            return _without_figures(fitted, fitted.out)
        try:
            outputs = self._outputs(fitted.model, features)
            tested = evaluate(self.prepared.task, outputs, test.targets, self.prepared.classes)
        except ValueError as error:
            return _without_figures(fitted, f"it could not be tested: {error}")
        sign = 1 if self.config.direction == "maximize" else -1
        leads = [sign * (own - its) for own, its in zip(winner.values, fitted.values, strict=True)]
        return Baseline(
            name=fitted.kind.name,
            how=fitted.how,
            values=fitted.values,
            mean=float(np.mean(fitted.values)),
            interval=value_interval(self.config, fitted.values, self.overlap),
            lead=float(np.mean(leads)),
            lead_interval=mean_interval(leads, self.overlap),
            test=tested.scalars(),
        )


def _without_figures(fitted: _Fitted, why: str) -> Baseline:
    return Baseline(
        name=fitted.kind.name,
        how=fitted.how,
        values=[],
        mean=None,
        interval=None,
        lead=None,
        lead_interval=None,
        test={},
        out=why,
    )


def _kinds(config: StudyConfig, images: bool) -> list[_Kind]:
    seed, most = config.training.seed, ITERATIONS[images]
    if config.task == "regression":
        linear = _Kind("ridge regression", "alpha 1", partial(Ridge, alpha=1.0))
        boosted: Any = HistGradientBoostingRegressor
    else:
        linear = _Kind(
            "logistic regression",
            f"C 1, at most {most:,} iterations",
            partial(LogisticRegression, C=1.0, max_iter=most),
        )
        boosted = HistGradientBoostingClassifier
    boosting = _Kind("gradient boosting", "100 rounds", partial(boosted, max_iter=100, random_state=seed))
    return [linear] if images else [linear, boosting]


def _is_images(part: Part) -> bool:
    return part.features.dim() > 2


def _trained(
    kind: _Kind, config: StudyConfig, part: Part, normalization: Normalization | None
) -> tuple[Any, str]:
    """A model of this kind, fitted; and how."""
    most = MOST_IMAGES if _is_images(part) else MOST_ROWS
    rows, how = np.arange(len(part)), kind.how
    if len(part) > most:
        rows = _subset(config, np.asarray(part.targets), most)
        how += f", {most:,} of {len(part):,} training examples"
    # As many threads as training has: more than there are free cores make boosting ten times as slow.
    with warnings.catch_warnings(), threadpool_limits(torch.get_num_threads()):
        warnings.simplefilter("ignore", ConvergenceWarning)  # `how` says where it stops
        model = kind.make().fit(_matrix(part, normalization, rows), np.asarray(part.targets)[rows])
    return model, how


def _subset(config: StudyConfig, targets: Array, count: int) -> Array:
    seed = config.training.seed
    if config.task == "classification":
        return stratified_subset(targets, count, seed)
    return np.sort(np.random.default_rng(seed).permutation(len(targets))[:count])


def _matrix(part: Part, normalization: Normalization | None, rows: Array | None = None) -> Array:
    """[N, F] float32 of a part's examples, or of some `rows` of them; images normalized."""
    chosen = np.arange(len(part)) if rows is None else rows
    if part.rows is None or normalization is None:
        features = part.features[chosen]
    else:
        features = preprocessing.normalized(part.features[part.rows[chosen]].numpy(), normalization)
    return features.flatten(1).numpy()
