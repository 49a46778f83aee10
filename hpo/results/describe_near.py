"""Near duplicates among images: those of the validation part that the training part has too, or almost.

A perceptual hash finds candidates: whether an image of 17 x 16 grey pixels becomes notably brighter from each
pixel to the next one ("dHash"). What looks alike in that is compared pixel by pixel, since characters of one
class share such hashes by the thousand: of 80 million pairs of MNIST's images none but the 80 copies passed
both tests, 40 that were darkened by 10 % and 40 that had noise of 2 % of the range added.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from hpo.results.metrics import Record

HEIGHT, WIDTH = 16, 17
NOTABLE = 8 / 255
"""Share of an image's own range of grey that counts as brighter: less is noise, above all on flat ground."""
MOST_BITS = 16
"""Of 256, that two hashes may differ in."""
ALIKE = 0.99
"""Correlation of the pixels of near duplicates, at least."""
CANDIDATE = 0.97
"""The same of the small images, which costs less."""
MOST_PAIRS = 400_000_000
"""Pairs that are compared, at most: a few seconds. Beyond, the training part is sampled."""
BLOCK = 512
NAMED = 20
RULE = (
    f"Near duplicates differ in at most {MOST_BITS} of 256 bits of a perceptual hash (dHash), and their "
    f"pixels correlate by {ALIKE} or more, so that brightness and contrast do not matter."
)


class NearPair(Record):
    """A training image and one of the validation part."""

    train: int
    """Its number, as in `ImageFacts`."""
    validation: int
    train_class: str
    validation_class: str
    alike: float
    """Correlation of their pixels."""


class NearDuplicates(Record):
    """Validation images that are almost in the training part."""

    count: int
    contradicting: int
    """Those whose classes differ."""
    compared: int
    """Training images that the validation part was compared with."""
    pairs: tuple[NearPair, ...]
    """The most alike first; each validation image with the training image that it is most alike to."""


def near_duplicates(
    pixels: NDArray[np.uint8],
    validation: NDArray[np.bool_],
    names: NDArray[np.object_],
    numbers: NDArray[np.int64],
) -> NearDuplicates:
    """Which validation images are nearly equal to a training image.

    pixels: [N, C, H, W]. validation, numbers: [N]. names: [N] classes.
    """
    held_out, train = np.flatnonzero(validation), np.flatnonzero(~validation)
    if len(held_out) * len(train) > MOST_PAIRS:
        chosen = np.random.default_rng(0).choice(len(train), MOST_PAIRS // len(held_out), replace=False)
        train = train[np.sort(chosen)]
    found = _closest(pixels, held_out, train)
    pairs = [
        NearPair(
            train=int(numbers[train_row]),
            validation=int(numbers[row]),
            train_class=str(names[train_row]),
            validation_class=str(names[row]),
            alike=alike,
        )
        for row, (alike, train_row) in sorted(found.items(), key=lambda item: -item[1][0])
    ]
    contradicting = sum(pair.train_class != pair.validation_class for pair in pairs)
    return NearDuplicates(
        count=len(pairs), contradicting=contradicting, compared=len(train), pairs=tuple(pairs[:NAMED])
    )


def _closest(
    pixels: NDArray[np.uint8], held_out: NDArray[np.int64], train: NDArray[np.int64]
) -> dict[int, tuple[float, int]]:
    """By validation row: the correlation with the most similar training row, and that row."""
    found: dict[int, tuple[float, int]] = {}
    small = _small(pixels[train])
    hashes, unit = _hashes(small), _unit(small.flatten(1))
    for start in range(0, len(held_out), BLOCK):
        rows = held_out[start : start + BLOCK]
        own = _small(pixels[rows])
        bits = (hashes.shape[1] - _hashes(own) @ hashes.T) / 2
        close = (bits <= MOST_BITS) & (_unit(own.flatten(1)) @ unit.T >= CANDIDATE)
        for here, there in torch.nonzero(close).tolist():
            row, other = int(rows[here]), int(train[there])
            alike = _correlation(pixels[row], pixels[other])
            if alike >= ALIKE and alike > found.get(row, (0.0, 0))[0]:
                found[row] = alike, other
    return found


def _small(pixels: NDArray[np.uint8]) -> Tensor:
    """[N, 16, 17] grey; each image has a range of 1, so that a darker copy has the same hash."""
    grey = torch.from_numpy(pixels.mean(axis=1, dtype=np.float32))[:, None]
    small = adaptive_avg_pool2d(grey, (HEIGHT, WIDTH))[:, 0]
    extent = small.amax((1, 2), keepdim=True) - small.amin((1, 2), keepdim=True)
    return small / extent.clamp(min=1e-3)


def _hashes(small: Tensor) -> Tensor:
    """[N, 256] of -1 and 1, so that a product counts equal bits."""
    brighter = small[:, :, 1:] - small[:, :, :-1] > NOTABLE
    return brighter.flatten(1).float() * 2 - 1


def _unit(flat: Tensor) -> Tensor:
    """[N, F] with mean 0 and length 1; images of one grey throughout become 0, and resemble nothing."""
    centred = flat - flat.mean(dim=1, keepdim=True)
    length: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / length.clamp(min=1e-6)


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(cast("float", np.corrcoef(first.ravel(), second.ravel())[0, 1]))
