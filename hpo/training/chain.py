"""Networks that are nothing but common layers one after another, on stacked tensors without vmap.

Shapes: K lanes, B examples of a batch, F features.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from hpo.config import Task
from hpo.training.layout import Tensors, joined
from hpo.training.program import Together
from models.layers import BatchNorm1d, Dropout, dropout_mask, normalize

Own = Callable[[str], Tensor]
"""A layer's stacked parameter or buffer, by its name in the layer: [K, ...]"""


def _own(state: Tensors, layer: str, tensor: str) -> Tensor:
    return state[joined(layer, tensor)]


def _linear(layer: nn.Module, x: Tensor, own: Own) -> Tensor:
    weight = own("weight").transpose(1, 2)
    if layer._parameters["bias"] is None:
        return torch.bmm(x, weight)
    return torch.baddbmm(own("bias").unsqueeze(1), x, weight)


def _normalize(layer: nn.Module, x: Tensor, own: Own) -> Tensor:
    assert isinstance(layer, BatchNorm1d)
    if layer.training:
        own("num_batches_tracked").add_(1)
    return normalize(layer, x, own("weight"), own("bias"), own("running_mean"), own("running_var"))


def _drop(layer: nn.Module, x: Tensor, own: Own) -> Tensor:
    assert isinstance(layer, Dropout)
    if not layer.training or not layer.active:
        return x
    layer.calls += 1
    key = layer.call_key(own("key"))
    mask = dropout_mask(key, own("threshold"), own("scale"), x.shape[1], math.prod(x.shape[2:]))
    return x * mask.to(x.dtype).view(x.shape)


def _elementwise(layer: nn.Module, x: Tensor, own: Own) -> Tensor:  # noqa: ARG001
    return layer(x)  # type: ignore[no-any-return]


def _flatten(layer: nn.Module, x: Tensor, own: Own) -> Tensor:  # noqa: ARG001
    return x.flatten(2)


_LAYERS: dict[type[nn.Module], Callable[[nn.Module, Tensor, Own], Tensor]] = {
    nn.Linear: _linear,
    BatchNorm1d: _normalize,
    Dropout: _drop,
    nn.Flatten: _flatten,
    **dict.fromkeys(
        (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid),
        _elementwise,
    ),
}


def is_chain(module: nn.Module) -> bool:
    """Whether `module` is a sequence of layers that `Chain` knows, on rows of features."""
    layers = list(module.named_modules(remove_duplicate=False))
    known = all(
        type(layer) is nn.Sequential or (type(layer) in _LAYERS and _usual(layer)) for _, layer in layers
    )
    # A layer at two places has one name in the state; and the first layer must make rows of features.
    flat = len(layers) > 1 and isinstance(layers[1][1], nn.Flatten)
    return known and flat and len({layer for _, layer in layers}) == len(layers)


def _usual(layer: nn.Module) -> bool:
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks)
    if any(hooks) or (isinstance(layer, Dropout) and layer.inplace):
        return False
    return not isinstance(layer, nn.Flatten) or (layer.start_dim, layer.end_dim) == (1, -1)


class Chain(Together):
    """All lanes at once, layer by layer.

    Saves what vmap costs for every operation: at 64 lanes and batch 32 a step takes half the time.
    """

    def __init__(self, module: nn.Module, task: Task, bfloat16: bool = False) -> None:
        super().__init__(module, task, bfloat16)
        self._layers = [
            (name, layer, _LAYERS[type(layer)])
            for name, layer in module.named_modules()
            if type(layer) is not nn.Sequential
        ]

    def _forward(self, parameters: Tensors, buffers: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        state = {**parameters, **buffers}
        for layer in self.dropouts.values():
            layer.calls = 0
        outputs = x
        with self._autocast(x):
            for name, layer, forward in self._layers:
                outputs = forward(layer, outputs, partial(_own, state, name))
        return outputs.to(x.dtype), {}

    def _evaluate(self, parameters: Tensors, buffers: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        lanes = len(next(iter(parameters.values())))
        return self._forward(parameters, buffers, x.expand(lanes, *x.shape))
