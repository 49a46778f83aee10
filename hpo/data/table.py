"""A table on its way from raw rows to clean ones; what was noticed on the way becomes findings."""

import re
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.config import Task
from hpo.data.prepared import Finding
from hpo.errors import DataError

Features = pd.DataFrame | NDArray[np.floating] | NDArray[np.uint8]
"""Columns with names: float64, nan where missing; or strings (categories), nan where missing.
Without names: [N, F] float64, nan where missing; [N, ...] float32 (sequences, say), all finite; or
[N, channels, height, width] uint8 (images)."""
Targets = NDArray[np.int64] | NDArray[np.float64]
"""[N] class indices, or numbers in their own unit."""

LISTED = 10
"""Places named in one message, at most."""


@dataclass(frozen=True)
class Rows:
    """Cleaned rows, not transformed: features and targets of equal length."""

    features: Features
    targets: Targets


@dataclass(frozen=True)
class Unparsable:
    """Cells of a column of numbers that are none, and count as missing."""

    column: str
    rows: NDArray[np.int64]
    texts: tuple[str, ...]
    """What stands in each."""


@dataclass(frozen=True)
class RawTable:
    """Columns that know their kind, labels as they were read."""

    where: str
    """The file or function, for messages."""
    features: Features
    labels: NDArray[np.object_]
    """[N] strings or numbers; None or nan where missing."""
    places: NDArray[np.int64]
    """[N] the file's line, or the array's row, of each example."""
    place: str
    """line or row"""
    findings: tuple[Finding, ...] = ()
    unparsable: tuple["Unparsable", ...] = ()
    """By column: cells that were to be numbers and are not."""

    def at(self, mask: NDArray[np.bool_]) -> str:
        """The places where `mask` is true, for a message."""
        found = self.places[mask]
        more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
        noun = self.place if len(found) == 1 else f"{self.place}s"
        return f"{noun} {', '.join(map(str, found[:LISTED]))}{more}"


@dataclass(frozen=True)
class Table:
    """Rows that can be split."""

    where: str
    features: Features
    targets: Targets
    classes: tuple[str, ...]
    raw_rows: int
    findings: tuple[Finding, ...]
    test: Rows | None = None
    """The data's own test part, where they have one: rows beyond those above."""
    places: NDArray[np.int64] | None = None
    """[N] of a table: as in `RawTable`."""


def as_images(features: Features) -> NDArray[np.uint8] | None:
    """`features`, if they are images: [N, channels, height, width]."""
    if isinstance(features, np.ndarray) and features.dtype == np.uint8:
        return cast("NDArray[np.uint8]", features)
    return None


