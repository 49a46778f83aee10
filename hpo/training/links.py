"""The links of a chain: common layers on stacked tensors, gradients written out. `normalized.py` has more.

autograd costs a small network 1.4 ms a step, however many lanes there are, and passes over memory: with
gradients written out, epochs of the MLP take 0.70 (one lane) to 0.82 (64 lanes) of the time.

Shapes: K lanes, B examples of a batch, F features.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hpo.training.layout import Tensors, joined
from models.layers import Dropout, dropout_mask

aten = torch.ops.aten


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
