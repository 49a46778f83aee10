"""Labels that look wrong: where models that have not seen an example are sure of another label.

The idea of confident learning (Northcutt, Jiang and Chuang, 2021): probabilities out of fold, and a second
round that learns only what the first one did not doubt. Two kinds of model must agree: the oddity of one
accuses no one.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, poisson
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from hpo.results.describe_columns import FAR
from hpo.results.metrics import Record

ROWS = 10_000
"""Examples that are looked at, at most: a few seconds."""
Probabilities = NDArray[np.float64]
"""[2, N, classes]: what each of two models makes of examples that it has not learned."""
FOLDS = 5
NEIGHBOURS = 15
UNLIKELY, DOUBTED = 1 / 20, 1 / 10
"""Of the other label's probability, what the given one of a suspect has at most; and of a label that the
second round does not learn."""
OWN = 0.3
"""What either model gives the given label of a suspect, at most."""
LEAST_WRONG = 0.005
"""Of a model's answers, whatever it says itself: kept labels are no better."""
NAMED = 20
LEVEL = 0.05
COMPONENTS = 40
"""Principal components of an image."""
RULE = (
    f"Two kinds of model learn {FOLDS - 1} fifths of the rows and judge the last one, by turns; then "
    "once more, without the labels that they doubted. A label is suspect where both expect the same other "
    f"one, neither gives it more than {OWN:.0%}, and on (geometric) average it is at most {UNLIKELY:.0%} as "
    "probable as the other. Nothing is changed: look at them."
)
RULE_OF_NUMBERS = (
    f"Two kinds of model learn {FOLDS - 1} fifths of the rows and predict the last one, by turns. A target "
    f"is suspect where both miss it, to the same side, by more than {FAR:.0f} robust standard deviations of "
    "their errors. Nothing is changed: look at them."
)


class Suspect(Record):
    """An example whose target two models doubt."""

    place: int
    """Line or row of a table; of images, the number among those that are not sealed, from 1."""
    given: str
    expected: str
    sureness: float
    """Probability of the expected label, the mean of both models; of numbers, robust deviations."""


class Suspects(Record):
    """The surest first."""

    looked_at: int
    """Examples; the others were not drawn."""
    count: int
    expected: float
    """How many there would be of sound labels: both models are wrong now and then where they are sure."""
    examples: tuple[Suspect, ...]
    why_not: str = ""
    """Why there are none to find."""

    @property
    def surprising(self) -> bool:
        """Whether there are more than chance explains."""
        return bool(self.count and poisson.sf(self.count - 1, self.expected) < LEVEL)


def no_suspects(why: str) -> Suspects:
    """Where nothing can be said."""
    return Suspects(looked_at=0, count=0, expected=0.0, examples=(), why_not=why)


def suspect_labels(
    features: NDArray[Any], codes: NDArray[np.int64], places: NDArray[np.int64], classes: tuple[str, ...]
) -> Suspects:
    """Among examples with classes.

    features: [N, F], standardized; images [N, F] uint8 are brought to `COMPONENTS` first. places: [N]
    """
    rows = _drawn(len(codes))
    images = features.dtype == np.uint8
    features, codes, places = (
        _reduced(features[rows]) if images else features[rows],
        codes[rows],
        places[rows],
    )
    counts = np.bincount(codes, minlength=len(classes))
    common = np.flatnonzero(counts >= 2 * FOLDS)
    inside = np.isin(codes, common)
    if len(common) < 2:
        return no_suspects(f"It takes two classes of {2 * FOLDS} rows or more.")
    features, codes, places = features[inside], np.searchsorted(common, codes[inside]), places[inside]
    none = np.zeros(len(codes), bool)
    first = _judged(features, codes, none, images)
    judged = _judged(features, codes, _left_out(first, codes), images)
    suspect = np.flatnonzero(_doubted(judged, codes, UNLIKELY))
    mean = _mean(judged)
    sureness = mean.max(axis=1)
    names = [classes[index] for index in common]
    return Suspects(
        looked_at=len(codes),
        count=len(suspect),
        expected=_expected(judged),
        examples=tuple(
            Suspect(
                place=int(places[row]),
                given=names[codes[row]],
                expected=names[int(mean[row].argmax())],
                sureness=float(sureness[row]),
            )
            for row in suspect[np.argsort(-sureness[suspect], kind="stable")][:NAMED]
        ),
    )


