"""A convolutional network for small images."""

import math

from torch import nn

from models.images import activated, entrance, halving, hidden_head, image_shape, initialize
from models.options import check_at_least, check_dropout

STAGES = 3


def cnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 32,
    depth: int = 2,
    dropout: float = 0.3,
) -> nn.Module:
    """Three stages of `depth` 3 x 3 convolutions and a max pooling, then a hidden layer with dropout.

    x: [B, C, H, W] or [B, H, W] → [B, classes]; images of 8 x 8 pixels or more. `width` W channels in the
    first stage, 2·W in the second, 4·W in the third, 8·W hidden units. Convolutions have batch norm and ReLU:
    Ioffe and Szegedy, "Batch Normalization" (2015). The hidden layer reads every place of the last stage, not
    their average: for a character it counts where a stroke is.

    Parameters, for `depth` D and P = ⌈H/8⌉·⌈W/8⌉ places: 9·W·(C + 10·W + 21·W·(D-1)) + 14·W·D for the
    convolutions, 32·W²·P + 8·W + (8·W+1)·classes behind them. 28 x 28 pixels and 36 classes: 820,676, and
    29.7 million multiplications an image; with `width` 16 a quarter of both.

    Raises:
        ValueError: an option is out of its range, or examples are no images.
    """
    channels, rows, columns = image_shape("cnn", input_shape)
    check_at_least(1, width=width, depth=depth)
    check_dropout(dropout)
    layers = entrance(input_shape)
    for stage in range(STAGES):
        for _ in range(depth):
            layers += activated(channels, width * 2**stage)
            channels = width * 2**stage
        layers.append(halving())
    places = math.ceil(rows / 2**STAGES) * math.ceil(columns / 2**STAGES)
    head = hidden_head(channels * places, 8 * width, classes, dropout)
    module = nn.Sequential(*layers, nn.Flatten(), *head)
    initialize(module)
    return module
