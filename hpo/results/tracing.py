"""What a network does with its input, seen from outside: no layer has to have a name, or to be a module."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = frozenset({"conv2d", "convolution", "conv_transpose2d"})


class LastConvolution(TorchFunctionMode):
    """Finds the output of the last two-dimensional convolution of a forward pass.

    Batch norm, activations and sums of residual blocks that keep the output's shape belong to it: what
    follows them pools or flattens. Convolutions of one pixel, as in squeeze-and-excitation, do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Tensor | None = None
        """[N, K, h, w], once the pass is over; part of its graph."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.ndim == 4:
            convolution = getattr(func, "__name__", "") in CONVOLUTIONS and min(result.shape[-2:]) > 1
            follows = self.found is not None and result.shape == self.found.shape
            if convolution or follows:
                self.found = result
        return result


class ParameterOrder(TorchFunctionMode):
    """Notes in which order a forward pass first uses a module's parameters."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._left = {id(parameter): parameter for parameter in module.parameters()}
        self.used: list[nn.Parameter] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._note((*args, *kwargs.values()))
        return func(*args, **kwargs)

    def _note(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, list | tuple):  # recurrent layers pass all of theirs together
                self._note(value)
            elif isinstance(value, Tensor) and (parameter := self._left.pop(id(value), None)) is not None:
                self.used.append(parameter)

    @property
    def unused(self) -> list[nn.Parameter]:
        """Those that were not seen, as in compiled modules."""
        return list(self._left.values())


@torch.no_grad()
def layers_from_the_output(module: nn.Module, inputs: Tensor) -> list[list[nn.Parameter]]:
    """The parameters in groups, the one used last first: a weight tensor and the vectors used after it.

    Parameters that the trace does not show come last. inputs: [N, *input_shape], to trace with.
    """
    with ParameterOrder(module) as order:
        module(inputs.clone())
    groups: list[list[nn.Parameter]] = []
    for parameter in (*order.unused, *order.used):
        if parameter.ndim > 1 or not groups:
            groups.append([])
        groups[-1].append(parameter)
    return groups[::-1]
