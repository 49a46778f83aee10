"""Pictures and what speaks for and against an output in them, as small PNGs for a page."""

import base64
import io

import numpy as np
from PIL import Image
from torch import Tensor

from hpo.results.metrics import Array
from hpo.results.subject import Subject
from hpo.results.theme import BLUE, VERMILLION

MAX_SIDE = 64
"""Pixels: 36 classes with ten pictures each take 1 MB then."""
PALE, SPAN = 205, 50
"""The picture below a heat map: from this grey up to white, so that colours show on it."""
FULL = 99.0
"""Percentile of the absolute attributions that has the full colour: a single pixel would fade all others."""
NINTHS = (
    ("upper left", "top", "upper right"),
    ("left", "middle", "right"),
    ("lower left", "bottom", "lower right"),
)


class Easel:
    """Draws inputs of one model, [*input_shape], [C, H, W] or [H, W]."""

    def __init__(self, subject: Subject) -> None:
        self.normalization = subject.normalization
        pixels = self._original(np.asarray(subject.features.cpu()))
        self.low, self.high = float(pixels.min()), float(pixels.max())
        if self.normalization is not None:
            # Not all use the 255 steps that they have: scikit-learn's digits go to 16.
            self.low = 0.0

    def picture(self, example: Tensor) -> str:
        """The input as it was before preprocessing, PNG in base64."""
        return _png(self._pixels(example))

    def heat(self, attribution: Tensor, over: Tensor | None = None) -> str:
        """Attributions, vermilion for and blue against, over a pale picture; each with its own scale."""
        total = flat(attribution)
        most = float(np.percentile(np.abs(total), FULL)) or float(np.abs(total).max()) or 1.0
        strength = np.clip(np.abs(total) / most, 0, 1)[..., None]
        below = np.full((*total.shape, 3), 255.0)
        if over is not None:
            grey = self._pixels(over).astype(np.float64)
            below = PALE + SPAN * (grey.mean(-1, keepdims=True) if grey.ndim == 3 else grey[..., None]) / 255
        colour = np.where((total > 0)[..., None], _rgb(VERMILLION), _rgb(BLUE))
        return _png((below + strength * (colour - below)).round().astype(np.uint8))

    def _original(self, examples: Array) -> Array:
        """Undoes the normalization. examples: […, C, H, W]"""
        if self.normalization is None:
            return examples
        means, deviations = (
            np.array(values)[:, None, None]
            for values in (self.normalization.means, self.normalization.deviations)
        )
        original: Array = examples * deviations + means
        return original

    def _pixels(self, example: Tensor) -> Array:
        """[H, W] or [H, W, 3] uint8"""
        original = self._original(np.asarray(example.detach().cpu()))
        scaled = 255 * (original - self.low) / max(self.high - self.low, 1e-12)
        pixels = scaled.round().clip(0, 255).astype(np.uint8)
        if pixels.ndim == 3 and len(pixels) == 3:
            return np.moveaxis(pixels, 0, -1)
        return pixels if pixels.ndim == 2 else pixels.mean(0).astype(np.uint8)


def flat(attribution: Tensor) -> Array:
    """[H, W], summed over channels."""
    total = np.asarray(attribution.detach().cpu(), dtype=np.float64)
    return total.sum(0) if total.ndim == 3 else total


def strongest_ninth(attribution: Tensor) -> tuple[str, float] | None:
    """The ninth of the picture with most of what speaks for the output, and its share; None without any."""
    positive = flat(attribution).clip(0)
    if not positive.sum() > 0:
        return None
    rows = [np.array_split(part, 3, axis=1) for part in np.array_split(positive, 3, axis=0)]
    shares = np.array([[part.sum() for part in row] for row in rows]) / positive.sum()
    row, column = divmod(int(shares.argmax()), 3)
    return NINTHS[row][column], float(shares[row, column])


def _rgb(colour: str) -> Array:
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], dtype=np.float64)


def _png(pixels: Array) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
