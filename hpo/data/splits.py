"""Which rows train, validate and stay sealed: stratified by class, drawn by seed."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from hpo.config import Folds, StudyConfig
from hpo.data.table import Targets
from hpo.errors import DataError

Indices = NDArray[np.int64]
MIN_PART = 2
"""Rows of a part: R² of a single one is not defined."""


@dataclass(frozen=True)
class Split:
    """Rows of the train + validation rows, ascending."""

    train: Indices
    validation: Indices


def stratified_subset(targets: NDArray[np.int64], count: int, seed: int) -> Indices:
    """`count` of the rows, ascending: of each class its share, to a row.

    With the same seed, a larger subset has all rows of a smaller one.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    by_class = order[np.argsort(targets[order], kind="stable")]
    sizes = np.bincount(targets)
    rank = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = (rank + 0.5) / np.repeat(sizes, sizes)  # of its class, that comes before a row
    return np.sort(by_class[np.argsort(share, kind="stable")[:count]])


def seal(
    where: str, targets: Targets, classes: tuple[str, ...], config: StudyConfig
) -> tuple[Indices, Indices]:
    """(train + validation rows, test rows), both ascending; the test part is a share of all rows.

    Raises:
        DataError: a class, or the whole table, has too few rows for the parts that the configuration wants.
    """
    share = config.data.test_share
    if classes:
        _check_class_sizes(where, targets, classes, config, share)
    _check_part_sizes(where, len(targets), max(MIN_PART, len(classes)), config, share)
    test_rows = rows_of(len(targets), share)
    split = _hold_out(targets, test_rows, config.training.seed, stratified=bool(classes))
    return split.train, split.validation


def check_own_test(where: str, targets: Targets, classes: tuple[str, ...], config: StudyConfig) -> None:
    """What `seal` checks, for train + validation rows whose test part lies elsewhere.

    Raises:
        DataError: a class, or the whole, has too few rows for the parts that the configuration wants.
    """
    _check_class_sizes(where, targets, classes, config, test_share=0)
    _check_part_sizes(where, len(targets), max(MIN_PART, len(classes)), config, test_share=0)


def validation_splits(targets: Targets, all_rows: int, config: StudyConfig) -> tuple[Split, ...]:
    """The splits of the train + validation rows by `training.seed`: one, or one for each fold.

    targets: [N] of the train + validation rows. all_rows: what the validation fraction is a share of: with
    the test rows, but for a test part that the data come with.
    """
    seed, stratified = config.training.seed, config.task == "classification"
    if not isinstance(config.validation, Folds):
        rows = rows_of(all_rows, config.validation.fraction)
        return (_hold_out(targets, rows, seed, stratified),)
    kind = StratifiedKFold if stratified else KFold
    folds = kind(config.validation.folds, shuffle=True, random_state=seed)
    return tuple(Split(train, held_out) for train, held_out in folds.split(targets, targets))


def fresh_split(targets: Targets, validation_rows: int, seed: int, stratified: bool) -> Split:
    """Another split of the train + validation rows, of the same sizes, drawn by `seed`."""
    return _hold_out(targets, validation_rows, seed, stratified)


def rows_of(rows: int, fraction: float) -> int:
    """How many rows a fraction of `rows` is: 0.15 of 760 is 114."""
    return round(rows * fraction)


def _hold_out(targets: Targets, held_out_rows: int, seed: int, stratified: bool) -> Split:
    kept, held_out = train_test_split(
        np.arange(len(targets)),
        test_size=held_out_rows,
        random_state=seed,
        stratify=targets if stratified else None,
    )
    return Split(np.sort(kept), np.sort(held_out))


def _check_part_sizes(where: str, rows: int, needed: int, config: StudyConfig, test_share: float) -> None:
    test = rows_of(rows, test_share)
    if isinstance(config.validation, Folds):
        validation = (rows - test) // config.validation.folds
        named = f"validation.folds {config.validation.folds}"
        train = rows - test - math.ceil((rows - test) / config.validation.folds)
    else:
        validation = rows_of(rows, config.validation.fraction)
        named = f"validation.fraction {config.validation.fraction}"
        train = rows - test - validation
    parts = {"validation": (validation, named), "training": (train, named)}
    if test_share:
        fraction = f"data.test_fraction {test_share}"
        parts = {
            "test": (test, fraction),
            "validation": (validation, named),
            "training": (train, f"{named} and {fraction}"),
        }
    for part, (size, key) in parts.items():
        if size < needed:
            why = ", one for each class" if needed > MIN_PART else ""
            raise DataError(
                f"{where}: {key} of {rows} rows leaves {max(size, 0)} for the {part} part; "
                f"needed are at least {needed}{why}"
            )


def _check_class_sizes(
    where: str, targets: Targets, classes: tuple[str, ...], config: StudyConfig, test_share: float
) -> None:
    """Every class must be left with a row for each fold (or 2) once the test part has taken its share.

    The test part takes at most one row of a class more than its fraction.
    """
    parts = config.folds if isinstance(config.validation, Folds) else 2
    needed = (1 if test_share else 0) + math.ceil(parts / (1 - test_share))
    counts = np.bincount(targets.astype(np.int64), minlength=len(classes))
    rare = [(int(count), name) for name, count in zip(classes, counts, strict=True) if count < needed]
    if not rare:
        return
    listed = ", ".join(f"{name!r} has {count}" for count, name in sorted(rare)[:10])
    more = f" and {len(rare) - 10} more classes have too few" if len(rare) > 10 else ""
    hint = "; is the target a number to predict? then say `task: regression`" if len(rare) > 10 else ""
    raise DataError(
        f"{where}: too few rows of a class to split: {listed}{more}, but at least {needed} are needed{hint}"
    )
