"""What the exported model said of each test example: small enough to be recorded with the study's result.

So models can be compared example by example wherever the study's database is, without the results folder,
and without opening the test part once more.
"""

import base64
import zlib
from typing import Any, Literal

import numpy as np

from hpo.config import Task
from hpo.results.metrics import Array, Record
from hpo.results.values import evenly

MAX_EXAMPLES = 100_000
"""Of more, evenly spread ones are recorded, so that a result stays below 1.1 MB."""


class Predictions(Record):
    """Predictions and targets of `n` test examples, in the test part's order; compressed."""

    test: str
    """SHA-256 of the sealed test part: where it is equal, the examples are."""
    n: int
    dtype: Literal["<i4", "<f4"]
    """Class indices, or numbers in the target's unit."""
    predicted: str
    targets: str

    @classmethod
    def of(cls, task: Task, outputs: Any, targets: Any, test: str) -> "Predictions":
        """outputs: [N, C] logits, or [N, 1] numbers. targets: [N]. test: digest of the test part."""
        kept = evenly(len(targets), MAX_EXAMPLES)
        scores, truth = np.asarray(outputs)[kept], np.asarray(targets)[kept]
        classes = task == "classification"
        dtype: Literal["<i4", "<f4"] = "<i4" if classes else "<f4"
        return cls(
            test=test,
            n=len(kept),
            dtype=dtype,
            predicted=_packed(scores.argmax(axis=1) if classes else scores[:, 0], dtype),
            targets=_packed(truth, dtype),
        )

    def arrays(self) -> tuple[Array, Array]:
        """What was predicted, and the targets: [n] each."""
        return _unpacked(self.predicted, self.dtype), _unpacked(self.targets, self.dtype)


def _packed(values: Array, dtype: str) -> str:
    return base64.b64encode(zlib.compress(values.astype(dtype).tobytes(), 9)).decode()


def _unpacked(packed: str, dtype: str) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype)
