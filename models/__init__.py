"""Architectures: builders `(input_shape, classes, **options) -> nn.Module`, by name.

`input_shape` is one example's shape without the batch, `classes` the number of outputs (1 for regression).
The registry names modules rather than importing them, so that a list of architectures costs no import of
torch.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[..., "nn.Module"]

ARCHITECTURES = {"mlp": "models.mlp:mlp"}
"""Name → `module:function`. A new architecture is a module here and a line in this table."""


def builder(name: str) -> Builder:
    """The builder registered as `name`.

    Raises:
        KeyError: there is no such architecture; `ARCHITECTURES` lists them.
    """
    module, function = ARCHITECTURES[name].split(":")
    found: Builder = getattr(importlib.import_module(module), function)
    return found
