"""The statistics that images are normalized by: one mean and one deviation a channel."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpo.data.prepared import Normalization

CHUNK = 2**22
"""Pixels at a time: their squares take 16 MiB."""


class Moments:
    """The pixels of each image, summed; so the statistics of any of its parts cost next to nothing.

    The sums are whole numbers: they are exact, in whatever order they are added.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        """images: [N, C, H, W]"""
        count, channels = images.shape[:2]
        self.pixels = int(np.prod(images.shape[2:]))
        flat = images.reshape(count, channels, self.pixels)
        self.sums = np.empty((count, channels), np.int64)
        self.squares = np.empty((count, channels), np.int64)
        step = max(1, CHUNK // (channels * self.pixels))
        for start in range(0, count, step):
            chunk = flat[start : start + step].astype(np.uint32)
            self.sums[start : start + step] = chunk.sum(2, dtype=np.int64)
            self.squares[start : start + step] = np.square(chunk, out=chunk).sum(2, dtype=np.int64)

    def of(self, rows: NDArray[np.int64] | slice = slice(None)) -> Normalization:
        """The statistics of some images. A channel of one value throughout has deviation 1, not 0."""
        sums, squares = self.sums[rows], self.squares[rows]
        count = len(sums) * self.pixels
        means = [int(total) / count for total in sums.sum(0)]
        variances = [
            (count * int(square) - int(total) ** 2) / count**2
            for total, square in zip(sums.sum(0), squares.sum(0), strict=True)
        ]
        return Normalization(tuple(means), tuple(variance**0.5 or 1.0 for variance in variances))


def per_feature(values: Sequence[float], pixels: int) -> NDArray[np.float64]:
    """A number for each channel as one for each pixel of a flattened image."""
    return np.repeat(np.asarray(values, np.float64), pixels)
