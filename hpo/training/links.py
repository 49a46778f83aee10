"""The links of a chain: common layers on stacked tensors, their gradients written out.

autograd costs a small network 1.4 ms a step, however many lanes there are, and passes over memory: with
gradients written out, epochs of the MLP take 0.70 (one lane) to 0.82 (64 lanes) of the time.

Shapes: K lanes, B examples of a batch, F features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpo.training.layout import Tensors, joined
from models.layers import BatchNorm1d, Dropout, dropout_keep, dropout_mask, normalize

aten = torch.ops.aten
LEAST_ROWS, ROWS_PER_FEATURE = 32, 4
"""Of a batch, from which on `NormalizedLinear` goes by the features."""


class Link(ABC):
    """One layer of all lanes, or some that follow each other."""

    learns = False
    """Whether it has parameters."""

    @abstractmethod
    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Any]:
        """x: [K, B, ...] → the layer's output [K, B, ...], and what `backward` needs to know.

        state: stacked parameters and buffers, by qualified name. Buffers change in place.
        """

    @abstractmethod
    def backward(self, gradient: Tensor, known: Any, state: Tensors, out: Tensors) -> Callable[[], Tensor]:
        """The gradients of the layer's own parameters go into `out`.

        gradient: of the loss, with respect to the output; it may be changed.

        Returns: what computes the gradient with respect to x, for nobody needs that of the first layer. It
        is called once at most, and before the `backward` of the link below, which may overwrite its own
        output and the gradient that it is given.
        """


class Flatten(Link):
    """[K, B, ...] → [K, B, F]"""

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, torch.Size]:
        return x.flatten(2), x.shape

    def backward(
        self, gradient: Tensor, known: torch.Size, state: Tensors, out: Tensors
    ) -> Callable[[], Tensor]:
        return lambda: gradient.view(known)


class Linear(Link):
    """[K, B, F] → [K, B, outputs]

    What the loss reads lies in memory as [K, outputs, B]: from 64 features to 2 outputs that takes 0.4
    instead of 2.5 µs a lane at batch 16, and 1.9 instead of 6.4 at 128 (64 lanes, one thread of 2.5 GHz).
    """

    learns = True

    def __init__(self, name: str, layer: nn.Module, last: bool) -> None:
        """last: whether the loss comes next."""
        self.weight = joined(name, "weight")
        self.bias = None if layer._parameters["bias"] is None else joined(name, "bias")
        self.last = last

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        if self.last:
            return self._batch_last(x, state).transpose(1, 2), x
        weight = state[self.weight].transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x, weight), x
        return torch.baddbmm(state[self.bias].unsqueeze(1), x, weight), x

    def _batch_last(self, x: Tensor, state: Tensors) -> Tensor:
        """[K, B, F] → [K, outputs, B]"""
        weight, x = state[self.weight], x.transpose(1, 2)
        if self.bias is None:
            return torch.bmm(weight, x)
        return torch.baddbmm(state[self.bias].unsqueeze(2), weight, x)

    def backward(self, gradient: Tensor, known: Tensor, state: Tensors, out: Tensors) -> Callable[[], Tensor]:
        if self.weight in out:
            if out[self.weight].is_contiguous():
                torch.bmm(gradient.transpose(1, 2), known, out=out[self.weight])
            else:  # torch would multiply lane by lane
                out[self.weight].copy_(torch.bmm(gradient.transpose(1, 2), known))
        if self.bias in out:
            torch.sum(gradient, 1, out=out[self.bias])
        return lambda: torch.bmm(gradient, state[self.weight])


class Elementwise(Link):
    """A function of each number. [K, B, ...] → the same shape"""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.derivative = DERIVATIVES[type(layer)]

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y = self.layer(x.clone() if getattr(self.layer, "inplace", False) else x)
        return y, (x, y)

    def backward(
        self, gradient: Tensor, known: tuple[Tensor, Tensor], state: Tensors, out: Tensors
    ) -> Callable[[], Tensor]:
        return lambda: self.derivative(self.layer, gradient, *known)


DERIVATIVES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor, Tensor], Tensor]] = {
    nn.Identity: lambda _, gradient, _x, _y: gradient,
    nn.ReLU: lambda _, gradient, _x, y: aten.threshold_backward(gradient, y, 0),
    nn.LeakyReLU: lambda layer, gradient, x, _y: aten.leaky_relu_backward(
        gradient, x, layer.negative_slope, False
    ),
    nn.ELU: lambda layer, gradient, x, _y: aten.elu_backward(gradient, layer.alpha, 1, 1, False, x),
    nn.GELU: lambda layer, gradient, x, _y: aten.gelu_backward(gradient, x, approximate=layer.approximate),
    nn.SiLU: lambda _, gradient, x, _y: aten.silu_backward(gradient, x),
    nn.Mish: lambda _, gradient, x, _y: aten.mish_backward(gradient, x),
    nn.Tanh: lambda _, gradient, _x, y: aten.tanh_backward(gradient, y),
    nn.Sigmoid: lambda _, gradient, _x, y: aten.sigmoid_backward(gradient, y),
}
"""Layer, gradient, input, output → the gradient with respect to the input."""


class Drop(Link):
    """Dropout by itself. [K, B, ...] → the same shape"""

    def __init__(self, name: str, layer: nn.Module) -> None:
        assert isinstance(layer, Dropout)
        self.layer = layer
        self.names = [joined(name, buffer) for buffer in ("key", "threshold", "scale")]

    def forward(self, x: Tensor, state: Tensors) -> tuple[Tensor, Tensor | None]:
        if not self.layer.training or not self.layer.active:
            return x, None
        key, threshold, scale = (state[name] for name in self.names)
        mask = dropout_mask(self.layer.next_key(key), threshold, scale, x.shape[1], math.prod(x.shape[2:]))
        mask = mask.to(x.dtype).view(x.shape)
        return x * mask, mask

    def backward(
        self, gradient: Tensor, known: Tensor | None, state: Tensors, out: Tensors
    ) -> Callable[[], Tensor]:
        return lambda: gradient if known is None else gradient * known


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

    def _affine(self, variance: Tensor, state: Tensors) -> "_Affine":
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
            aten.threshold_backward.grad_input(gradient, y, 0, grad_input=gradient)

    def _give(self, slope: Tensor, bias: Tensor, affine: "_Affine", out: Tensors) -> None:
        """The gradients of batch norm's own parameters."""
        for name, own in zip(self.names[:2], (slope, bias), strict=True):
            if name in out:
                torch.mul(own, 1.0 if affine.scale is None else affine.scale, out=out[name])


