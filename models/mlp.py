"""A multilayer perceptron."""

import math

from torch import nn

from models.options import check_at_least, check_dropout


def mlp(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """`depth` hidden layers of linear, batch norm, ReLU, dropout, and a linear layer.

    x: [B, *input_shape], flattened → [B, classes]. B: batch. Parameters for `width` W, `depth` D and F
    inputs: F·W + (D-1)·W² + 2·D·W + (W+1)·classes; with `depth` 0, a linear model, (F+1)·classes.

    Raises:
        ValueError: an option is out of its range.
    """
    check_at_least(1, width=width)
    check_at_least(0, depth=depth)
    check_dropout(dropout)
    layers: list[nn.Module] = [nn.Flatten()]
    inputs = math.prod(input_shape)
    for _ in range(depth):
        # Batch norm subtracts what a bias adds, and Adam amplifies the rounding error in such a bias's
        # gradient, so that equal trials would drift apart: these layers have none.
        layers += [
            nn.Linear(inputs, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
        ]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))
