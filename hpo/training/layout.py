"""Where the tensors of a network lie in a lane's row.

Shapes: K lanes, P trainable parameters of a lane, flattened.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpo.config import Hyperparameters
from hpo.training.optimizers import SLOTS
from models.layers import STREAM, Dropout

Tensors = dict[str, Tensor]
"""Tensors by qualified name."""

_SLOT_ROWS = ("first", "second")
AVERAGE = "average"
"""Of the weights, [P]; `average.<name>` is that of the buffer `name`. See `hpo.training.averages`."""
LARGE = 2048
"""Elements of a matrix whose gradients lie by themselves, so that torch multiplies right into them. Into rows
that they share with others they are copied, which takes 7 % of a step of the MLP (160 lanes, batch 16)."""
MANY = 16
"""Lanes from which on that pays: an optimizer then works on each part in turn."""


def joined(*names: str) -> str:
    """A qualified name, as torch writes it; the root module's own name is empty."""
    return ".".join(name for name in names if name)


class Layout:
    """One row has `weights`, `first` and `second` ([P] each), and `buffers.<name>`; perhaps averages too.

    Parameters that do not train count as buffers. With `channels_last` the weights of 2-d convolutions lie in
    the rows as torch's memory format of that name has them, so that views of them need no conversion.
    """

    def __init__(self, module: nn.Module, channels_last: bool = False) -> None:
        self._shapes = {name: tensor.shape for name, tensor in _trainable(module)}
        self._channels_last = convolutions_2d(module) if channels_last else frozenset()
        streams = {
            joined(name, buffer)
            for name, layer in module.named_modules()
            if isinstance(layer, Dropout)
            for buffer in STREAM
        }
        kept = {name: tensor for name, tensor in constants(module).items() if name not in streams}
        self._kept = list(kept)
        """Without what a lane's settings and epoch determine."""
        self.averaged = [name for name, tensor in kept.items() if tensor.is_floating_point()]
        """Buffers that are averaged where the weights are."""

    def row(self, module: nn.Module) -> Tensors:
        """The row of a lane that begins with the tensors of `module`."""
        trainable = [self._stored(name, tensor.detach()) for name, tensor in _trainable(module)]
        weights = torch.cat([tensor.flatten() for tensor in trainable])
        row = {"weights": weights, **{slot: torch.zeros_like(weights) for slot in _SLOT_ROWS}}
        return row | {f"buffers.{name}": tensor for name, tensor in constants(module).items()}

    def parameters(self, flat: Tensor) -> Tensors:
        """By name, as views: [K, P] → [K, ...] each, or [P] → [...] each."""
        return self._views(flat, list(self._shapes))

    def gradients(self, weights: Tensor) -> tuple[Tensors, list[tuple[slice, Tensor]]]:
        """Memory for the gradients of `weights` [K, P]: by name, and its parts, with the columns of each.

        One part [K, P]; of many lanes on a CPU, each large matrix is a part of its own, [K, N].
        """
        apart = [name for name, shape in self._shapes.items() if _is_large(shape)]
        if len(weights) < MANY or weights.device.type != "cpu":
            apart = []
        together = [name for name in self._shapes if name not in apart]
        found: Tensors = {}
        parts = []
        start = 0
        for names in [together, *([name] for name in apart)]:
            stop = start + sum(self._shapes[name].numel() for name in names)
            part = weights.new_empty(len(weights), stop - start)
            found |= self._views(part, names)
            parts.append((slice(start, stop), part))
            start = stop
        return found, parts

    def _views(self, flat: Tensor, names: Sequence[str]) -> Tensors:
        """Of parameters that follow each other in `flat`."""
        shapes = [self._shapes[name] for name in names]
        views = torch.split(flat, [shape.numel() for shape in shapes], -1)
        return {
            name: self._viewed(name, view, (*flat.shape[:-1], *shape))
            for name, view, shape in zip(names, views, shapes, strict=True)
        }

    def _stored(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.movedim(-3, -1) if name in self._channels_last else tensor

    def _viewed(self, name: str, view: Tensor, shape: tuple[int, ...]) -> Tensor:
        if name not in self._channels_last:
            return view.view(shape)
        *front, channels, height, width = shape
        return view.view(*front, height, width, channels).movedim(-1, -3)

    def named(self, row: Tensors, lane: Hyperparameters) -> Tensors:
        """Views of all that the `LaneState` of `lane` keeps of a row, by its names for it."""
        flats = {"parameters": row["weights"]}
        for slot, name in zip(_SLOT_ROWS, SLOTS[lane.optimizer], strict=False):
            flats[f"optimizer.{name}"] = row[slot]
        buffers = {f"buffers.{name}": row[f"buffers.{name}"] for name in self._kept}
        if lane.ema_decay:
            flats[AVERAGE] = row[AVERAGE]
            buffers |= {f"{AVERAGE}.{name}": row[f"{AVERAGE}.{name}"] for name in self.averaged}
        named = {
            f"{group}.{name}": view
            for group, flat in flats.items()
            for name, view in self.parameters(flat).items()
        }
        return named | buffers


def _is_large(shape: torch.Size) -> bool:
    return len(shape) == 2 and shape.numel() >= LARGE


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What a lane's row has of its parameters, in this order: large matrices last."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    return sorted(named, key=lambda item: _is_large(item[1].shape))


def convolutions_2d(module: nn.Module) -> frozenset[str]:
    """Names of the weights of 2-d convolutions: [out, in, height, width] each."""
    return frozenset(
        joined(name, "weight")
        for name, layer in module.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    )


def constants(module: nn.Module) -> Tensors:
    """The tensors of `module` that no optimizer changes."""
    frozen = {name: tensor.detach() for name, tensor in module.named_parameters() if not tensor.requires_grad}
    return frozen | {name: tensor.detach() for name, tensor in module.named_buffers()}


def stacked(old: Tensors, kept: Sequence[int], fresh: Sequence[Tensors], order: Sequence[int]) -> Tensors:
    """Rows `kept` of `old`, then `fresh`, all put into `order`."""
    rows = {}
    for name in old or fresh[0]:
        parts = [old[name][list(kept)]] if kept else []
        if fresh:
            parts.append(torch.stack([row[name] for row in fresh]))
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        rows[name] = tensor if list(order) == sorted(order) else tensor[list(order)]
    return rows
