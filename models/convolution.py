"""Convolutions of many lanes as one product of matrices, for GPUs: cuDNN is slow at many groups.

Shapes: K lanes, B batch, C channels read, O channels written, H, W pixels, h, w of the kernel.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def is_product(layer: nn.Conv2d) -> bool:
    """Whether `convolve` can take the place of `layer`: it visits each pixel, with zeros around the edges."""
    kernel, padding = layer.kernel_size, layer.padding
    return (
        layer.padding_mode == "zeros"
        and layer.groups == 1
        and not isinstance(padding, str)
        and tuple(layer.stride) == tuple(layer.dilation) == (1, 1)
        and all(around < side for around, side in zip(padding, kernel, strict=True))
    )


def convolve(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """`F.conv2d` without a bias, within vmap. x: [B, C, H, W], weight: [O, C, h, w] → [B, O, H', W']"""
    y: Tensor = _Convolution.apply(x, weight, padding)
    return y


class _Convolution(torch.autograd.Function):
    """x: [K, B, C, H, W], weight: [K, O, C, h, w] → [K, B, O, H', W']

    Each pixel's surroundings become a column (Chellapilla et al., "High Performance Convolutional Neural
    Networks for Document Processing", 2006). They are laid out anew for the backward pass, not kept: they are
    h·w times as large as x.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
        return _product(x, weight, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, ctx.padding = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(-2, -1).transpose(1, 2)
            around = [side - 1 - was for side, was in zip(weight.shape[-2:], ctx.padding, strict=True)]
            of_x = _product(gradient, turned, (around[0], around[1]))
        if ctx.needs_input_grad[1]:
            rows = gradient.transpose(1, 2).flatten(2)  # [K, O, B·H'·W']
            of_weight = (rows @ _columns(x, weight.shape[-2:], ctx.padding).mT).view(weight.shape)
        return of_x, of_weight, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], x: Tensor, weight: Tensor, padding: tuple[int, int]
    ) -> tuple[Tensor, int]:
        stacked = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip((x, weight), in_dims[:2], strict=True)
        ]
        return _Convolution.apply(*stacked, padding), 0


def _product(x: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """See `_Convolution`. The result's channels lie before its batch."""
    height, width = (
        side + 2 * around - kernel + 1
        for side, around, kernel in zip(x.shape[-2:], padding, weight.shape[-2:], strict=True)
    )
    y = weight.flatten(2) @ _columns(x, weight.shape[-2:], padding)
    return y.view(*weight.shape[:2], len(x[0]), height, width).transpose(1, 2)


def _columns(x: Tensor, kernel: torch.Size, padding: tuple[int, int]) -> Tensor:
    """[K, B, C, H, W] → [K, C·h·w, B·H'·W']"""
    down, right = padding
    padded = F.pad(x, (right, right, down, down)) if down or right else x
    windows = padded.unfold(-2, kernel[0], 1).unfold(-2, kernel[1], 1)  # [K, B, C, H', W', h, w]
    return windows.permute(0, 2, 5, 6, 1, 3, 4).flatten(4).flatten(1, 3)
