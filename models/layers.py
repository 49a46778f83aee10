"""Layers for networks that train stacked: many lanes, each with its own rate and random stream.

Shapes: K lanes, B batch, C channels. Under `torch.func.vmap` a layer sees one lane ([B, C]); the functions
below are then given all of them at once ([K, B, C]).
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.image_layers import BatchNorm2d, Conv2d

STREAM = ("key", "threshold", "scale")
"""Names of a `Dropout`'s buffers: what a lane's masks depend on, besides the element's position."""


def mix(words: Tensor) -> Tensor:
    """Scramble int32 `words` in place, so that any bit in changes about half of the bits out.

    Two rounds of multiply and shift with the constants of Wellons, "Prospecting for Hash Functions" (2018);
    the shift is signed (torch has no other), so it is added instead of xor-ed: that loses no bit.
    """
    words.mul_(0x7FEB352D)
    words.add_(words >> 16)
    words.mul_(0x846CA68B - 2**32)
    return words.add_(words >> 16)


def dropout_words(key: Tensor, rows: int, columns: int) -> Tensor:
    """Random int32 for `rows` x `columns` elements of each stream.

    key: int32 [...] → [..., rows, columns]. A word depends on its key and position alone.
    """
    row, column = _places(rows, 0x3C6EF372, key.device), _places(columns, 0x1B873593, key.device)
    return mix(mix(key.unsqueeze(-1) ^ row).unsqueeze(-1) ^ column)


def _places(count: int, salt: int, device: torch.device) -> Tensor:
    """The scrambled numbers of rows or columns; kept, for they take as long to make as a small mask."""
    if torch.compiler.is_compiling():
        return _scrambled.__wrapped__(count, salt, device)
    return _scrambled(count, salt, device)


@cache  # never let go: steps that are recorded as CUDA graphs read them where they are
def _scrambled(count: int, salt: int, device: torch.device) -> Tensor:
    return mix(torch.arange(count, dtype=torch.int32, device=device).add_(salt))