def take(features: Features, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Features:
    """Some rows, in the order of `rows`."""
    return features.iloc[rows] if isinstance(features, pd.DataFrame) else features[rows]


def clean(raw: RawTable, task: Task, missing: str) -> Table:
    """Drop rows if `missing` is `drop`, encode the labels, and report what is odd about the rest.

    Raises:
        DataError: labels are missing or are no numbers (regression), there is one class only, no feature
            column, or no row is left.
    """
    raw = _without_empty_columns(raw)
    if 0 in raw.features.shape[1:]:
        raise DataError(f"{raw.where}: no feature column is left beside the target")
    _refuse_missing_labels(raw)
    kept = _drop_incomplete(raw) if missing == "drop" else raw
    classes, targets = _classes(kept) if task == "classification" else ((), _numbers(kept))
    notes = (*_constant(kept), *_duplicates(kept, targets), *_imputed(kept, missing))
    findings = (*kept.findings, *notes)
    return Table(raw.where, kept.features, targets, classes, len(raw.labels), findings, places=kept.places)


def _without_empty_columns(raw: RawTable) -> RawTable:
    """With `missing: drop` they would cost every row, and otherwise there is nothing to fill them in with."""
    if not isinstance(raw.features, pd.DataFrame):
        return raw
    empty = raw.features.columns[raw.features.isna().all()]
    findings = [Finding("empty", f"column {name!r} is empty and was left out") for name in empty]
    return replace(raw, features=raw.features.drop(columns=empty), findings=(*raw.findings, *findings))


def _refuse_missing_labels(raw: RawTable) -> None:
    missing = pd.isna(raw.labels)
    if missing.any():
        raise DataError(f"{raw.where}: {missing.sum()} labels are missing, on {raw.at(missing)}")


def _drop_incomplete(raw: RawTable) -> RawTable:
    mask = np.array(np.asarray(pd.isna(raw.features)).any(axis=1), dtype=bool, ndmin=1)
    if mask.all():
        raise DataError(f"{raw.where}: `missing: drop` leaves no row: {_emptiest(raw)}")
    if not mask.any():
        return raw
    text = f"{mask.sum()} of {len(mask)} rows have missing cells and were dropped ({raw.at(mask)})"
    return replace(
        raw,
        features=take(raw.features, ~mask),
        labels=raw.labels[~mask],
        places=raw.places[~mask],
        findings=(*raw.findings, Finding("dropped", text)),
    )


def _emptiest(raw: RawTable) -> str:
    frame = pd.DataFrame(raw.features)
    counts = frame.isna().sum()
    return f"column {counts.idxmax()!r} is missing in {counts.max()} of {len(frame)} rows"


# --- labels


def _label_text(value: object) -> str:
    """`1.0` and `1` are one label."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", str(value).strip())


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _classes(raw: RawTable) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    codes, distinct = pd.factorize(raw.labels)
    texts = [_label_text(value) for value in distinct]
    numbers = {text: _number(text) for text in texts}
    if None in numbers.values():
        classes = sorted(numbers)
    else:
        classes = sorted(numbers, key=lambda text: (numbers[text], text))
    if len(classes) == 1:
        raise DataError(f"{raw.where}: all {len(raw.labels)} rows have the label {classes[0]!r}; need two")
    index = {text: position for position, text in enumerate(classes)}
    return tuple(classes), np.array([index[text] for text in texts], dtype=np.int64)[codes]


def _numbers(raw: RawTable) -> NDArray[np.float64]:
    values = pd.to_numeric(pd.Series(raw.labels), errors="coerce").to_numpy(np.float64)
    bad = ~(np.abs(values) <= np.finfo(np.float32).max)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"{raw.where}: {raw.place} {raw.places[first]}: the target {raw.labels[first]!r} is no finite "
            f"number ({bad.sum()} such in all); regression needs numbers"
        )
    return values


# --- findings


def _constant(raw: RawTable) -> list[Finding]:
    """Constant columns stay: scaled they are 0 everywhere, so they cost a weight and change nothing."""
    if raw.features.ndim > 2:
        return []
    frame = pd.DataFrame(raw.features)
    constant = [name for name in frame if frame[name].nunique() <= 1]
    return [
        Finding("constant", f"column {name!r} has the same value in every row: it tells nothing")
        for name in constant
    ]


def _duplicates(raw: RawTable, targets: NDArray[np.int64] | NDArray[np.float64]) -> list[Finding]:
    """Equal rows may fall into several parts, which makes the validation and test figures too good."""
    if isinstance(raw.features, pd.DataFrame):
        rows = raw.features
    elif raw.features.ndim == 2:
        rows = pd.DataFrame(raw.features)
    else:  # 64-bit hashes: this only informs
        rows = pd.DataFrame({0: [hash(row.tobytes()) for row in raw.features]})
    repeated = rows.assign(**{"the target": targets}).duplicated().to_numpy(bool)
    if not repeated.any():
        return []
    count = "1 row repeats" if repeated.sum() == 1 else f"{repeated.sum()} rows repeat"
    return [Finding("duplicate", f"{count} an earlier one, label included ({raw.at(repeated)})")]


def _imputed(raw: RawTable, missing: str) -> list[Finding]:
    if raw.features.ndim > 2:
        return []
    frame = pd.DataFrame(raw.features)
    return [
        Finding(
            "imputed",
            f"column {name!r}: {count} of {len(frame)} cells missing, filled in with the "
            f"{missing if pd.api.types.is_numeric_dtype(frame[name]) else 'most_frequent'} "
            "of the training part",
        )
        for name, count in frame.isna().sum().items()
        if count
    ]
