"""Optimizers of stacked lanes, each with its own kind and coefficients; equal to those of `torch.optim`.

Shapes: K lanes, P parameters of one lane, flattened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hpo.config import Hyperparameters, Optimizer

ORDER: tuple[Optimizer, ...] = ("adam", "adamw", "rmsprop", "sgd")
"""Lanes are sorted by this, so that each kind works on one contiguous block of rows, without copies."""

SLOTS: dict[Optimizer, tuple[str, ...]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "rmsprop": ("momentum_buffer", "square_avg"),
    "sgd": ("momentum_buffer",),
}
"""What each kind remembers for every parameter, by the names of `torch.optim`: `first`, then `second`."""

_EPS = 1e-8
_BETA1, _BETA2 = 0.9, 0.999
_ALPHA = 0.99


@dataclass(frozen=True)
class Rows:
    """What an update works on: [K, P] each, changed in place; `gradients` are used up."""

    weights: Tensor
    gradients: Tensor
    first: Tensor
    second: Tensor

    def block(self, start: int, stop: int) -> "Rows":
        """The lanes from `start` to `stop`."""
        tensors = (self.weights, self.gradients, self.first, self.second)
        return Rows(*(tensor[start:stop] for tensor in tensors))


@dataclass(frozen=True)
class Coefficients:
    """Of the lanes of one kind: [K, 1] each, None where the term has no effect on any of them."""

    learning_rate: Tensor
    weight_decay: Tensor | None
    momentum: Tensor | None
    nesterov: Tensor | None

    @classmethod
    def of(cls, lanes: Sequence[Hyperparameters], dtype: torch.dtype, device: torch.device) -> "Coefficients":
        """The coefficients of `lanes`, in their order."""

        def column(values: list[float]) -> Tensor | None:
            return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1) if any(values) else None

        # float64: what depends on the step is computed in it, as torch.optim does with Python's numbers.
        rates = torch.tensor([lane.learning_rate for lane in lanes], dtype=torch.float64, device=device)
        return cls(
            rates.unsqueeze(1),
            column([lane.weight_decay for lane in lanes]),
            column([lane.momentum for lane in lanes]),
            column([float(lane.nesterov) for lane in lanes]),
        )

    def scheduled(self, factors: Tensor) -> "Coefficients":
        """With learning rates times `factors`: float64 [K, 1]."""
        return replace(self, learning_rate=self.learning_rate * factors)


class Optimizers:
    """Steps of lanes that are sorted by `ORDER`."""

    def __init__(
        self, lanes: Sequence[Hyperparameters], dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self._blocks: list[tuple[Callable[..., None], int, int, Coefficients]] = []
        start = 0
        for kind in ORDER:
            block = [lane for lane in lanes[start:] if lane.optimizer == kind]
            if block != list(lanes[start : start + len(block)]):
                raise ValueError(f"lanes must be sorted by optimizer, in the order {', '.join(ORDER)}")
            if block:
                coefficients = Coefficients.of(block, dtype, torch.device(device))
                self._blocks.append((_UPDATES[kind], start, start + len(block), coefficients))
            start += len(block)

    @torch.no_grad()
    def step(self, rows: Rows, steps: Tensor, factors: Tensor | None = None) -> None:
        """One step of every lane.

        steps: float64 [K], the number of this step for each, counted from 1. factors: float64 [K], of the
        learning rates; None: all 1.
        """
        for update, start, stop, coefficients in self._blocks:
            now = coefficients if factors is None else coefficients.scheduled(factors[start:stop, None])
            update(rows.block(start, stop), now, steps[start:stop, None])


def _decayed(rows: Rows, coefficients: Coefficients) -> Tensor:
    """The gradients with the L2 penalty's."""
    if coefficients.weight_decay is None:
        return rows.gradients
    return rows.gradients.addcmul_(rows.weights, coefficients.weight_decay)


def _adam_step(rows: Rows, gradients: Tensor, coefficients: Coefficients, steps: Tensor) -> None:
    """Kingma and Ba, "Adam" (2015), end of section 2: the bias corrections moved into rate and epsilon."""
    rows.first.lerp_(gradients, 1 - _BETA1)
    rows.second.mul_(_BETA2).addcmul_(gradients, gradients, value=1 - _BETA2)
    correction = (1 - _BETA2**steps).sqrt()
    epsilon = (_EPS * correction).to(rows.weights.dtype)
    rate = (-coefficients.learning_rate * correction / (1 - _BETA1**steps)).to(rows.weights.dtype)
    denominator = torch.sqrt(rows.second, out=gradients).add_(epsilon)
    rows.weights.addcmul_(torch.div(rows.first, denominator, out=gradients), rate)


def _adam(rows: Rows, coefficients: Coefficients, steps: Tensor) -> None:
    _adam_step(rows, _decayed(rows, coefficients), coefficients, steps)


def _adamw(rows: Rows, coefficients: Coefficients, steps: Tensor) -> None:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019)."""
    if coefficients.weight_decay is not None:
        kept = 1 - coefficients.learning_rate * coefficients.weight_decay.double()
        rows.weights.mul_(kept.to(rows.weights.dtype))
    _adam_step(rows, rows.gradients, coefficients, steps)


def _rmsprop(rows: Rows, coefficients: Coefficients, steps: Tensor) -> None:  # noqa: ARG001
    """Tieleman and Hinton, Coursera lecture 6.5 (2012), with momentum as in torch.optim."""
    gradients = _decayed(rows, coefficients)
    rows.second.mul_(_ALPHA).addcmul_(gradients, gradients, value=1 - _ALPHA)
    change = gradients.div_(rows.second.sqrt().add_(_EPS))
    if coefficients.momentum is not None:
        change = rows.first.mul_(coefficients.momentum).add_(change)
    rows.weights.addcmul_(change, -coefficients.learning_rate.to(change.dtype))


def _sgd(rows: Rows, coefficients: Coefficients, steps: Tensor) -> None:  # noqa: ARG001
    """Sutskever et al., "On the importance of initialization and momentum" (2013), as in torch.optim."""
    gradients = _decayed(rows, coefficients)
    change = gradients
    if coefficients.momentum is not None:
        change = rows.first.mul_(coefficients.momentum).add_(gradients)
        if coefficients.nesterov is not None:
            ahead = gradients.addcmul(change, coefficients.momentum)
            change = torch.where(coefficients.nesterov > 0, ahead, change)
    rows.weights.addcmul_(change, -coefficients.learning_rate.to(change.dtype))


_UPDATES: dict[Optimizer, Callable[[Rows, Coefficients, Tensor], None]] = {
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
