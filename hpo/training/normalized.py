"""Links of a chain that are batch norm, with what follows it and, of the first layer, what comes before.

Shapes: K lanes, B examples of a batch, F features, C outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.training.layout import Tensors, joined
from hpo.training.links import Drop, Linear, Link
from models.layers import BatchNorm1d, dropout_keep, normalize

LEAST_ROWS, ROWS_PER_FEATURE = 32, 4
"""Of a batch, from which on `NormalizedLinear` goes by the features."""


@dataclass(frozen=True)
class _Affine:
    """What batch norm does to its centered input: times `factor`, plus `bias`. [K, C] each"""

    inverse: Tensor
    """1 / standard deviation."""
    factor: Tensor
    bias: Tensor
    scale: Tensor | None
    """[K, 1] a dropout's, which is in `factor` and `bias`; None where nothing is dropped."""


class Normalize(Link):
    """Batch norm, with the ReLU and the dropout that follow it. [K, B, F] → the same shape

    A dropout's scale goes into batch norm's own factor. What a ReLU or a dropout has made 0 is 0 in the
    output, so that one look at it gives the gradient of both.

    Many lanes do not fit into a cache, and a tensor that is new is written to memory first: so each is used
    again as soon as nobody needs what it holds.
    """

    learns = True

    def __init__(
        self, name: str, layer: BatchNorm1d, relu: bool, dropout: Drop | None, overwrites: bool
    ) -> None:
        """overwrites: whether nobody else needs what it is given."""
        self.layer = layer
        self.overwrites = overwrites
        self.names = [joined(name, own) for own in ("weight", "bias", "running_mean", "running_var")]
        self.batches = joined(name, "num_batches_tracked")
        self.relu = relu
        self.dropout = dropout

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Any]:
        if not self.layer.training:
            y = normalize(self.layer, x, *(state[name] for name in self.names))
            return (y.relu_() if self.relu else y), None
        batch_mean = x.mean(1, keepdim=True)
        centered = x.sub_(batch_mean) if self.overwrites else x - batch_mean
        y = centered.square()
        batch_variance = y.mean(1)
        self._track(state, batch_mean.squeeze(1), batch_variance, x.shape[1])
        affine = self._affine(batch_variance, state)
        torch.addcmul(affine.bias.unsqueeze(1), centered, affine.factor.unsqueeze(1), out=y)
        y = self._activated(y, state)
        return y, (y, centered, affine)

    def _track(self, state: Tensors, mean: Tensor, variance: Tensor, rows: int) -> None:
        """Running statistics; the variance is the unbiased one, as in torch."""
        assert self.layer.momentum is not None
        _, _, running_mean, running_variance = (state[name] for name in self.names)
        state[self.batches].add_(1)
        running_mean.lerp_(mean, self.layer.momentum)
        running_variance.lerp_(variance * (rows / (rows - 1)), self.layer.momentum)

    def _affine(self, variance: Tensor, state: Tensors) -> _Affine:
        inverse = (variance + self.layer.eps).rsqrt_()
        weight, bias = (state[name] for name in self.names[:2])
        if not self._drops():
            return _Affine(inverse, weight * inverse, bias, None)
        assert self.dropout is not None
        scale = state[self.dropout.names[2]].to(variance.dtype).unsqueeze(1)
        return _Affine(inverse, weight * inverse * scale, bias * scale, scale)

    def _drops(self) -> bool:
        return self.dropout is not None and self.dropout.layer.active

    def _activated(self, y: Tensor, state: Tensors) -> Tensor:
        """In place."""
        if self.relu:
            y.relu_()
        return self._drop(y, state) if self._drops() else y

    def _drop(self, y: Tensor, state: Tensors) -> Tensor:
        """Without the scale, which is in `y` already. What is not finite is dropped too, and not NaN."""
        assert self.dropout is not None
        alike = self.dropout.layer.alike
        key, threshold = (state[name][::alike] for name in self.dropout.names[:2])
        keep = dropout_keep(self.dropout.layer.next_key(key), threshold, *y.shape[1:]).unsqueeze(1)
        groups = y.view(-1, alike, *y.shape[1:])
        if y.dtype == torch.float32:
            groups.view(torch.int32).bitwise_and_(keep)
        else:
            groups.mul_(keep.neg().to(y.dtype))
        return y

    def backward(self, gradient: Tensor, known: Any, state: Tensors, out: Tensors) -> Callable[[], Tensor]:
        """Ioffe and Szegedy, "Batch Normalization" (2015), section 3, collected by powers of x.

        The links that follow have looked at `y` already.
        """
        y, centered, affine = known
        self._deactivate(gradient, y)
        bias = gradient.sum(1)
        slope = torch.mul(gradient, centered, out=y).sum(1) * affine.inverse
        self._give(slope, bias, affine, out)

        def with_respect_to_x() -> Tensor:
            share = affine.factor / -y.shape[1]
            offset, tilt = bias * share, slope * share * affine.inverse
            torch.addcmul(offset.unsqueeze(1), gradient, affine.factor.unsqueeze(1), out=gradient)
            return gradient.addcmul_(centered, tilt.unsqueeze(1))

        return with_respect_to_x

    def _deactivate(self, gradient: Tensor, y: Tensor) -> None:
        """What `_activated` does to the gradient, in place, by what it has made of `y`."""
        if self.relu:
            torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)

    def _give(self, slope: Tensor, bias: Tensor, affine: _Affine, out: Tensors) -> None:
        """The gradients of batch norm's own parameters."""
        for name, own in zip(self.names[:2], (slope, bias), strict=True):
            if name in out:
                torch.mul(own, 1.0 if affine.scale is None else affine.scale, out=out[name])


