"""Learning rates over a lane's training: factors that depend on the number of its step alone.

Equal to those of `torch.optim.lr_scheduler`. So a lane that is resumed needs no state for them.

Shapes: K lanes, S steps.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config import Hyperparameters

WARMUP_START = 0.01
"""Of the learning rate at the first step of a warm-up; torchvision's training references begin so too."""
ONE_CYCLE_WARMUP = 0.3
"""Share of all steps that one_cycle rises, unless the lane says: torch's default, like the next two."""
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25 / 1e4
"""Of the learning rate, at the first step and at the last."""


class Schedules:
    """Of lanes side by side.

    constant: `LinearLR` for the warm-up. cosine: the same, then `CosineAnnealingLR` to 0 (Loshchilov and
    Hutter, "SGDR", 2017, without restarts). one_cycle: `OneCycleLR`, whose rise is the warm-up (Smith and
    Topin, "Super-Convergence", 2018); momentum is not cycled, as it may be searched.
    """

    def __init__(
        self, lanes: Sequence[Hyperparameters], steps: int, epochs: int, device: torch.device | str = "cpu"
    ) -> None:
        """steps: of an epoch; epochs: of a whole training, of which a lane may see only the beginning."""

        def row(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        self._active = any(lane.schedule != "constant" or lane.warmup for lane in lanes)
        self._total = float(steps * epochs)
        self._warmup = row([lane.warmup * steps for lane in lanes])
        self._cosine = row([lane.schedule == "cosine" for lane in lanes]).bool()
        self._one_cycle = row([lane.schedule == "one_cycle" for lane in lanes]).bool()

    def factors(self, done: Tensor) -> Tensor | None:
        """Of the learning rates; None where all are 1.

        done: float64 [S, K], the steps that each lane has made before → float64 [S, K]
        """
        if not self._active:
            return None
        cosine = torch.where(self._cosine & (done >= self._warmup), self._annealed(done), self._warmed(done))
        return torch.where(self._one_cycle, self._cycled(done), cosine)

    def _warmed(self, done: Tensor) -> Tensor:
        part = torch.where(self._warmup > 0, done / self._warmup, 1.0).clamp(max=1)
        return WARMUP_START + (1 - WARMUP_START) * part

    def _annealed(self, done: Tensor) -> Tensor:
        return _fall((done - self._warmup) / (self._total - self._warmup).clamp(min=1))

    def _cycled(self, done: Tensor) -> Tensor:
        rise = torch.where(self._warmup > 0, self._warmup, ONE_CYCLE_WARMUP * self._total)
        top = (rise - 1).clamp(min=0)
        up = ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - _fall(done / top.clamp(min=1)))
        down = _fall((done - top) / (self._total - 1 - top).clamp(min=1))
        return torch.where(done < top, up, ONE_CYCLE_END + (1 - ONE_CYCLE_END) * down)


def _fall(part: Tensor) -> Tensor:
    """Half a cosine, from 1 to 0."""
    return (1 + torch.cos(math.pi * part.clamp(0, 1))) / 2
