"""Images on their way from files to parts: in uint8, and with their own test part where they have one.

Shapes: N images, C channels (1 or 3), H, W pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.config import ImageData
from hpo.data.prepared import Finding
from hpo.data.table import Rows, Table
from hpo.errors import DataError

LARGEST = 4 * 2**30
"""Bytes of one part, at most: they are kept in memory and on the device. CIFAR-100 has 0.15 · 2³⁰."""
LISTED = 10
"""Names in one message, at most."""


@dataclass(frozen=True)
class Labelled:
    """Images and their labels."""

    where: str
    """The file or folder, for messages."""
    pixels: NDArray[np.uint8]
    """[N, C, H, W]"""
    labels: NDArray[np.int64]
    """[N], at least 0"""


@dataclass(frozen=True)
class RawImages:
    """A set of images as it was read."""

    train: Labelled
    test: Labelled | None
    """The data's own test part; None where they have none."""
    names: tuple[str, ...] | None
    """By label; None: the labels name themselves."""
    findings: tuple[Finding, ...] = ()


def in_words(names: Iterable[object]) -> str:
    """Names in a row, the first `LISTED` of them."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more


def clean_images(raw: RawImages, data: ImageData | None) -> Table:
    """The classes that are wanted, numbered from 0, and what is odd about their images.

    data: what the study file says about them; None: all classes.

    Raises:
        DataError: a class has no image in a part, there is one class only, the names do not suffice, the
            parts differ in their images' shape, or a test part is there and a `test_fraction` too.
    """
    parts = [raw.train] if raw.test is None else [raw.train, raw.test]
    _check_parts(raw, data)
    first, end = (data and data.classes) or (int(raw.train.labels.min()), int(raw.train.labels.max()) + 1)
    names = _names(raw, first, end)
    for part in parts:
        _check_classes(part, first, end, names)
    kept = [_kept(part, first, end) for part in parts]
    return Table(
        raw.train.where,
        kept[0].features,
        kept[0].targets,
        names,
        raw_rows=sum(len(part.labels) for part in parts),
        findings=(*raw.findings, *_left_out(parts, first, end), *_duplicates(kept)),
        test=kept[1] if len(kept) > 1 else None,
    )


def _check_parts(raw: RawImages, data: ImageData | None) -> None:
    if raw.test is None:
        return
    if data is not None and data.test_fraction is not None:
        raise DataError(
            f"{raw.test.where}: is the data's own test part, which is the test set; "
            f"leave data.test_fraction ({data.test_fraction}) out"
        )
    shapes = raw.train.pixels.shape[1:], raw.test.pixels.shape[1:]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"{raw.test.where}: its images have the shape {shape_text(shapes[1])}, "
            f"those of {raw.train.where} {shape_text(shapes[0])}"
        )


def shape_text(shape: tuple[int, ...]) -> str:
    """Channels, height and width, as messages have them."""
    return " x ".join(map(str, shape))


def _names(raw: RawImages, first: int, end: int) -> tuple[str, ...]:
    if raw.names is None:
        names = tuple(map(str, range(first, end)))
    else:
        if end > len(raw.names):
            raise DataError(
                f"{raw.train.where}: label {end - 1} has no name: there are {len(raw.names)} names, "
                f"for the labels 0 to {len(raw.names) - 1}"
            )
        names = raw.names[first:end]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{raw.train.where}: more than one class is called {in_words(map(repr, repeated))}")
    if len(names) < 2:
        raise DataError(f"{raw.train.where}: all images are of class {names[0]!r}; need two classes")
    return names


def _check_classes(part: Labelled, first: int, end: int, names: tuple[str, ...]) -> None:
    counts = np.bincount(part.labels, minlength=end)
    absent = [names[label - first] for label in range(first, end) if counts[label] == 0]
    if absent:
        there = f"there are labels from {part.labels.min()} to {part.labels.max()}"
        raise DataError(
            f"{part.where}: has no image of class {in_words(map(repr, absent))}; each of the {len(names)} "
            f"classes from {names[0]!r} to {names[-1]!r} needs some ({there}; data.classes keeps a range)"
        )


def _kept(part: Labelled, first: int, end: int) -> Rows:
    mask = (part.labels >= first) & (part.labels < end)
    if mask.all():  # without a copy
        return Rows(part.pixels, part.labels - first)
    return Rows(part.pixels[mask], part.labels[mask] - first)


def _left_out(parts: list[Labelled], first: int, end: int) -> list[Finding]:
    labels = np.concatenate([part.labels for part in parts])
    others = labels[(labels < first) | (labels >= end)]
    if not len(others):
        return []
    text = f"{len(others)} of {len(labels)} images are of other classes than {first} to {end - 1}"
    return [Finding("classes", f"{text}, and were left out")]


def _duplicates(parts: list[Rows]) -> list[Finding]:
    """Equal images in several parts make the validation and test figures too good; 64-bit hashes tell."""
    hashes = [_hashes(part) for part in parts]
    findings = []
    repeated = len(hashes[0]) - len(np.unique(hashes[0]))
    if repeated:
        findings.append(Finding("duplicate", f"{repeated} images repeat another one, label included"))
    if len(parts) > 1 and (leaked := int(np.isin(hashes[1], hashes[0]).sum())):
        text = f"{leaked} of {len(hashes[1])} images of the test part are in the training part too"
        findings.append(Finding("duplicate", f"{text}, label included"))
    return findings


def _hashes(rows: Rows) -> NDArray[np.int64]:
    pairs = zip(rows.features, rows.targets.tolist(), strict=True)
    return np.fromiter(
        (hash((image.tobytes(), label)) for image, label in pairs), np.int64, len(rows.targets)
    )
