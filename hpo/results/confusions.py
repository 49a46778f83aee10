"""The class pairs that a model confuses most, by name, of images with a few examples."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from hpo.data.prepared import Normalization, Part
from hpo.results.metrics import Array, Record, TestMetrics

MAX_PAIRS = 6
MAX_IMAGES = 4
"""Of one pair."""
MAX_SIDE = 48
"""Pixels that an example is recorded with, at most: all of a study's take 200 kB at the worst."""


class Confusion(Record):
    """Test examples of one class that a model takes for another."""

    true: str
    predicted: str
    count: int
    of: int
    """Test examples of the true class."""
    images: tuple[str, ...] = ()
    """PNG in base64, of the examples that the model is surest of; none where examples are no images."""


def confusions(
    metrics: TestMetrics, outputs: Any, test: Part, normalization: Normalization | None
) -> tuple[Confusion, ...]:
    """The `MAX_PAIRS` class pairs with the most confused examples; none for a regressor.

    outputs: [N, C] logits of the examples in `test`. normalization: of images.
    """
    if metrics.task != "classification":
        return ()
    counts = np.array(metrics.confusion_matrix)
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(place), len(counts)) for place in most if counts.flat[place]]
    scores, targets = np.asarray(outputs), np.asarray(test.targets)
    draw = None if normalization is None else _Drawing(test, normalization)
    found = []
    for true, predicted in pairs:
        images: tuple[str, ...] = ()
        if draw is not None:
            images = tuple(draw.png(row) for row in _surest(scores, targets, true, predicted))
        found.append(
            Confusion(
                true=metrics.classes[true].name,
                predicted=metrics.classes[predicted].name,
                count=int(counts[true, predicted]),
                of=metrics.classes[true].support,
                images=images,
            )
        )
    return tuple(found)


def _surest(scores: Array, targets: Array, true: int, predicted: int) -> list[int]:
    """Examples of `true` taken for `predicted`, the widest margin of the logits first."""
    rows = np.flatnonzero((targets == true) & (scores.argmax(axis=1) == predicted))
    margins = scores[rows, predicted] - scores[rows, true]
    return [int(row) for row in rows[np.argsort(-margins, kind="stable")][:MAX_IMAGES]]


class _Drawing:
    """Test images, [N, C, H, W] with 1 or 3 channels, as they were before they were normalized."""

    def __init__(self, test: Part, normalization: Normalization) -> None:
        self.features = test.features
        self.means, self.deviations = (
            np.array(values)[:, None, None] for values in (normalization.means, normalization.deviations)
        )
        # Not all use the 255 steps that they have: scikit-learn's digits go to 16.
        brightest = test.features.amax((0, 2, 3)).numpy()[:, None, None] * self.deviations + self.means
        self.gain = 255 / max(1, round(float(brightest.max())))

    def png(self, row: int) -> str:
        original = (self.features[row].numpy() * self.deviations + self.means).round()
        pixels = (original * self.gain).round().clip(0, 255).astype(np.uint8)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()
