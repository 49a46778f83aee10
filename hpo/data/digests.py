"""What tells equal examples apart from others: a digest of each, taken when the test part is sealed.

By them `hpo audit` finds examples that are in two parts, and the test part stays closed. A digest of 64 bits
says of a row whether it equals another one, and nothing else.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpo.data.table import Features, Rows

if TYPE_CHECKING:  # it imports scikit-learn, which would cost every worker a second
    from hpo.data.splits import Split

Hashes = NDArray[np.int64]


@dataclass(frozen=True)
class RowDigests:
    """Of the examples of one part, in their order."""

    features: Hashes
    """[N] of the features alone."""
    examples: Hashes
    """[N] of features and target."""

    @classmethod
    def of(cls, rows: Rows) -> "RowDigests":
        targets = rows.targets.tolist()
        contents = list(_contents(rows.features))
        examples = (content + repr(t).encode() for content, t in zip(contents, targets, strict=True))
        return cls(_hashed(contents), _hashed(list(examples)))

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Digests:
    """Of all examples of a study, the sealed ones among them."""

    rows: RowDigests
    """Of train + validation, R examples."""
    fold: NDArray[np.int16]
    """[R] the fold that an example validates, counted from 0; -1: none, it always trains."""
    test: RowDigests

    @classmethod
    def of(cls, rows: Rows, test: Rows, splits: "Sequence[Split]") -> "Digests":
        fold = np.full(len(rows.targets), -1, np.int16)
        for index, split in enumerate(splits):
            fold[split.validation] = index
        return cls(RowDigests.of(rows), fold, RowDigests.of(test))

    def tensors(self) -> dict[str, Tensor]:
        """To be kept."""
        arrays = {
            "rows.features": self.rows.features,
            "rows.examples": self.rows.examples,
            "rows.fold": self.fold,
            "test.features": self.test.features,
            "test.examples": self.test.examples,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Digests":
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        rows, test = (
            RowDigests(arrays[f"{part}.features"], arrays[f"{part}.examples"]) for part in ("rows", "test")
        )
        return cls(rows, arrays["rows.fold"], test)


def _hashed(contents: Sequence[bytes]) -> Hashes:
    hashes = (
        int.from_bytes(hashlib.blake2b(c, digest_size=8).digest(), "big", signed=True) for c in contents
    )
    return np.fromiter(hashes, np.int64, len(contents))


def _contents(features: Features) -> Iterator[bytes]:
    """Bytes that are equal for equal examples: 0.0 and -0.0 are one number, and so are all nans."""
    if isinstance(features, pd.DataFrame):
        columns = [_column(features.iloc[:, index]) for index in range(features.shape[1])]
        return (repr(row).encode() for row in zip(*columns, strict=True))
    if features.dtype == np.uint8:
        return (row.tobytes() for row in features)
    plain = np.where(np.isnan(features), np.nan, features + features.dtype.type(0))
    return (row.tobytes() for row in plain)


def _column(column: "pd.Series") -> list[float | str | None]:
    values = column.to_numpy()
    if values.dtype.kind == "f":
        values = values + 0.0
    return [None if pd.isna(value) else value for value in values.tolist()]
