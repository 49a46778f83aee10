"""What the steps of an epoch are given: one row a step, laid out before the first.

Shapes: K lanes, B examples of a batch, S steps of an epoch, L dropout layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from hpo.training.augmentation import Distortions


@dataclass(frozen=True)
class Course:
    """An epoch of lanes side by side."""

    rows: Tensor
    """[S, K, B] int64: the examples."""
    keys: Tensor
    """[S, L, K] int32: of the lanes' dropout layers."""
    seeds: Sequence[int]
    """For each lane, of what else its network draws in the first step; each next step's is one more."""
    numbers: Tensor
    """[S, K] float64: of the step in a lane's training, counted from 1."""
    terms: Sequence[Tensor]
    """Of the optimizers, see `Optimizers.laid_out`."""
    distortions: Distortions | None
    """Of the images; None where none is distorted."""

    def load(self, other: "Course") -> None:
        """Become `other`, an epoch of the same lanes, in the same places of memory. Seeds stay."""
        for mine, its in zip(self._tensors(), other._tensors(), strict=True):
            mine.copy_(its)

    def _tensors(self) -> list[Tensor]:
        moved = [] if self.distortions is None else [self.distortions.moves, self.distortions.centres]
        return [self.rows, self.keys, self.numbers, *self.terms, *moved]
