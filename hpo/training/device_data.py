"""A data set on the device, laid out so that one gather serves all lanes of a step.

Shapes: K lanes, B examples of a batch, F folds, R rows; C channels, H, W pixels of images.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from hpo.config import Task
from hpo.data.prepared import Fold, Part


def best_device() -> str:
    """Where to train unless told otherwise: the first GPU that CUDA shows, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


class DeviceData:
    """The parts of all folds on one device.

    targets: [R] int64 class indices; for regression standardized by the fold's own mean and scale, of
    `dtype`. R: training rows of all folds, one fold after the other.
    features: [R, *input_shape] of `dtype`. Images are [N, C, H, W] uint8, once for all folds: they are
    normalized by their fold's statistics as they are gathered.
    `device` auto means `best_device()`.
    """

    def __init__(
        self,
        folds: Sequence[Fold],
        task: Task,
        outputs: int,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not folds:
            raise ValueError("folds: at least one is needed")
        self.task = task
        self.outputs = outputs
        self.device = torch.device(best_device() if device == "auto" else device)
        self.dtype = dtype
        self.sizes = [len(fold.train) for fold in folds]
        """Training rows of each fold."""
        self.starts = [0, *accumulate(self.sizes)][:-1]
        """Where each fold's training rows begin."""
        self.means = torch.tensor([fold.target_mean for fold in folds], dtype=dtype, device=self.device)
        self.scales = torch.tensor([fold.target_scale for fold in folds], dtype=dtype, device=self.device)
        self._images = _Images(folds, self.device, dtype) if folds[0].normalization else None
        self.features = (
            self._images.pixels
            if self._images
            else torch.cat([fold.train.features for fold in folds]).to(self.device, dtype)
        )
        self.targets = torch.cat([self._learned(fold) for fold in folds]).to(self.device)
        self.validation = [self._placed(fold.validation) for fold in folds]
        """Targets in the original unit; images in uint8, see `inputs`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self.features.shape[1:])

    def steps(self, batch_size: int) -> tuple[int, int]:
        """Steps an epoch and rows a step: full batches of the smallest fold, the same for every lane."""
        smallest = min(self.sizes)
        rows = min(batch_size, smallest)
        return smallest // rows, rows

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The examples at `rows`: int64 [K, B] → features [K, B, *input_shape], targets [K, B].

        The rows of a lane are of one fold.
        """
        flat = rows.flatten()
        targets = self.targets.index_select(0, flat).view(rows.shape)
        if self._images:
            return self._images.batch(rows), targets
        return self.features.index_select(0, flat).view(*rows.shape, *self.features.shape[1:]), targets

    def placed(self, features: Tensor) -> Tensor:
        """`features`, [N, *input_shape], on the device, ready for `inputs`."""
        return features.to(self.device, torch.uint8 if features.dtype == torch.uint8 else self.dtype)

    def inputs(self, features: Tensor, fold: int) -> Tensor:
        """What a network reads, from features on the device: images are normalized as those of `fold`.

        features: [N, *input_shape], uint8 if they are still to be normalized.
        """
        if features.dtype != torch.uint8 or self._images is None:
            return features
        return self._images.normalized(features, fold)

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
        features = part.features if part.rows is None else part.features.index_select(0, part.rows)
        return Part(self.placed(features), part.targets.to(self.device, kind))


class _Images:
    """The images of all folds, which they share."""

    def __init__(self, folds: Sequence[Fold], device: torch.device, dtype: torch.dtype) -> None:
        self.pixels = folds[0].train.features.to(device)
        """[N, C, H, W] uint8"""
        rows = [fold.train.rows for fold in folds if fold.train.rows is not None]
        self._rows = torch.cat(rows).to(device)
        """[R], where in `pixels` the image of each training row is."""
        self._ends = torch.tensor(list(accumulate(map(len, rows))), device=device)
        statistics = [fold.normalization for fold in folds if fold.normalization is not None]
        means = torch.tensor([each.means for each in statistics], dtype=torch.float64)
        deviations = torch.tensor([each.deviations for each in statistics], dtype=torch.float64)
        # (x - mean) / deviation in one pass: x · factor + offset. [F, 1, C, 1, 1]
        self._factors = deviations.reciprocal().to(device, dtype)[:, None, :, None, None]
        self._offsets = (-means / deviations).to(device, dtype)[:, None, :, None, None]

    def batch(self, rows: Tensor) -> Tensor:
        """[K, B] → [K, B, C, H, W], each lane's normalized by its fold's statistics."""
        images = self.pixels.index_select(0, self._rows.index_select(0, rows.flatten()))
        folds = torch.bucketize(rows[:, 0].contiguous(), self._ends, right=True)
        return self.normalized(images.view(*rows.shape, *images.shape[1:]), folds)

    def normalized(self, images: Tensor, folds: Tensor | int) -> Tensor:
        """By the statistics of one fold, [N, C, H, W], or of the fold of each lane, [K, N, C, H, W]."""
        factors = self._factors[folds]
        return torch.addcmul(self._offsets[folds], images.to(factors.dtype), factors)
