"""From a study's configuration to its prepared data, by way of the cache."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hpo.config import CsvData, StudyConfig, Task
from hpo.data import preprocessing, splits
from hpo.data.cache import VERSION, Rows, default_folder, load, load_rows, store
from hpo.data.prepared import FinalTraining, Finding, Fold, Part, PreparedData
from hpo.data.source import Source, open_source
from hpo.data.splits import Split, Targets
from hpo.data.table import Table, clean, take


def prepare(config: StudyConfig, cache: Path | None = None) -> PreparedData:
    """The study's data, ready to train on: from the cache, or else read, cleaned, split and cached.

    On a hit the raw data are read for their fingerprint only, and the sealed test file is not opened.
    Processes may race; a damaged cache is prepared again.

    Args:
        config: the study.
        cache: the folder of all prepared data; by default `hpo.data.cache.default_folder()`.

    Raises:
        DataError: the data are missing or unusable, or the cache cannot be written.
        UserCodeError: the function named as `data.source` cannot be loaded.
    """
    source = open_source(config)
    key = _fingerprint(config, source)
    folder = (cache or default_folder()) / key
    return load(folder) or _build(config, source, key, folder)


def fingerprint(config: StudyConfig) -> str:
    """SHA-256 of the raw content and of all configuration that shapes the parts.

    Paths and names of functions are not in it: equal content elsewhere is the same data.

    Raises:
        DataError: the raw data cannot be read.
        UserCodeError: the function named as `data.source` cannot be loaded.
    """
    return _fingerprint(config, open_source(config))


def fresh_folds(config: StudyConfig, prepared: PreparedData, seeds: Sequence[int]) -> tuple[Fold, ...]:
    """For each seed another split of train + validation, of the first fold's sizes, its statistics refitted.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "rows.safetensors")
    reference = preprocessing.fit(rows.features, _missing(config))
    stratified = config.task == "classification"
    validation_rows = prepared.sizes["validation"]
    return tuple(
        _fold(rows, splits.fresh_split(rows.targets, validation_rows, seed, stratified), config, reference)
        for seed in seeds
    )


def final_training(config: StudyConfig, prepared: PreparedData) -> FinalTraining:
    """All train + validation rows, the statistics refitted on all of them.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "rows.safetensors")
    fitted = preprocessing.fit(rows.features, _missing(config))
    mean, scale = _target_statistics(rows.targets, config.task)
    return FinalTraining(_part(rows, fitted, config.task), fitted, mean, scale)


def open_sealed(prepared: PreparedData, training: FinalTraining) -> Part:
    """The test part. Nothing else opens its file: call it once, when everything is decided.

    Raises:
        DataError: the cache is damaged.
    """
    rows = load_rows(prepared, "test.safetensors")
    return _part(rows, training.preprocessing, prepared.task)


def _missing(config: StudyConfig) -> str:
    return config.data.missing if isinstance(config.data, CsvData) else "median"


def _fingerprint(config: StudyConfig, source: Source) -> str:
    data = config.data.model_dump(mode="json", exclude={"path", "options", "task"})
    shaping: dict[str, Any] = {
        "version": VERSION,
        "content": source.content,
        "data": data | {"source": type(config.data).__name__},
        "validation": config.validation.model_dump(mode="json"),
        "task": config.task,
        "seed": config.training.seed,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def _build(config: StudyConfig, source: Source, key: str, folder: Path) -> PreparedData:
    table = clean(source.read(), config.task, _missing(config))
    kept, sealed = splits.seal(table.where, table.targets, table.classes, config)
    rows = Rows(take(table.features, kept), table.targets[kept])
    test = Rows(take(table.features, sealed), table.targets[sealed])
    parts = splits.validation_splits(rows.targets, len(table.targets), config)
    reference = preprocessing.fit(rows.features, _missing(config))
    folds = tuple(_fold(rows, split, config, reference) for split in parts)
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
    )
    store(prepared, rows, test)
    return prepared


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
