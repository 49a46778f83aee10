"""The parts of a study's data: rows that are cleaned, split and fitted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hpo.config import CsvData, ImageData, StudyConfig, Task
from hpo.data import preprocessing, splits
from hpo.data.cache import load_rows, store
from hpo.data.digests import Digests
from hpo.data.images import RawImages, clean_images
from hpo.data.normalization import Moments
from hpo.data.prepared import FinalTraining, Finding, Fold, Part, PreparedData
from hpo.data.source import Source
from hpo.data.splits import Indices, Split
from hpo.data.table import RawTable, Rows, Table, Targets, as_images, clean, take
from hpo.errors import DataError


def build(config: StudyConfig, source: Source, key: str, folder: Path) -> PreparedData:
    """Read, clean, split and cache the study's data in `folder`, under the fingerprint `key`.

    Raises:
        DataError: the data are unusable, or the cache cannot be written.
    """
    table = _sampled(cleaned(source.read(), config), config)
    rows, test = _sealed(table, config)
    parts = splits.validation_splits(rows.targets, len(table.targets), config)
    folds = _folds(rows, parts, config)
    named = isinstance(table.features, pd.DataFrame)
    prepared = PreparedData(
        fingerprint=key,
        task=config.task,
        classes=table.classes,
        input_shape=tuple(folds[0].train.features.shape[1:]),
        feature_names=tuple(map(str, table.features)) if named else (),
        sizes={
            "raw": table.raw_rows,
            "train": len(folds[0].train),
            "validation": len(folds[0].validation),
            "test": len(test.targets),
        },
        folds=folds,
        findings=(*table.findings, *_absent_classes(table, test.targets, rows.targets, parts)),
        cache=folder,
        test_counts=_counts(test.targets, table.classes),
    )
    store(prepared, rows, test, Digests.of(rows, test, parts))
    return prepared


def fresh_folds(config: StudyConfig, prepared: PreparedData, seeds: Sequence[int]) -> tuple[Fold, ...]:
    """For each seed another split of train + validation, of the first fold's sizes, its statistics refitted.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "rows.safetensors")
    stratified = config.task == "classification"
    validation_rows = prepared.sizes["validation"]
    parts = [splits.fresh_split(rows.targets, validation_rows, seed, stratified) for seed in seeds]
    return _folds(rows, parts, config)


@dataclass(frozen=True)
class HeldOut:
    """A fresh split of train + validation, with what its validation part was before it was transformed."""

    fold: Fold
    raw: Rows
    """The validation part's; of images uint8, not normalized."""
    preprocessing: Any
    """Fitted on the training part alone; None for images."""
    reference: Any
    """The transformer whose one-hot layout the features have; None for images."""


def held_out(config: StudyConfig, prepared: PreparedData, seed: int) -> HeldOut:
    """One split of `fresh_folds` for whoever must know raw rows too; the test part stays sealed.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "rows.safetensors")
    stratified = config.task == "classification"
    split = splits.fresh_split(rows.targets, prepared.sizes["validation"], seed, stratified)
    (fold,) = _folds(rows, (split,), config)
    raw = Rows(take(rows.features, split.validation), rows.targets[split.validation])
    if as_images(rows.features) is not None:
        return HeldOut(fold, raw, None, None)
    fitted = preprocessing.fit(take(rows.features, split.train), _missing(config))
    return HeldOut(fold, raw, fitted, preprocessing.fit(rows.features, _missing(config)))


def final_training(config: StudyConfig, prepared: PreparedData) -> FinalTraining:
    """All train + validation rows, the statistics refitted on all of them.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "rows.safetensors")
    images = as_images(rows.features)
    if images is not None:
        normalization = Moments(images).of()
        fitted = preprocessing.image_scaler(normalization, images.shape[1:])
        train = _image_part(images, rows.targets, np.arange(len(images)))
        return FinalTraining(train, fitted, normalization=normalization)
    fitted = preprocessing.fit(rows.features, _missing(config))
    mean, scale = _target_statistics(rows.targets, config.task)
    return FinalTraining(_part(rows, fitted, config.task), fitted, mean, scale)


