"""What networks for images have in common.

Shapes: B batch, C channels, H height, W width; channels first.
"""

from torch import nn

SMALLEST = 8
"""Pixels of a side. Below that three halvings leave nothing to tell apart, and channels that come last, as in
[H, W, 3], would pass for the width."""


def image_shape(architecture: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """`input_shape` as [C, H, W]; one of [H, W] has one channel.

    Raises:
        ValueError: examples of this shape are no images, or smaller than `SMALLEST`.
    """
    if len(input_shape) not in {2, 3}:
        hint = "; mlp takes tables" if len(input_shape) == 1 else ""
        raise ValueError(f"input_shape {list(input_shape)}: {architecture} needs images [C, H, W]{hint}")
    channels, height, width = (1, *input_shape)[-3:]
    if channels < 1 or min(height, width) < SMALLEST:
        raise ValueError(
            f"input_shape {list(input_shape)}: {architecture} needs images [C, H, W], channels first, "
            f"of at least {SMALLEST} x {SMALLEST} pixels"
        )
    return channels, height, width


def entrance(input_shape: tuple[int, ...]) -> list[nn.Module]:
    """What gives images [B, H, W] their channel; nothing for images [B, C, H, W]."""
    return [] if len(input_shape) == 3 else [nn.Unflatten(1, (1, input_shape[0]))]


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """From `inputs` to `outputs` channels; sides are divided by `stride`, rounded up.

    Without a bias: batch norm subtracts it, now or later, and Adam amplifies the rounding error in its
    gradient (see models/mlp.py).
    """
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def activation(channels: int) -> list[nn.Module]:
    """Batch norm (Ioffe and Szegedy, "Batch Normalization", 2015) and ReLU."""
    return [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def activated(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A convolution with batch norm and ReLU. [B, inputs, H, W] → [B, outputs, ⌈H/stride⌉, ⌈W/stride⌉]"""
    return [convolution(inputs, outputs, stride=stride), *activation(outputs)]


def halving() -> nn.Module:
    """Max pooling that halves the sides, rounded up: 28, 14, 7, 4, 2, 1. So no pixel of an edge is lost."""
    return nn.MaxPool2d(2, ceil_mode=True)


def hidden_head(features: int, hidden: int, classes: int, dropout: float) -> list[nn.Module]:
    """One hidden layer with dropout, and a linear one. [B, features] → [B, classes]

    Without batch norm. In a small batch all maxima that the last pooling leaves of a channel can be positive;
    batch norm would then undo what that channel's own batch norm adds, whose bias would drift as the rounding
    of a gradient of 0 takes it: after 4 steps of Adam on 16 images equal lanes were 2e-6 apart, in float64.
    """
    return [
        nn.Linear(features, hidden),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    ]


def initialize(module: nn.Module) -> None:
    """Draw the weights of `module` anew, from torch's generator.

    He et al., "Delving Deep into Rectifiers" (2015), section 2.2: gradients keep their variance through
    convolutions (equation 14), activations theirs through linear layers (equation 10), which read ReLUs.
    Biases are 0.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
