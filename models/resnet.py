"""Residual networks for small images.

Shapes: B batch, C channels, H height, W width.
"""

import math

from torch import Tensor, nn

from models.images import activated, activation, convolution, entrance, image_shape, initialize
from models.options import check_at_least, check_dropout


class Block(nn.Module):
    """He et al., "Deep Residual Learning for Image Recognition" (2015), figure 2 and section 3.3, option B.

    x: [B, inputs, H, W] → [B, outputs, ⌈H/stride⌉, ⌈W/stride⌉]. The last batch norm's weight begins as 0, so
    that a block begins as its shortcut: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 5.1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        last = nn.BatchNorm2d(outputs)
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(
            *activated(inputs, outputs, stride), convolution(outputs, outputs), last
        )
        self.shortcut: nn.Module = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        found: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return found


class PreactivatedBlock(nn.Module):
    """He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 1 (b).

    x: [B, inputs, H, W] → [B, outputs, ⌈H/stride⌉, ⌈W/stride⌉]. Batch norm and ReLU come before each
    convolution, and before a shortcut's. No batch norm's weight begins as 0: the ReLU behind it would pass no
    gradient, then and ever after.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(*activation(inputs))
        self.residual = nn.Sequential(*activated(inputs, outputs, stride), convolution(outputs, outputs))
        self.shortcut: nn.Module | None = None
        if (inputs, stride) != (outputs, 1):
            self.shortcut = convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        active = self.activation(x)
        shortcut = x if self.shortcut is None else self.shortcut(active)
        found: Tensor = self.residual(active) + shortcut
        return found


def resnet(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: int = 64,
    depth: int = 2,
    stages: int = 3,
    preactivation: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """A convolution, `stages` of `depth` residual blocks, an average over all places, and a linear layer.

    x: [B, C, H, W] or [B, H, W] → [B, classes]; images of 8 x 8 pixels or more. `width` W channels in the
    first stage, twice as many in each further one, which first halves the sides: 28, 14, 7 pixels. With 4
    stages it is ResNet-18 (He et al., 2015), but for the beginning: a 3 x 3 convolution without stride and
    pooling, as the paper itself has for 32 x 32 pixels (section 4.2). `preactivation` orders the layers as
    He et al. (2016) do. `dropout` is for what the linear layer reads; the papers have none.

    Parameters for 28 x 28 pixels and 36 classes: 2,783,204 (2,782,436 with `preactivation`), with 4 stages
    11,186,148; nearly all of them in proportion to W².

    Raises:
        ValueError: an option is out of its range, or examples are no images.
    """
    channels, rows, columns = image_shape("resnet", input_shape)
    check_at_least(1, width=width, depth=depth, stages=stages)
    check_dropout(dropout)
    most = 1 + math.ceil(math.log2(min(rows, columns)))
    if stages > most:
        raise ValueError(f"stages {stages}: {rows} x {columns} pixels can be halved {most - 1} times")
    blocks, outputs = _blocks(PreactivatedBlock if preactivation else Block, width, depth, stages)
    beginning = [convolution(channels, width)] if preactivation else activated(channels, width)
    end = activation(outputs) if preactivation else []
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(outputs, classes)]
    module = nn.Sequential(*entrance(input_shape), *beginning, *blocks, *end, *head)
    initialize(module)
    return module


def _blocks(
    kind: type[Block] | type[PreactivatedBlock], width: int, depth: int, stages: int
) -> tuple[list[nn.Module], int]:
    """All blocks, and how many channels come out of the last."""
    blocks: list[nn.Module] = []
    channels = width
    for stage in range(stages):
        outputs = width * 2**stage
        for block in range(depth):
            blocks.append(kind(channels, outputs, stride=2 if stage > 0 and block == 0 else 1))
            channels = outputs
    return blocks, channels