def open_sealed(prepared: PreparedData, training: FinalTraining) -> Part:
    """The test part, images normalized. Nothing else opens its file: call it once, when all is decided.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "test.safetensors")
    images = as_images(rows.features)
    if images is not None and training.normalization is not None:
        features = preprocessing.normalized(images, training.normalization)
        return Part(features, torch.from_numpy(rows.targets))
    return _part(rows, training.preprocessing, prepared.task)


def _missing(config: StudyConfig) -> str:
    return config.data.missing if isinstance(config.data, CsvData) else "median"


def cleaned(raw: RawTable | RawImages, config: StudyConfig) -> Table:
    """All rows of the study's data, before they are split.

    Raises:
        DataError: they are unusable.
    """
    if isinstance(raw, RawImages):
        return clean_images(raw, config.data if isinstance(config.data, ImageData) else None)
    return clean(raw, config.task, _missing(config))


def _sampled(table: Table, config: StudyConfig) -> Table:
    """As many examples as the study asks for, where it does; a test part of the data's own is not touched."""
    count = config.data.examples if isinstance(config.data, ImageData) else None
    if count is None:
        return table
    if count > len(table.targets):
        raise DataError(
            f"{table.where}: data.examples {count:,} is more than the {len(table.targets):,} images that "
            "there are to choose from"
        )
    rows = splits.stratified_subset(table.targets.astype(np.int64), count, config.training.seed)
    text = f"{count:,} of {len(table.targets):,} images were drawn (data.examples)"
    return replace(
        table,
        features=take(table.features, rows),
        targets=table.targets[rows],
        findings=(*table.findings, Finding("examples", text)),
    )


def _sealed(table: Table, config: StudyConfig) -> tuple[Rows, Rows]:
    """The rows of train + validation, and of the test part."""
    if table.test is not None:
        splits.check_own_test(table.where, table.targets, table.classes, config)
        return Rows(table.features, table.targets), table.test
    kept, sealed = splits.seal(table.where, table.targets, table.classes, config)
    train, test = (Rows(take(table.features, index), table.targets[index]) for index in (kept, sealed))
    return train, test


def _folds(rows: Rows, parts: Sequence[Split], config: StudyConfig) -> tuple[Fold, ...]:
    images = as_images(rows.features)
    if images is not None:
        moments, targets = Moments(images), rows.targets
        return tuple(
            Fold(
                _image_part(images, targets, split.train),
                _image_part(images, targets, split.validation),
                normalization=moments.of(split.train),
            )
            for split in parts
        )
    reference = preprocessing.fit(rows.features, _missing(config))
    return tuple(_fold(rows, split, config, reference) for split in parts)


def _image_part(images: NDArray[np.uint8], targets: Targets, index: Indices) -> Part:
    """Of images that all parts share."""
    return Part(torch.from_numpy(images), torch.from_numpy(targets[index]), torch.from_numpy(index))


def _fold(rows: Rows, split: Split, config: StudyConfig, reference: Any) -> Fold:
    train, validation = (
        Rows(take(rows.features, index), rows.targets[index]) for index in (split.train, split.validation)
    )
    fitted = preprocessing.fit(train.features, _missing(config))
    mean, scale = _target_statistics(train.targets, config.task)
    return Fold(
        _part(train, fitted, config.task, reference),
        _part(validation, fitted, config.task, reference),
        mean,
        scale,
    )


def _part(rows: Rows, fitted: Any, task: Task, reference: Any = None) -> Part:
    targets = torch.from_numpy(rows.targets)
    return Part(
        preprocessing.transform(fitted, rows.features, reference),
        targets.float() if task == "regression" else targets,
    )


def _target_statistics(targets: Targets, task: Task) -> tuple[float, float]:
    """Mean and standard deviation, as StandardScaler takes them; 0 and 1 for classes."""
    if task == "classification":
        return 0.0, 1.0
    return float(targets.mean()), float(targets.std()) or 1.0


def _counts(targets: Targets, classes: tuple[str, ...]) -> tuple[int, ...]:
    """Rows of each class."""
    if not classes:
        return ()
    return tuple(np.bincount(targets.astype(np.int64), minlength=len(classes)).tolist())


def _absent_classes(
    table: Table, test: Targets, kept: Targets, parts: Sequence[Split]
) -> tuple[Finding, ...]:
    """Rare classes that a part has no row of: metrics such as roc_auc are not defined on it."""
    if not table.classes:
        return ()
    named = {"test": test, **{f"validation {n}": kept[part.validation] for n, part in enumerate(parts, 1)}}
    absent = {
        part: [table.classes[index] for index in np.setdiff1d(np.arange(len(table.classes)), targets)]
        for part, targets in named.items()
    }
    return tuple(
        Finding("rare", f"no row of class {', '.join(map(repr, names))} fell into the {part} part")
        for part, names in absent.items()
        if names
    )
