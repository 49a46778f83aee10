"""What must be equal for two networks to train as one program, beside the values of their tensors."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import Dropout

Structure = tuple[Hashable, ...]

_OWN = frozenset({"training", "calls", "active", "alike"})
"""Of every module, and of a `Dropout`'s forward pass."""


def structure(module: nn.Module) -> Structure:
    """Layers, their settings, and their tensors' shapes; the rates of `Dropout` may differ between lanes."""
    layers = tuple(
        (name, type(layer), *_settings(layer)) for name, layer in module.named_modules(remove_duplicate=False)
    )
    tensors = tuple(
        (name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad)
        for named in (module.named_parameters(), module.named_buffers())
        for name, tensor in named
    )
    return layers, tensors


def _settings(layer: nn.Module) -> list[tuple[str, Hashable]]:
    ignored = _OWN | {"p"} if isinstance(layer, Dropout) else _OWN
    found = []
    for name, value in vars(layer).items():
        if name[0] != "_" and name not in ignored:
            plain = _plain(value)
            if plain is not None:
                found.append((name, plain))
    return found


def _plain(value: Any) -> Hashable | None:
    """Something hashable that is equal for equal values; None for what cannot be compared."""
    if isinstance(value, (bool, int, float, str, torch.Size, torch.dtype)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _plain(item)) for key, item in value.items())
    if isinstance(value, Tensor):  # no parameter and no buffer: a constant, such as a table of positions
        return tuple(value.shape), value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return None
