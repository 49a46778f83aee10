"""What tells equal examples apart from others: a digest of each, taken when the test part is sealed.

By them `hpo audit` finds examples that are in two parts, and the test part stays closed. A digest of 64 bits
says of a row whether it equals another one, and nothing else.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
        features = [_digest(content) for content in _contents(rows.features)]
        targets = (repr(target).encode() for target in rows.targets.tolist())
        examples = [_digest(row + target) for row, target in zip(features, targets, strict=True)]
        return cls(_numbers(features), _numbers(examples))

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


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _numbers(digests: Sequence[bytes]) -> Hashes:
    return np.frombuffer(b"".join(digests), np.int64).copy()


def _contents(features: Features) -> Iterator[bytes]:
    """Bytes that are equal for equal examples: 0.0 and -0.0 are one number, and so are all nans."""
    if isinstance(features, np.ndarray):
        return (row.tobytes() for row in _plain(features))
    numeric = [name for name in features if pd.api.types.is_numeric_dtype(features[name])]
    numbers = _plain(features[numeric].to_numpy(np.float64))
    others = [features[name] for name in features if name not in numeric]
    if not others:
        return (row.tobytes() for row in numbers)
    texts = zip(*(column.where(column.notna(), None).tolist() for column in others), strict=True)
    return (row.tobytes() + repr(text).encode() for row, text in zip(numbers, texts, strict=True))


def _plain(numbers: NDArray[Any]) -> NDArray[Any]:
    """With one zero and one nan, in rows."""
    if numbers.dtype == np.uint8:
        return numbers
    return np.ascontiguousarray(np.where(np.isnan(numbers), np.nan, numbers + numbers.dtype.type(0)))
