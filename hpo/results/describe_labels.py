"""Labels that look wrong: where models that have not seen an example are sure of another label.

The idea of confident learning (Northcutt, Jiang and Chuang, 2021), with two kinds of model that must agree:
the oddity of one accuses no one.
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
FOLDS = 5
SURE, UNLIKELY = 0.9, 0.05
"""What both models must give the other label, at least, and the given one, at most."""
NAMED = 20
LEVEL = 0.05
LEAST_WRONG = 0.005
"""Of answers that a model is sure of, whatever it says itself: kept labels are no better."""
COMPONENTS = 40
"""Principal components of an image."""
RULE = (
    f"Two kinds of model learn {FOLDS - 1} fifths of the rows and judge the last one, by turns. A label is "
    f"suspect where both give another one at least {SURE:.0%} and this one at most {UNLIKELY:.0%}. Nothing "
    "is changed: look at them."
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
    """The less sure model's probability of the expected label; of numbers, robust deviations."""


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
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    both = np.stack(
        [
            cross_val_predict(model, features, codes, cv=folds, method="predict_proba")
            for model in (KNeighborsClassifier(15, weights="distance"), _smooth(features, codes, images))
        ]
    )
    own = both[:, np.arange(len(codes)), codes].max(axis=0)
    agreed = both.min(axis=0)
    wrong = np.sqrt(np.maximum(1 - both, LEAST_WRONG).prod(axis=0)).min(axis=1)[agreed.max(axis=1) >= SURE]
    agreed[np.arange(len(codes)), codes] = 0
    sureness = agreed.max(axis=1)
    suspect = np.flatnonzero((sureness >= SURE) & (own <= UNLIKELY))
    names = [classes[index] for index in common]
    return Suspects(
        looked_at=len(codes),
        count=len(suspect),
        expected=float(wrong.sum()),
        examples=tuple(
            Suspect(
                place=int(places[row]),
                given=names[codes[row]],
                expected=names[int(agreed[row].argmax())],
                sureness=float(sureness[row]),
            )
            for row in suspect[np.argsort(-sureness[suspect], kind="stable")][:NAMED]
        ),
    )


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
    learned = int(np.bincount(codes).min() * (FOLDS - 1) / FOLDS)
    if images and learned > features.shape[1] + 1:
        return QuadraticDiscriminantAnalysis(reg_param=0.1)
    return LogisticRegression(max_iter=1000, tol=1e-3)
