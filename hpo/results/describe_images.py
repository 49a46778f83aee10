"""What a set of images holds: how bright they are, which are blank, and which stand apart."""

import numpy as np
from numpy.typing import NDArray

from hpo.data.unsealed import UnsealedImages
from hpo.results.describe_columns import FAR, outliers
from hpo.results.describe_labels import Suspects, no_suspects, suspect_labels
from hpo.results.describe_near import NearDuplicates, near_duplicates
from hpo.results.metrics import Record

LARGEST_SIDE = 48
"""Pixels that labels are judged by."""
BRIGHTNESS_RULE = (
    "Brightness is the mean of an image's pixels. An image stands apart where its brightness or its contrast "
    f"(the standard deviation of its pixels) is more than {FAR:.0f} robust standard deviations from the "
    "median of its class."
)


class Brightness(Record):
    """Of the images of one class, as quantiles of their mean pixel."""

    name: str
    quantiles: tuple[float, float, float, float, float]
    """5, 25, 50, 75, 95 %"""


class ImageFacts(Record):
    """Images that are not sealed; their numbers count these from 1."""

    shape: tuple[int, int, int]
    """Channels, height, width"""
    highest: int
    """Brightest pixel of all, of 255."""
    brightness: tuple[Brightness, ...]
    blank: tuple[int, ...]
    """Numbers (from 1) of images that have one value throughout."""
    apart: tuple[int, ...]
    """Numbers of images that are far brighter, darker, richer or poorer in contrast than the others."""
    near: NearDuplicates
    suspects: Suspects


def image_facts(images: UnsealedImages, classes: tuple[str, ...], numbers: NDArray[np.int64]) -> ImageFacts:
    """What these images hold.

    numbers: [N] of the images among those that are not sealed, from 1.
    """
    pixels = images.pixels
    flat = pixels.reshape(len(pixels), -1)
    mean, deviation = _moments(flat)
    blank = np.flatnonzero(deviation == 0)
    codes = images.targets.astype(np.int64) if classes else np.zeros(len(pixels), np.int64)
    named = np.array(classes or ("",), object)[codes]
    apart = _apart(codes, mean, deviation)
    suspects = (
        suspect_labels(_shrunk(pixels), codes, numbers, classes)
        if classes
        else no_suspects("The targets are numbers.")
    )
    return ImageFacts(
        shape=(pixels.shape[1], pixels.shape[2], pixels.shape[3]),
        highest=int(pixels.max()),
        brightness=tuple(
            Brightness(name=str(name), quantiles=_quantiles(mean[named == name])) for name in classes or ("",)
        ),
        blank=tuple(int(numbers[row]) for row in blank),
        apart=tuple(int(numbers[row]) for row in np.setdiff1d(apart, blank)),
        near=near_duplicates(pixels, images.validation, named, numbers),
        suspects=suspects,
    )


def _apart(codes: NDArray[np.int64], *measures: NDArray[np.float64]) -> NDArray[np.int64]:
    """Images that are outliers of their class in a measure: classes differ in brightness by nature."""
    found = [np.zeros(0, np.int64)]
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        found += [rows[outliers(measure[rows])] for measure in measures]
    return np.unique(np.concatenate(found))


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[N, F] uint8; every other pixel, or fewer, of images that are larger than `LARGEST_SIDE`."""
    step = -(-max(pixels.shape[2:]) // LARGEST_SIDE)
    return pixels[:, :, ::step, ::step].reshape(len(pixels), -1)


def _moments(flat: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of each image, some at a time: their float copies would take 8 times the memory."""
    step = max(1, 2**22 // flat.shape[1])
    means, deviations = [], []
    for start in range(0, len(flat), step):
        part = flat[start : start + step].astype(np.float32)
        means.append(part.mean(axis=1, dtype=np.float64))
        deviations.append(part.std(axis=1, dtype=np.float64))
    return np.concatenate(means), np.concatenate(deviations)


def _quantiles(values: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    if not len(values):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    low, first, middle, third, high = (float(value) for value in np.percentile(values, [5, 25, 50, 75, 95]))
    return low, first, middle, third, high
