"""A data set on the device, laid out so that one gather serves all lanes of a step."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hpo.config import Task
from hpo.data.prepared import Fold, Part


class DeviceData:
    """The parts of all folds on one device.

    features: [R, *input_shape] of `dtype`. targets: [R] int64 class indices; for regression standardized by
    the fold's own mean and scale, of `dtype`. R: training rows of all folds, one fold after the other.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        task: Task,
        outputs: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not folds:
            raise ValueError("folds: at least one is needed")
        self.task = task
        self.outputs = outputs
        self.device = torch.device(device)
        self.dtype = dtype
        self.sizes = [len(fold.train) for fold in folds]
        """Training rows of each fold."""
        self.starts = [0, *accumulate(self.sizes)][:-1]
        """Where each fold's training rows begin."""
        self.means = torch.tensor([fold.target_mean for fold in folds], dtype=dtype, device=self.device)
        self.scales = torch.tensor([fold.target_scale for fold in folds], dtype=dtype, device=self.device)
        self.features = torch.cat([fold.train.features for fold in folds]).to(self.device, dtype)
        self.targets = torch.cat([self._learned(fold) for fold in folds]).to(self.device)
        self.validation = [self._placed(fold.validation) for fold in folds]
        """In the original unit."""

    def steps(self, batch_size: int) -> tuple[int, int]:
        """Steps an epoch and rows a step: full batches of the smallest fold, the same for every lane."""
        smallest = min(self.sizes)
        rows = min(batch_size, smallest)
        return smallest // rows, rows

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at `rows`: int64 [K, B] → features [K, B, *input_shape], targets [K, B]."""
        flat = rows.flatten()
        features = self.features.index_select(0, flat).view(*rows.shape, *self.features.shape[1:])
        return features, self.targets.index_select(0, flat).view(rows.shape)

    def original(self, outputs: Tensor, folds: Sequence[int]) -> Tensor:
        """What lanes of `folds` predict, in the targets' own unit. outputs: [K, N, outputs]"""
        if self.task == "classification":
            return outputs
        index = torch.tensor(folds, device=self.device)
        return outputs * self.scales[index, None, None] + self.means[index, None, None]

    def _learned(self, fold: Fold) -> Tensor:
        if self.task == "classification":
            return fold.train.targets.long()
        return ((fold.train.targets.double() - fold.target_mean) / fold.target_scale).to(self.dtype)

    def _placed(self, part: Part) -> Part:
        kind = torch.int64 if self.task == "classification" else self.dtype
        return Part(part.features.to(self.device, self.dtype), part.targets.to(self.device, kind))
