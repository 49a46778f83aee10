"""Where the tensors of a network lie in a lane's row.

Shapes: K lanes, P trainable parameters of a lane, flattened.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hpo.config import Optimizer
from hpo.training.optimizers import SLOTS
from models.layers import STREAM, Dropout

Tensors = dict[str, Tensor]
"""Tensors by qualified name."""

_SLOT_ROWS = ("first", "second")


def joined(*names: str) -> str:
    """A qualified name, as torch writes it; the root module's own name is empty."""
    return ".".join(name for name in names if name)


class Layout:
    """One row has `weights`, `first` and `second` ([P] each), and `buffers.<name>`.

    Parameters that do not train count as buffers.
    """

    def __init__(self, module: nn.Module) -> None:
        trainable = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
        self._shapes = {name: tensor.shape for name, tensor in trainable.items()}
        self._sizes = [tensor.numel() for tensor in trainable.values()]
        streams = {
            joined(name, buffer)
            for name, layer in module.named_modules()
            if isinstance(layer, Dropout)
            for buffer in STREAM
        }
        self._kept = [name for name in constants(module) if name not in streams]
        """Without what a lane's settings and epoch determine."""

    def row(self, module: nn.Module) -> Tensors:
        """The row of a lane that begins with the tensors of `module`."""
        trainable = [tensor.detach() for tensor in module.parameters() if tensor.requires_grad]
        weights = torch.cat([tensor.flatten() for tensor in trainable])
        row = {"weights": weights, **{slot: torch.zeros_like(weights) for slot in _SLOT_ROWS}}
        return row | {f"buffers.{name}": tensor for name, tensor in constants(module).items()}

    def parameters(self, flat: Tensor) -> Tensors:
        """By name, as views: [K, P] → [K, ...] each, or [P] → [...] each."""
        views = torch.split(flat, self._sizes, -1)
        return {
            name: view.view(*flat.shape[:-1], *shape)
            for (name, shape), view in zip(self._shapes.items(), views, strict=True)
        }

    def named(self, row: Tensors, optimizer: Optimizer) -> Tensors:
        """Views of all that a `LaneState` keeps of a row, by its names for it."""
        flats = {"parameters": row["weights"]}
        for slot, name in zip(_SLOT_ROWS, SLOTS[optimizer], strict=False):
            flats[f"optimizer.{name}"] = row[slot]
        named = {
            f"{group}.{name}": view
            for group, flat in flats.items()
            for name, view in self.parameters(flat).items()
        }
        return named | {f"buffers.{name}": row[f"buffers.{name}"] for name in self._kept}


def constants(module: nn.Module) -> Tensors:
    """The tensors of `module` that no optimizer changes."""
    frozen = {name: tensor.detach() for name, tensor in module.named_parameters() if not tensor.requires_grad}
    return frozen | dict(module.named_buffers())


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
