"""Architectures: builders `(input_shape, classes, **options) -> nn.Module`, by name.

`input_shape` is one example's shape without the batch, `classes` the number of outputs (1 for regression).
The registry names modules rather than importing them, so that a list of architectures costs no import of
torch.
"""

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

Builder = Callable[..., "nn.Module"]

ARCHITECTURES = {
    "mlp": "models.mlp:mlp",
    "cnn": "models.cnn:cnn",
    "vgg11": "models.vgg:vgg11",
    "vgg13": "models.vgg:vgg13",
    "vgg16": "models.vgg:vgg16",
    "resnet": "models.resnet:resnet",
}
"""Name → `module:function`. A new architecture is a module here and a line in this table."""


def builder(name: str) -> Builder:
    """The builder registered as `name`.

    Raises:
        KeyError: there is no such architecture; `ARCHITECTURES` lists them.
    """
    module, function = ARCHITECTURES[name].split(":")
    found: Builder = getattr(importlib.import_module(module), function)
    return found


def signature(name: str) -> inspect.Signature:
    """The signature of the builder registered as `name`, read from its source.

    Importing a builder imports torch, which takes two seconds: too long for a study file's typing error.
    Annotations and defaults are therefore built-in types, `Literal` and plain values; what is returned is
    left out.

    Raises:
        KeyError: there is no such architecture; `ARCHITECTURES` lists them.
    """
    module, function = ARCHITECTURES[name].split(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            names: dict[str, Any] = {"Literal": Literal}
            exec(f"def {function}({ast.unparse(node.args)}): ...", names)
            return inspect.signature(names[function])
    raise AssertionError(f"{spec.origin} has no function {function}")
