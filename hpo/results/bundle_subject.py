"""A bundle as the subject of an explanation: the exported model, on examples that the user gives."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hpo.config import CsvData
from hpo.data.csvfile import read_cells
from hpo.data.table import Features
from hpo.data.unseen import Unseen, read_array, read_csv
from hpo.data.unseen_images import files_below, read_images, read_pixels
from hpo.errors import DataError
from hpo.results.bundle import Bundle
from hpo.results.metrics import Array
from hpo.results.subject import InUnit, Subject, background, raw_table
from hpo.training.device_data import best_device


@dataclass(frozen=True)
class _Given:
    """Examples as the user gives them."""

    unseen: Unseen
    labels: list[Any] | None = None
    """Of all rows, as they stand there; None where they are not known."""


def bundle_subject(bundle: Bundle, data: Path, targets: Path | None = None) -> Subject:
    """The model of a bundle, and the examples in `data`.

    data: a CSV file, whose column of the study's target, if it is there, has the truth; a .npy file of an
    array; or for a network of images a folder of them, whose truth is the name of the folder that each lies
    in, if all of these are classes. targets: a .npy file with the truth of an array, by name or index.

    Raises:
        DataError: a file is missing or of the wrong kind, no example can be used, or a label is none of the
            model's.
    """
    given = _read(bundle, data, targets)
    if not given.unseen.usable.any():
        reason = next(filter(None, given.unseen.notes), "it has no rows")
        raise DataError(f"{data}: no example in it can be used: {reason}")
    features = bundle.features(given.unseen.features)
    table = features.ndim == 2
    module = bundle.module
    if bundle.task == "regression":
        module = InUnit(module, bundle.network.target_mean, bundle.network.target_scale)
    device = best_device()
    return Subject(
        name=bundle.config.name,
        task=bundle.task,
        classes=bundle.classes,
        module=module.eval().to(device),
        features=features.to(device),
        targets=_truth(bundle, data, given),
        baseline=(features.mean(0) if table else background(features)).to(device),
        baseline_text="the mean of these rows" if table else "the median pixel of the pictures' borders",
        about=_about(bundle, data, given.unseen),
        table=raw_table(given.unseen.features, bundle.preprocessing, _encode(bundle)) if table else None,
        normalization=bundle.normalization,
    )


def _encode(bundle: Bundle) -> Any:
    def encode(rows: Features) -> Tensor:
        return bundle.features(rows)

    return encode


def _about(bundle: Bundle, data: Path, unseen: Unseen) -> tuple[str, ...]:
    left = int((~unseen.usable).sum())
    without = f", without {left} that cannot be used" if left else ""
    return (
        f"Explained is the exported model in {bundle.folder}, by the examples in {data}{without}.",
        "Whether it has learned from these is not known here: on examples that it was trained on, a model is "
        "too seldom wrong.",
    )


def _read(bundle: Bundle, data: Path, targets: Path | None) -> _Given:
    if targets is not None and data.suffix != ".npy":
        raise DataError(f"--targets: is for an array (.npy); {data} is none, and brings its own")
    if data.suffix == ".npy":
        return _read_array(bundle, data, targets)
    if bundle.normalization is not None:
        files = list(files_below(data))
        folders = [file.parent.name for file in files]
        known = bool(bundle.classes) and set(folders) <= set(bundle.classes)
        return _Given(read_images(files, bundle.config, bundle.input_shape), folders if known else None)
    if len(bundle.input_shape) != 1:
        raise DataError(f"{data}: the model takes arrays of shape {list(bundle.input_shape)}, as a .npy file")
    return _read_table(bundle, data)


def _read_array(bundle: Bundle, data: Path, targets: Path | None) -> _Given:
    if bundle.columns is not None:
        raise DataError(f"{data}: an array has no column names; the model takes CSV files")
    array = _load(data)
    if bundle.normalization is not None:
        unseen = read_pixels(str(data), array, bundle.config, bundle.input_shape)
    else:
        unseen = read_array(str(data), array, bundle.input_shape)
    if targets is None:
        return _Given(unseen)
    labels = _load(targets)
    if labels.shape != (len(array),):
        raise DataError(
            f"{targets}: has the shape {list(labels.shape)}; must be [{len(array)}], one for each example"
        )
    return _Given(unseen, labels.tolist())


def _load(path: Path) -> Array:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise DataError(f"{path}: cannot be read as an array: {reason}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise DataError(f"{path}: holds no array of examples")
    return array


def _read_table(bundle: Bundle, data: Path) -> _Given:
    try:
        content = data.read_bytes()
    except OSError as error:
        raise DataError(f"{data}: cannot be read: {error.strerror}") from error
    columns = bundle.columns
    if columns is None:
        unseen, _ = read_csv(str(data), content, bundle.config, None, bundle.input_shape[0])
        return _Given(unseen)
    source = bundle.config.data
    delimiter = source.delimiter if isinstance(source, CsvData) else None
    target = source.target if isinstance(source, CsvData) else "target"
    frame = read_cells(str(data), content, delimiter, bundle.feature_names[0]).frame
    labels = frame[target].tolist() if target in frame else None
    return _Given(columns.read(str(data), frame), labels)


def _truth(bundle: Bundle, data: Path, given: _Given) -> Tensor | None:
    """[N] of the usable rows."""
    if given.labels is None:
        return None
    labels = [label for label, usable in zip(given.labels, given.unseen.usable, strict=True) if usable]
    if bundle.task == "regression":
        numbers = pd.to_numeric(pd.Series(labels), errors="coerce").to_numpy(np.float64)
        if not np.isfinite(numbers).all():
            bad = labels[int((~np.isfinite(numbers)).argmax())]
            raise DataError(f"{data}: the target {bad!r} is no finite number")
        return torch.from_numpy(numbers).float()
    index = {name: place for place, name in enumerate(bundle.classes)}
    names = [_name(label) for label in labels]
    if unknown := [name for name in names if name not in index]:
        if all(isinstance(label, int) and 0 <= label < len(index) for label in labels):
            return torch.tensor(labels)
        raise DataError(
            f"{data}: the label {unknown[0]!r} is no class of the model; they are "
            f"{', '.join(bundle.classes[:40])}{' …' if len(index) > 40 else ''}"
        )
    return torch.tensor([index[name] for name in names])


def _name(label: object) -> str:
    """`1.0` and `1` are one label, as when the study was prepared."""
    return re.sub(r"^([+-]?\d+)\.0*$", r"\1", str(label).strip())
