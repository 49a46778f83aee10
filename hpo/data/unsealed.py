"""What may be looked at before a search: every row but the sealed ones, as it was read.

Here alone raw data are read again after the test part was sealed. Its rows are left out before anyone sees
them; of images not even that is needed, since the cache has the others in a file of their own.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.config import StudyConfig
from hpo.data import splits
from hpo.data.cache import load_rows
from hpo.data.images import RawImages
from hpo.data.parts import cleaned
from hpo.data.prepared import PreparedData
from hpo.data.source import open_source
from hpo.data.table import RawTable, Targets, Unparsable, as_images
from hpo.errors import DataError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class UnsealedTable:
    """Rows of train + validation, and those that cleaning drops."""

    frame: pd.DataFrame
    """[N, F]: float64, or strings (categories); nan where missing."""
    targets: Targets
    """[N] class indices or numbers; 0 where dropped."""
    places: NDArray[np.int64]
    """[N] the file's line, or the array's row."""
    place: str
    """line or row"""
    dropped: Mask
    validation: Mask
    """Rows of the first fold's validation part."""
    unparsable: tuple[Unparsable, ...]

    def take(self, rows: NDArray[np.int64]) -> "UnsealedTable":
        """Some rows, ascending."""
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            targets=self.targets[rows],
            places=self.places[rows],
            dropped=self.dropped[rows],
            validation=self.validation[rows],
            unparsable=tuple(_within(found, rows) for found in self.unparsable),
        )


@dataclass(frozen=True)
class UnsealedImages:
    """Images of train + validation."""

    pixels: NDArray[np.uint8]
    """[N, C, H, W], C 1 or 3"""
    targets: Targets
    validation: Mask
    """Those of the first fold's validation part."""


def unsealed(config: StudyConfig, prepared: PreparedData) -> UnsealedTable | UnsealedImages:
    """The study's rows that are not sealed.

    Raises:
        DataError: the data, or their cache, cannot be read.
    """
    if len(prepared.input_shape) == 1:
        return _table(config)
    rows = load_rows(prepared, "rows.safetensors")
    features = np.asarray(rows.features)
    pixels = as_images(rows.features)
    validation = np.zeros(len(features), bool)
    if pixels is not None:
        held_out = prepared.folds[0].validation.rows
        assert held_out is not None  # images of a part are rows of those that all parts share
        validation[held_out.numpy()] = True
        return UnsealedImages(pixels, rows.targets, validation)
    every = len(rows.targets) + prepared.sizes["test"]
    validation[splits.validation_splits(rows.targets, every, config)[0].validation] = True
    if (drawn := _drawable(features)) is not None:
        return UnsealedImages(drawn, rows.targets, validation)
    return _flat(features, rows.targets, validation)


def _drawable(features: NDArray[np.floating]) -> NDArray[np.uint8] | None:
    """The user's own arrays as images of 0 to 255, where their shape is that of images."""
    shaped = features[:, None] if features.ndim == 3 else features
    if shaped.ndim != 4 or shaped.shape[1] not in {1, 3}:
        return None
    low, high = float(shaped.min()), float(shaped.max())
    return np.asarray((shaped - low) * (255 / ((high - low) or 1.0)), np.uint8)


def _flat(features: NDArray[np.floating], targets: Targets, validation: Mask) -> UnsealedTable:
    names = [str(list(place)) for place in np.ndindex(features.shape[1:])]
    frame = pd.DataFrame(features.reshape(len(features), -1).astype(np.float64), columns=names)
    none = np.zeros(len(features), bool)
    return UnsealedTable(frame, targets, np.arange(1, len(frame) + 1), "row", none, validation, ())


def _table(config: StudyConfig) -> UnsealedTable:
    raw = open_source(config).read()
    table = cleaned(raw, config)
    if isinstance(raw, RawImages) or table.places is None:
        raise DataError(f"{table.where}: the data changed while they were described; try again")
    kept, sealed = splits.seal(table.where, table.targets, table.classes, config)
    split = splits.validation_splits(table.targets[kept], len(table.targets), config)[0]
    row_of = np.searchsorted(raw.places, table.places)  # both ascend
    targets: Targets = np.zeros(len(raw.labels))
    targets[row_of] = table.targets
    dropped, validation = np.ones(len(targets), bool), np.zeros(len(targets), bool)
    dropped[row_of] = False
    validation[row_of[kept[split.validation]]] = True
    targets = targets if config.task == "regression" else targets.astype(np.int64)
    whole = UnsealedTable(_frame(raw), targets, raw.places, raw.place, dropped, validation, raw.unparsable)
    return whole.take(np.setdiff1d(np.arange(len(targets)), row_of[sealed]))


def _frame(raw: RawTable) -> pd.DataFrame:
    if isinstance(raw.features, pd.DataFrame):
        return raw.features
    return pd.DataFrame(
        raw.features, columns=[f"column {index + 1}" for index in range(raw.features.shape[1])]
    )


def _within(found: Unparsable, rows: NDArray[np.int64]) -> Unparsable:
    """The cells in `rows`, numbered as these."""
    inside = np.isin(found.rows, rows)
    texts = tuple(text for text, here in zip(found.texts, inside, strict=True) if here)
    return Unparsable(found.column, np.searchsorted(rows, found.rows[inside]), texts)
