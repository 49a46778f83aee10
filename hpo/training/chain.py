"""Networks that are nothing but common layers one after another: without vmap, and without autograd.

Shapes: K lanes, B examples of a batch, C outputs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hpo.config import Task
from hpo.training.layout import Tensors
from hpo.training.links import DERIVATIVES, Drop, Elementwise, Flatten, Linear, Link
from hpo.training.losses import losses_and_gradients
from hpo.training.normalized import Normalize, NormalizedLinear
from hpo.training.program import Batch, Program, any_lanes, compiled
from models.layers import BatchNorm1d, Dropout


class Chain(Program):
    """All lanes at once, layer by layer, in float32."""

    def __init__(self, module: nn.Module, task: Task, chain: Sequence[Link]) -> None:
        """chain: what `links` says of `module`."""
        super().__init__(module, task)
        self._chain = chain
        self._learns = next((at for at, link in enumerate(chain) if link.learns), len(chain))
        """The first link that has parameters."""

    @classmethod
    def of(cls, module: nn.Module, task: Task) -> "Chain | None":
        """The chain of `module`, if it is one."""
        chain = links(module)
        return None if chain is None else cls(module, task, chain)

    @torch.inference_mode()
    def gradients(self, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors) -> Tensor:
        """See `Program`."""
        # A single lane would be compiled once more: dimensions of size 1 are never dynamic.
        if self._compiled is None or len(batch.x) == 1:
            return self._pass(parameters, buffers, batch, out)
        smoothing = () if batch.smoothing is None else (batch.smoothing,)
        loss: Tensor
        loss, gradients = self._compiled(parameters, buffers, batch.x, batch.y, *smoothing)
        for name, gradient in gradients.items():
            out[name].copy_(gradient)
        return loss

    @torch.inference_mode()
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Program`."""
        lanes = len(next(iter(parameters.values())))
        return self._forward({**parameters, **buffers}, x.expand(lanes, *x.shape))[0]

    def compile(self) -> None:
        """See `Program`. Once for all numbers of lanes."""
        self._compiled = any_lanes(compiled(self._fresh_gradients))

    def _fresh_gradients(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor, smoothing: Tensor | None = None
    ) -> tuple[Tensor, Tensors]:
        """`_pass` as it compiles: tensors alone, none of which is changed and shares memory with others."""
        out = {name: torch.empty_like(parameter) for name, parameter in parameters.items()}
        return self._pass(parameters, buffers, Batch(x, y, (), smoothing), out), out

    def _pass(self, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors) -> Tensor:
        state = {**parameters, **buffers}
        outputs, known = self._forward(state, batch.x)
        loss, gradient = losses_and_gradients(self.task, outputs, batch.y, batch.smoothing)
        if not isinstance(self._chain[-1], Linear):  # the only one that takes the batch last
            gradient = gradient.contiguous()
        below = None
        for link, knows in reversed(list(zip(self._chain, known, strict=True))[self._learns :]):
            below = link.backward(gradient if below is None else below(), knows, state, out)
        return loss

    def _forward(self, state: Tensors, x: Tensor) -> tuple[Tensor, list[Any]]:
        """The outputs [K, B, C], and what each link knows of its pass."""
        for layer in self.dropouts.values():
            layer.calls = 0
        known = []
        for link in self._chain:
            x, knows = link.forward(x, state)
            known.append(knows)
        return x, known


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
