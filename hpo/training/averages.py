"""Moving averages of lanes' weights, which are evaluated and exported in their place.

Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), weighted exponentially.
Shapes: K lanes, P trainable parameters of a lane, flattened.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpo.config import Hyperparameters
from hpo.training.layout import AVERAGE, Layout, Tensors


class Averages:
    """Of the rows of a stack.

    In step t the average keeps min(decay, (1 + t) / (10 + t)), as TensorFlow's and timm's do: otherwise the
    initial weights would weigh on it for long. Lanes without a decay keep nothing of it, so that their
    average is what they have now. Buffers of floats, such as batch norm's statistics, are averaged too:
    they belong to the weights that they were measured with (torch's `AveragedModel` with `use_buffers`).
    """

    def __init__(self, rows: Tensors, lanes: Sequence[Hyperparameters]) -> None:
        """Averages exist where `rows` have some; see `with_averages`."""
        self._pairs = [
            (tensor, rows[_source(name)]) for name, tensor in rows.items() if name.startswith(AVERAGE)
        ]
        decays = [lane.ema_decay for lane in lanes]
        self._decays = torch.tensor(decays, dtype=torch.float64, device=rows["weights"].device)

    @torch.no_grad()
    def update(self, steps: Tensor) -> None:
        """After a step of every lane. steps: float64 [K], its number for each, counted from 1."""
        if not self._pairs:
            return
        fresh = 1 - torch.minimum(self._decays, (1 + steps) / (10 + steps))
        for average, now in self._pairs:
            weight = fresh.to(now.dtype).view(-1, *(1,) * (now.dim() - 1))
            average.lerp_(now, weight)


def averaging(lanes: Sequence[Hyperparameters]) -> bool:
    """Whether one of `lanes` averages its weights."""
    return any(lane.ema_decay for lane in lanes)


def with_averages(rows: Tensors, layout: Layout) -> Tensors:
    """`rows`, of one lane or stacked, with averages: where there are none, they begin as what is there."""
    names = [AVERAGE, *(f"{AVERAGE}.{name}" for name in layout.averaged)]
    return rows | {name: rows[_source(name)].clone() for name in names if name not in rows}


def without_averages(rows: Tensors) -> Tensors:
    """`rows` of lanes that need none."""
    return {name: tensor for name, tensor in rows.items() if not name.startswith(AVERAGE)}


def evaluated(rows: Tensors, buffers: Tensors) -> tuple[Tensor, Tensors]:
    """The weights ([K, P]) and buffers to evaluate: averages where there are some."""
    averages = {
        name.removeprefix(f"{AVERAGE}."): tensor
        for name, tensor in rows.items()
        if name.startswith(f"{AVERAGE}.")
    }
    return rows.get(AVERAGE, rows["weights"]), buffers | averages


def _source(name: str) -> str:
    """What the row `name` is the average of."""
    return "weights" if name == AVERAGE else name.replace(AVERAGE, "buffers", 1)