def _judged(
    features: NDArray[Any], codes: NDArray[np.int64], left_out: NDArray[np.bool_], images: bool
) -> Probabilities:
    """What both models, which learned neither an example nor one that is left out, make of it."""
    judged = np.zeros((2, len(codes), codes.max() + 1))
    for train, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, codes):
        learned = train[~left_out[train]]
        near = KNeighborsClassifier(min(NEIGHBOURS, len(learned) // 2), weights="distance")
        for place, model in enumerate((near, _smooth(features[learned], codes[learned], images))):
            model.fit(features[learned], codes[learned])
            judged[place][np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return judged


def _mean(judged: Probabilities) -> NDArray[np.float64]:
    """[N, classes]: geometric, so that neighbours who are wrong themselves do not weigh much."""
    mean = np.exp(np.log(np.maximum(judged, LEAST_WRONG)).mean(axis=0))
    return cast("NDArray[np.float64]", mean / mean.sum(axis=1, keepdims=True))


def _doubted(judged: Probabilities, codes: NDArray[np.int64], ratio: float) -> NDArray[np.bool_]:
    """Whether both models expect another label, and the given one has at most `ratio` of its probability."""
    every, top, mean = np.arange(len(codes)), judged[0].argmax(axis=1), _mean(judged)
    agreed = (top == judged[1].argmax(axis=1)) & (top != codes)
    unlikely = (judged[:, every, codes] <= OWN).all(axis=0)
    return cast("NDArray[np.bool_]", agreed & unlikely & (mean[every, codes] <= ratio * mean[every, top]))


def _left_out(judged: Probabilities, codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Labels that the second round does not learn: planted errors else make both models unsure of all others.

    A class of which half are doubted stays whole: it is not the labels that are odd then.
    """
    doubted = _doubted(judged, codes, DOUBTED)
    share = np.bincount(codes, doubted) / np.bincount(codes)
    return doubted & (share[codes] < 0.5)


def _expected(judged: Probabilities) -> float:
    """Sound labels that would be doubted: the errors that the models expect where they are that sure.

    Counted up to twice the ratio, since what was left out makes the second round surer than it should be: of
    100 clean sets of two overlapping groups, 300 and 1,500 examples, none was accused then.
    """
    every, top, mean = np.arange(judged.shape[1]), judged[0].argmax(axis=1), _mean(judged)
    wrong = 1 - judged[:, every, top]
    sure = (top == judged[1].argmax(axis=1)) & (wrong <= OWN).all(axis=0)
    sure &= 1 - mean[every, top] <= 2 * UNLIKELY
    return float(np.maximum(wrong.mean(axis=0), LEAST_WRONG)[sure].sum())


def suspect_numbers(
    features: NDArray[np.floating], targets: NDArray[np.float64], places: NDArray[np.int64]
) -> Suspects:
    """Among rows with a number to predict.

    features: [N, F], standardized. places: [N]
    """
    rows = _drawn(len(targets))
    features, targets, places = features[rows], targets[rows], places[rows]
    if len(targets) < 4 * FOLDS:
        return no_suspects(f"It takes {4 * FOLDS} rows or more.")
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    predicted = np.stack(
        [
            cross_val_predict(model, features, targets, cv=folds)
            for model in (KNeighborsRegressor(min(10, len(targets) // 2), weights="distance"), Ridge())
        ]
    )
    errors = targets - predicted
    middles = np.median(errors, axis=1, keepdims=True)
    scales = 1.4826 * np.median(np.abs(errors - middles), axis=1, keepdims=True)
    standard = (errors - middles) / np.where(scales == 0, np.inf, scales)
    same_side = np.sign(standard[0]) == np.sign(standard[1])
    distance = np.abs(standard).min(axis=0) * same_side
    suspect = np.flatnonzero(distance > FAR)
    return Suspects(
        looked_at=len(targets),
        count=len(suspect),
        expected=float(2 * norm.sf(FAR) * len(targets)),
        examples=tuple(
            Suspect(
                place=int(places[row]),
                given=f"{targets[row]:.5g}",
                expected=f"{predicted[:, row].mean():.5g}",
                sureness=float(distance[row]),
            )
            for row in suspect[np.argsort(-distance[suspect], kind="stable")][:NAMED]
        ),
    )


def _drawn(count: int) -> NDArray[np.int64]:
    if count <= ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, ROWS, replace=False))


def _reduced(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[N, F] → at most `COMPONENTS` principal components, on one common scale."""
    size = min(COMPONENTS, pixels.shape[1], len(pixels) - 1)
    found = PCA(size, svd_solver="randomized", random_state=0).fit_transform(pixels.astype(np.float32) / 255)
    return cast("NDArray[np.float64]", found / (found.std() or 1.0))


def _smooth(features: NDArray[Any], codes: NDArray[np.int64], images: bool) -> Any:
    """The model beside nearest neighbours: quadratic for images, whose classes it tells apart far better."""
    if images and np.bincount(codes).min() > features.shape[1] + 1:
        return QuadraticDiscriminantAnalysis(reg_param=0.1)
    return LogisticRegression(max_iter=1000, tol=1e-3)