class NormalizedLinear(Normalize):
    """A linear layer and batch norm, with what follows. [K, B, F] → [K, B, C]

    Of the features' covariance S and the weights W, batch norm's variance is the diagonal of W S Wᵀ; and of
    the products G of the output's gradient and the features, the gradient of W is factor · (G - c · W S). Of
    few features that takes less time than nine passes over all outputs (ARCHITECTURE.md has figures). Nothing
    below may have parameters.

    It rounds otherwise: better where features are far from 0, and by a few times more where products cancel
    in an output, as of nearly equal features with opposite weights.
    """

    def __init__(
        self, linear: Linear, name: str, layer: BatchNorm1d, relu: bool, dropout: Drop | None
    ) -> None:
        super().__init__(name, layer, relu, dropout, overwrites=True)
        self.linear = linear

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Any]:
        lanes, rows, features = x.shape
        if not self.layer.training or rows < max(LEAST_ROWS, ROWS_PER_FEATURE * features):
            outputs, _ = self.linear.forward(x, state)
            y, known = super().forward(outputs, state)
            return y, (x, known)
        x_mean = x.mean(1, keepdim=True)
        centered = x.new_ones(lanes, rows, features + 1)  # one more, that is always 1, for batch norm's bias
        centered.narrow(2, 0, features).copy_(x - x_mean)
        own = state[self.linear.weight].transpose(1, 2)
        weight = x.new_zeros(lanes, features + 1, own.shape[2])
        own = weight.narrow(1, 0, features).copy_(own)
        spread, variance = weighted_covariance(centered, weight)
        mean = torch.bmm(x_mean, own).squeeze(1)
        if self.linear.bias is not None:
            mean += state[self.linear.bias]
        self._track(state, mean, variance, rows)
        affine = self._affine(variance, state)
        scaled = weight * affine.factor.unsqueeze(1)
        scaled.select(1, features).copy_(affine.bias)
        y = self._activated(torch.bmm(centered, scaled), state)
        return y, (None, (y, centered, weight, spread, affine))

    def backward(self, gradient: Tensor, known: Any, state: Tensors, out: Tensors) -> Callable[[], Tensor]:
        x, known = known
        if x is not None:
            return self.linear.backward(super().backward(gradient, known, state, out)(), x, state, out)
        y, centered, weight, spread, affine = known
        self._deactivate(gradient, y)
        products = torch.bmm(centered.transpose(1, 2), gradient)
        slope = weight.mul_(products).sum(1) * affine.inverse
        features = weight.shape[1] - 1
        self._give(slope, products.select(1, features), affine, out)
        if self.linear.weight in out:
            products.addcmul_(spread, (slope * affine.inverse).unsqueeze(1), value=-1)
            own = products.narrow(1, 0, features) * affine.factor.unsqueeze(1)
            out[self.linear.weight].copy_(own.transpose(1, 2))
        if self.linear.bias in out:  # batch norm subtracts it
            out[self.linear.bias].zero_()
        return self._no_gradient

    def _no_gradient(self) -> Tensor:
        raise NotImplementedError("nothing below a normalized linear layer has parameters")


def weighted_covariance(centered: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """S Wᵀ [K, F, C] and the outputs' variance [K, C] of features [K, B, F], weights [K, F, C].

    In float64: of a variance that is small because products cancel, float32 would leave nothing.
    """
    features, precise = centered.double(), weight.double()
    spread = torch.bmm(torch.bmm(features.transpose(1, 2), features).div_(centered.shape[1]), precise)
    variance = (spread * precise).sum(1).clamp_min_(0)
    return spread.to(weight.dtype), variance.to(weight.dtype)
