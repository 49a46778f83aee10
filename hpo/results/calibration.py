"""Whether a classifier's probabilities are to be believed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from hpo.results.record import Record

BINS = 15


class CalibrationBin(Record):
    """The test examples whose predicted class was given a probability above `low`, up to `high`."""

    low: float
    high: float
    n: int
    confidence: float
    """The mean of these probabilities."""
    accuracy: float
    """The share of these predictions that are right."""


class Calibration(Record):
    """A reliability diagram, and its distance from the diagonal."""

    ece: float
    """Expected calibration error: the mean over the examples of |accuracy - confidence| of their bin."""
    bins: list[CalibrationBin]
    """Of `BINS` equally wide ones those that have an example, from the left."""


def calibration(probabilities: npt.NDArray[Any], targets: npt.NDArray[Any]) -> Calibration:
    """Calibration of the predicted class (Guo et al., 2017, "On calibration of modern neural networks").

    probabilities: [N, C], rows sum to 1. targets: [N] class indices. The bins are theirs, 15 of one width.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = [
        CalibrationBin(
            low=index / BINS,
            high=(index + 1) / BINS,
            n=int((place == index).sum()),
            confidence=float(confidence[place == index].mean()),
            accuracy=float(right[place == index].mean()),
        )
        for index in np.unique(place).tolist()
    ]
    error = sum(found.n * abs(found.accuracy - found.confidence) for found in bins)
    return Calibration(ece=error / len(targets), bins=bins)