def dropout_keep(key: Tensor, threshold: Tensor, rows: int, columns: int) -> Tensor:
    """-1 (all bits set) where an element stays, 0 where it is dropped.

    key, threshold: int32 [...] → int32 [..., rows, columns]. An element stays when its 16 bits of a word, as
    a signed number, are below `threshold`. One word serves two neighbours, and the comparison is integer
    arithmetic: with booleans and `torch.where` a mask takes several times as long, as does `rand_like` alone.
    """
    words = dropout_words(key, rows, (columns + 1) // 2)
    halves = words.view(torch.int16)[..., :columns].to(torch.int32)
    return halves.sub_(threshold[..., None, None]).bitwise_right_shift_(31)


def dropout_mask(key: Tensor, threshold: Tensor, scale: Tensor, rows: int, columns: int) -> Tensor:
    """What to multiply with: `scale` where an element stays, 0 where it is dropped.

    key, threshold: int32 [...]; scale: float32 [...] → float32 [..., rows, columns]
    """
    keep = dropout_keep(key, threshold, rows, columns)
    return keep.bitwise_and_(scale.view(torch.int32)[..., None, None]).view(torch.float32)


def _fronted(tensors: Sequence[Tensor], dims: Sequence[int | None], lanes: int) -> list[Tensor]:
    """`tensors` with the lanes first, whether vmap has them at one of `dims` or not at all (None)."""
    return [
        tensor.expand(lanes, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, dims, strict=True)
    ]


class _Drop(torch.autograd.Function):
    """x: [..., B, ...]; key, threshold, scale: [...]; `shape` of one lane's mask → x * mask, mask."""

    @staticmethod
    def forward(
        x: Tensor, key: Tensor, threshold: Tensor, scale: Tensor, shape: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        mask = dropout_mask(key, threshold, scale, shape[0], math.prod(shape[1:]))
        mask = mask.to(x.dtype).view(*key.shape, *shape)
        return x * mask, mask

    @staticmethod
    def setup_context(ctx: Any, _: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return gradient * ctx.saved_tensors[0], None, None, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        lanes = _fronted(args[:4], in_dims[:4], info.batch_size)
        return _Drop.apply(*lanes, args[4]), (0, 0)


class Dropout(nn.Dropout):
    """Dropout whose rate and random stream are buffers, so that stacked lanes each have their own.

    x: [B, ...] → the same shape. Masks depend on the buffer `key` (set anew for each step), the position in
    the batch and the call within one forward pass, never on torch's generator. An ordinary `nn.Dropout`
    becomes one with `stackable`.
    """

    key: Tensor
    threshold: Tensor
    scale: Tensor
    calls: int
    active: bool
    alike: int
    """So many neighbours among stacked lanes have equal keys and rates, and may share their masks."""

    def start(self, active: bool) -> None:
        """Begin a forward pass; a layer that no lane drops anything in is not `active`."""
        self.calls = 0
        self.active = active
        self.alike = 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.active:
            return x
        shape = self.mask_shape(x)
        dropped, _ = _Drop.apply(x, self.next_key(self.key), self.threshold, self.scale, shape)
        return x.copy_(dropped) if self.inplace else dropped

    def next_key(self, key: Tensor) -> Tensor:
        """The key of the next call: the first, second, … of this forward pass."""
        self.calls += 1
        return key ^ (0x2545F491 * self.calls & 0x7FFFFFFF)

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """One mask value per element."""
        return tuple(x.shape) if x.dim() else (1,)


class ChannelDropout(Dropout):
    """Dropout of whole channels, for `nn.Dropout1d`, `nn.Dropout2d` and `nn.Dropout3d`.

    x: [B, C, ...] → the same shape.
    """

    def mask_shape(self, x: Tensor) -> tuple[int, ...]:
        """One mask value per example and channel."""
        return (*x.shape[:2], *(1,) * (x.dim() - 2))


class _Normalize(torch.autograd.Function):
    """x: [..., B, C], weight, bias: [..., C] → y, mean, variance, centered x, 1 / standard deviation."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        mean = x.mean(-2, keepdim=True)
        centered = x - mean
        variance = (centered * centered).mean(-2, keepdim=True)
        inverse = (variance + eps).rsqrt_()
        y = torch.addcmul(bias.unsqueeze(-2), centered, inverse * weight.unsqueeze(-2))
        return y, mean.squeeze(-2), variance.squeeze(-2), centered, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[3], output[4], inputs[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Ioffe and Szegedy, "Batch Normalization" (2015), section 3, collected by powers of x."""
        centered, inverse, weight = ctx.saved_tensors
        rows = centered.shape[-2]
        bias = gradient.sum(-2, keepdim=True)
        slope = (gradient * centered).sum(-2, keepdim=True) * inverse
        factor = weight.unsqueeze(-2) * inverse
        x = torch.addcmul(bias * factor / -rows, gradient, factor)
        x.addcmul_(centered, slope * factor * inverse / -rows)
        return x, slope.squeeze(-2), bias.squeeze(-2), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        lanes = _fronted(args[:3], in_dims[:3], info.batch_size)
        return _Normalize.apply(*lanes, args[3]), (0,) * 5


def normalize(
    layer: nn.BatchNorm1d, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Batch norm with the settings of `layer`; in training, `mean` and `variance` are updated in place.

    x: [..., B, C]; weight, bias, mean, variance: [..., C] → [..., B, C]. Under autocast x is bfloat16; it is
    normalized in the dtype of `weight`.
    """
    dtype, x = x.dtype, x.to(weight.dtype)
    if not layer.training:
        factor = weight * (variance + layer.eps).rsqrt()
        return torch.addcmul((bias - mean * factor).unsqueeze(-2), x, factor.unsqueeze(-2)).to(dtype)
    assert layer.momentum is not None
    rows = x.shape[-2]
    y, batch_mean, batch_variance, _, _ = _Normalize.apply(x, weight, bias, layer.eps)
    mean.mul_(1 - layer.momentum).add_(batch_mean, alpha=layer.momentum)
    unbiased = layer.momentum * rows / (rows - 1)
    variance.mul_(1 - layer.momentum).add_(batch_variance, alpha=unbiased)
    return cast(Tensor, y).to(dtype)


class BatchNorm1d(nn.BatchNorm1d):
    """`nn.BatchNorm1d` that keeps the lanes first.

    x: [B, C] → [B, C]; other shapes take torch's own way. torch's rule for vmap transposes the lanes behind
    the batch and applies weight and bias to a strided result, which slows every layer that follows.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or (self.training and len(x) == 1):
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        y = normalize(self, x, self.weight, self.bias, self.running_mean, self.running_var)
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return y


_STACKABLE: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: Dropout,
    nn.Dropout1d: ChannelDropout,
    nn.Dropout2d: ChannelDropout,
    nn.Dropout3d: ChannelDropout,
    nn.BatchNorm1d: BatchNorm1d,
    nn.BatchNorm2d: BatchNorm2d,
    nn.Conv2d: Conv2d,
}


def stackable(module: nn.Module) -> nn.Module:
    """Exchange, in place, the layers of `module` that have a counterpart here; returns `module`.

    Only a layer's class changes: names, parameters, hooks and places (in containers, or shared) stay.
    Subclasses of the user's own stay as they are.
    """
    for layer in module.modules():
        if type(layer) in {nn.BatchNorm1d, nn.BatchNorm2d} and not _is_usual(layer):
            continue
        if type(layer) in _STACKABLE:
            layer.__class__ = _STACKABLE[type(layer)]
        if isinstance(layer, Dropout):
            _add_stream(layer)
    return module


def _is_usual(layer: nn.Module) -> bool:
    return bool(layer.affine and layer.track_running_stats and layer.momentum is not None)


def _add_stream(layer: Dropout) -> None:
    kept = 1.0 - layer.p
    scale = 1.0 / kept if kept else 0.0
    layer.start(active=layer.p > 0)
    layer.register_buffer("key", torch.zeros((), dtype=torch.int32), persistent=False)
    threshold = round(kept * 2**16) - 2**15
    layer.register_buffer("threshold", torch.tensor(threshold, dtype=torch.int32), persistent=False)
    layer.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
