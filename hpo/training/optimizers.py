"""Optimizers of stacked lanes, each with its own kind and coefficients; equal to those of `torch.optim`.

Shapes: K lanes, P parameters of one lane, flattened; S steps of an epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """What an update works on, of N parameters: [K, N] each, changed in place; `gradients` are used up."""

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


@dataclass(frozen=True)
class _Block:
    """The lanes of one kind."""

    kind: Optimizer
    start: int
    stop: int
    parts: list[Rows]
    coefficients: Coefficients


class Optimizers:
    """Steps of lanes that are sorted by `ORDER`."""

    def __init__(self, lanes: Sequence[Hyperparameters], parts: Sequence[Rows]) -> None:
        """parts: rows in the order of the lanes, of some parameters each. A step changes them in place."""
        weights = parts[0].weights
        self._blocks: list[_Block] = []
        start = 0
        for kind in ORDER:
            block = [lane for lane in lanes[start:] if lane.optimizer == kind]
            stop = start + len(block)
            if block != list(lanes[start:stop]):
                raise ValueError(f"lanes must be sorted by optimizer, in the order {', '.join(ORDER)}")
            if block:
                coefficients = Coefficients.of(block, weights.dtype, weights.device)
                rows = [part.block(start, stop) for part in parts]
                self._blocks.append(_Block(kind, start, stop, rows, coefficients))
            start = stop

    def laid_out(self, numbers: Tensor, factors: Tensor | None = None) -> list[Tensor]:
        """What the steps of an epoch take from their numbers, computed at once.

        numbers: float64 [S, K], of each step in a lane's training, counted from 1. factors: float64 [S, K],
        of the learning rates; None: all 1.

        Returns: for each kind of optimizer that there is, one row a step.
        """
        found = []
        for block in self._blocks:
            steps = numbers[:, block.start : block.stop, None]
            rates = block.coefficients.learning_rate
            rates = (
                rates.expand_as(steps)
                if factors is None
                else rates * factors[:, block.start : block.stop, None]
            )
            terms = _TERMS.get(block.kind, _rate)(block.coefficients, rates, steps)
            found.append(torch.stack(terms, 1).to(block.parts[0].weights.dtype))
        return found

    @torch.no_grad()
    def step(self, terms: Sequence[Tensor]) -> None:
        """One step of every lane. terms: its row of each tensor that `laid_out` answers."""
        for block, own in zip(self._blocks, terms, strict=True):
            for rows in block.parts:
                _UPDATES[block.kind](rows, block.coefficients, *own.unbind())


Terms = Callable[[Coefficients, Tensor, Tensor], list[Tensor]]
"""Coefficients, learning rates and numbers of steps (float64 [S, K, 1]) → what an update takes, likewise."""


def _rate(coefficients: Coefficients, rates: Tensor, steps: Tensor) -> list[Tensor]:  # noqa: ARG001
    return [-rates]


def _adam_terms(coefficients: Coefficients, rates: Tensor, steps: Tensor) -> list[Tensor]:  # noqa: ARG001
    """Kingma and Ba, "Adam" (2015), end of section 2: the bias corrections moved into rate and epsilon."""
    correction = (1 - _BETA2**steps).sqrt()
    return [-rates * correction / (1 - _BETA1**steps), _EPS * correction]


def _adamw_terms(coefficients: Coefficients, rates: Tensor, steps: Tensor) -> list[Tensor]:
    decay = coefficients.weight_decay
    kept = torch.ones_like(rates) if decay is None else 1 - rates * decay.double()
    return [*_adam_terms(coefficients, rates, steps), kept]


_TERMS: dict[Optimizer, Terms] = {"adam": _adam_terms, "adamw": _adamw_terms}


def _decayed(rows: Rows, coefficients: Coefficients) -> Tensor:
    """The gradients with the L2 penalty's."""
    if coefficients.weight_decay is None:
        return rows.gradients
    return rows.gradients.addcmul_(rows.weights, coefficients.weight_decay)


def _adam_step(rows: Rows, gradients: Tensor, rate: Tensor, epsilon: Tensor) -> None:
    rows.first.lerp_(gradients, 1 - _BETA1)
    rows.second.mul_(_BETA2).addcmul_(gradients, gradients, value=1 - _BETA2)
    denominator = torch.sqrt(rows.second, out=gradients).add_(epsilon)
    rows.weights.addcmul_(torch.div(rows.first, denominator, out=gradients), rate)


def _adam(rows: Rows, coefficients: Coefficients, rate: Tensor, epsilon: Tensor) -> None:
    _adam_step(rows, _decayed(rows, coefficients), rate, epsilon)


def _adamw(rows: Rows, coefficients: Coefficients, rate: Tensor, epsilon: Tensor, kept: Tensor) -> None:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019)."""
    if coefficients.weight_decay is not None:
        rows.weights.mul_(kept)
    _adam_step(rows, rows.gradients, rate, epsilon)


def _rmsprop(rows: Rows, coefficients: Coefficients, rate: Tensor) -> None:
    """Tieleman and Hinton, Coursera lecture 6.5 (2012), with momentum as in torch.optim."""
    gradients = _decayed(rows, coefficients)
    rows.second.mul_(_ALPHA).addcmul_(gradients, gradients, value=1 - _ALPHA)
    change = gradients.div_(rows.second.sqrt().add_(_EPS))
    if coefficients.momentum is not None:
        change = rows.first.mul_(coefficients.momentum).add_(change)
    rows.weights.addcmul_(change, rate)


def _sgd(rows: Rows, coefficients: Coefficients, rate: Tensor) -> None:
    """Sutskever et al., "On the importance of initialization and momentum" (2013), as in torch.optim."""
    gradients = _decayed(rows, coefficients)
    change = gradients
    if coefficients.momentum is not None:
        change = rows.first.mul_(coefficients.momentum).add_(gradients)
        if coefficients.nesterov is not None:
            ahead = gradients.addcmul(change, coefficients.momentum)
            change = torch.where(coefficients.nesterov > 0, ahead, change)
    rows.weights.addcmul_(change, rate)


_UPDATES: dict[Optimizer, Callable[..., None]] = {
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "sgd": _sgd,
}
