"""VGG-11, VGG-13 and VGG-16, made for small images.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2015), table 1,
columns A, B and D. What differs from there:

* Poolings round up, and end where a side has 2 pixels: 28, 14, 7, 4, 2. An average takes the place of the
  last one, so that any size fits. On a single pixel eight of a convolution's nine weights would read nothing
  but padding, and its batch norm would undo what the one before the pooling adds (see `hidden_head`).
* Batch norm after each convolution: Ioffe and Szegedy, "Batch Normalization" (2015).
* One hidden layer of as many units as the last stage has channels, instead of two of 4,096: on one place the
  original head would have 19 million of the network's parameters.

Shapes: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Sequence

from torch import nn

from models.images import activated, entrance, halving, hidden_head, image_shape, initialize
from models.options import check_at_least, check_dropout

FACTORS = (1, 2, 4, 8, 8)
"""Channels of the five stages, in widths."""


def vgg11(input_shape: tuple[int, ...], classes: int, *, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """Eight convolutions; for 28 x 28 pixels and 36 classes 9,503,204 parameters at the paper's `width`.

    See `vgg13`.
    """
    return _vgg("vgg11", (1, 1, 2, 2, 2), input_shape, classes, width, dropout)


def vgg13(input_shape: tuple[int, ...], classes: int, *, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """Five stages of two 3 x 3 convolutions, max pooling between them, then a hidden layer with dropout.

    x: [B, C, H, W] or [B, H, W] → [B, classes]; images of 8 x 8 pixels or more. `width` W channels in the
    first stage, then 2·W, 4·W, 8·W and 8·W; 64 is the paper's. Parameters: for 28 x 28 pixels and 36 classes
    9,687,908 at width 64, nearly all of them in proportion to W².

    Raises:
        ValueError: an option is out of its range, or examples are no images.
    """
    return _vgg("vgg13", (2, 2, 2, 2, 2), input_shape, classes, width, dropout)


def vgg16(input_shape: tuple[int, ...], classes: int, *, width: int = 64, dropout: float = 0.5) -> nn.Module:
    """13 convolutions; for 28 x 28 pixels and 36 classes 14,998,884 parameters at the paper's `width`.

    See `vgg13`.
    """
    return _vgg("vgg16", (2, 2, 3, 3, 3), input_shape, classes, width, dropout)


def _vgg(
    name: str, depths: Sequence[int], input_shape: tuple[int, ...], classes: int, width: int, dropout: float
) -> nn.Module:
    channels, rows, columns = image_shape(name, input_shape)
    check_at_least(1, width=width)
    check_dropout(dropout)
    layers = entrance(input_shape)
    side = min(rows, columns)
    for factor, depth in zip(FACTORS, depths, strict=True):
        for _ in range(depth):
            layers += activated(channels, factor * width)
            channels = factor * width
        if side > 2:
            layers.append(halving())
            side = math.ceil(side / 2)
    head = hidden_head(channels, channels, classes, dropout)
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
    initialize(module)
    return module
