"""Layers of images for networks that train stacked: see models/layers.py, which puts them in place.

Without vmap they are torch's own, to the bit.

Shapes: K lanes, B batch, C channels, H height, W width.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _is_vmapped() -> bool:
    # torch tells it nowhere else; `torch.autograd.Function.apply` asks the same.
    return torch._C._are_functorch_transforms_active()


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` that heeds autocast under vmap on a CPU too.

    x: [B, C, H, W] → [B, outputs, …]. vmap turns it into `aten::convolution`, which is not in autocast's list
    for CPUs (torch 2.15): lanes together would compute in float32, and alone in bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if not _is_vmapped() or x.dtype == torch.float64 or not torch.is_autocast_enabled(device):
            return super().forward(x)
        dtype = torch.get_autocast_dtype(device)
        bias = None if self.bias is None else self.bias.to(dtype)
        return cast(Tensor, self._conv_forward(x.to(dtype), self.weight.to(dtype), bias))


class _Normalize2d(torch.autograd.Function):
    """torch's batch norm. x: [B, C, H, W] → y, and the batch's mean and 1 / standard deviation, [C] each."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *settings: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, weight, bias, mean, variance, *settings)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, _, mean, variance, ctx.training, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        running = () if ctx.training else (mean, variance)
        ctx.save_for_backward(x, weight, *output[1:], *running)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, *running = ctx.saved_tensors
        found = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, *(running or (None, None)), mean, inverse, ctx.training, ctx.eps, [True] * 3
        )
        return (*found, *(None,) * 5)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """A lane's channels beside those of the others: [B, K·C, H, W]."""
        lanes = info.batch_size
        x = x.unsqueeze(1).expand(-1, lanes, *x.shape[1:]) if in_dims[0] is None else x.movedim(in_dims[0], 1)
        own = [
            tensor.expand(lanes, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(args[:4], in_dims[1:5], strict=True)
        ]
        scales = [tensor.reshape(-1) for tensor in own[:2]]
        running = [tensor.view(-1) for tensor in own[2:]]  # updated in place, so never a copy
        y, *statistics = _Normalize2d.apply(x.flatten(1, 2), *scales, *running, *args[4:])
        return (y.unflatten(1, (lanes, -1)), *(found.view(lanes, -1) for found in statistics)), (1, 0, 0)


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that runs over the channels of all lanes at once.

    x: [B, C, H, W] → [B, C, H, W]; other shapes take torch's own way. torch's rule for vmap multiplies and
    adds apart from normalizing: for that it keeps the activations once more, in bfloat16 it hands on float32,
    and on a CPU it refuses bfloat16.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not _is_vmapped() or x.dim() != 4 or (self.training and x[:, 0].numel() == 1):
            return super().forward(x)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        running = self.running_mean, self.running_var
        y, _, _ = _Normalize2d.apply(
            x, self.weight, self.bias, *running, self.training, self.momentum, self.eps
        )
        return cast(Tensor, y)