@dataclass(frozen=True)
class _Affine:
    """What batch norm does to its centered input: times `factor`, plus `bias`. [K, C] each"""

    inverse: Tensor
    """1 / standard deviation."""
    factor: Tensor
    bias: Tensor
    scale: Tensor | None
    """[K, 1] a dropout's, which is in `factor` and `bias`; None where nothing is dropped."""


class NormalizedLinear(Normalize):
    """A linear layer and batch norm, with what follows. [K, B, F] → [K, B, C]

    Of the features' covariance S and the weights W, batch norm's variance is the diagonal of W S Wᵀ; and of
    the products G of the output's gradient and the features, the gradient of W is factor · (G - c · W S). Of
    few features that takes less time than nine passes over all outputs: a step of 165 lanes of the MLP, of 7
    features, 0.93, 0.88 and 0.85 of it at batch 32, 64 and 128; of 5 lanes 1.02 to 1. Nothing below may have
    parameters.

    It rounds otherwise: better where features are far from 0. Where an output is a thousandth of the products
    that it sums up, as of nearly equal features with opposite weights, its gradient is within 1 to 3 %.
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
        torch.sub(x, x_mean, out=centered.narrow(2, 0, features))
        own = state[self.linear.weight].transpose(1, 2)
        weight = x.new_zeros(lanes, features + 1, own.shape[2])
        own = weight.narrow(1, 0, features).copy_(own)
        spread = torch.bmm(torch.bmm(centered.transpose(1, 2), centered).div_(rows), weight)
        variance = (spread * weight).sum(1).clamp_min_(0)
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
            own = out[self.linear.weight].transpose(1, 2)
            torch.mul(products.narrow(1, 0, features), affine.factor.unsqueeze(1), out=own)
        if self.linear.bias in out:  # batch norm subtracts it
            out[self.linear.bias].zero_()
        return self._no_gradient

    def _no_gradient(self) -> Tensor:
        raise NotImplementedError("nothing below a normalized linear layer has parameters")


def links(module: nn.Module) -> list[Link] | None:
    """The links of a sequence of known layers, on rows of features; None for any other module."""
    named = list(module.named_modules(remove_duplicate=False))
    layers = [(name, layer) for name, layer in named if type(layer) is not nn.Sequential]
    # A layer at two places has one name in the state; and the first layer must make rows of features.
    if len({layer for _, layer in named}) < len(named) or not layers or type(layers[0][1]) is not nn.Flatten:
        return None
    if any(_is_hooked(layer) for _, layer in named) or not all(_is_known(layer) for _, layer in layers):
        return None
    return list(_linked(layers))


def _is_hooked(layer: nn.Module) -> bool:
    return any((layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks))


def _is_known(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in {nn.Linear, BatchNorm1d, Dropout, *DERIVATIVES}


def _linked(layers: Sequence[tuple[str, nn.Module]]) -> Iterator[Link]:
    left = list(layers)
    before: nn.Module | None = None
    learned = False
    while left:
        name, layer = left.pop(0)
        if isinstance(layer, nn.Flatten):
            yield Flatten()
        elif isinstance(layer, nn.Linear):
            linear = Linear(name, layer, last=not left)
            following = left[0][1] if left else None
            if not learned and isinstance(following, BatchNorm1d):
                name, layer = left.pop(0)
                yield NormalizedLinear(linear, name, following, *_activation(left))
            else:
                yield linear
        elif isinstance(layer, Dropout):
            yield Drop(name, layer)
        elif isinstance(layer, BatchNorm1d):
            yield Normalize(name, layer, *_activation(left), overwrites=isinstance(before, nn.Linear))
        else:
            yield Elementwise(layer)
        learned = learned or isinstance(layer, nn.Linear | BatchNorm1d)
        before = layer


def _activation(left: list[tuple[str, nn.Module]]) -> tuple[bool, Drop | None]:
    """Whether a ReLU follows, and the dropout after it; they are taken from what is left."""
    if not left or type(left[0][1]) is not nn.ReLU:
        return False, None
    left.pop(0)
    return True, Drop(*left.pop(0)) if left and isinstance(left[0][1], Dropout) else None
