"""A user's own images and network: EMNIST-36 as idx files, and a CNN: of both sides of benchmarks/images.py.

Shapes: N images, H, W pixels, C channels.
"""

import gzip
from pathlib import Path

import numpy as np
from torch import nn

IMAGES, LABELS = 0x0803, 0x0801
"""Magic numbers of idx files: bytes in three dimensions, bytes in one."""


def load(folder, part="train", examples=None):
    """uint8 images [N, 1, H, W] and labels [N] of the idx files `*PART-images*` and `*PART-labels*`.

    examples: how many, as many of each class; by default all of them.
    """
    images, labels = (read_idx(found(Path(folder), part, what)) for what in ("images", "labels"))
    chosen = slice(None) if examples is None else subset(labels, examples)
    return images[chosen, None], labels[chosen]


def found(folder, part, what):
    """The one file of that kind, compressed or not."""
    paths = sorted(folder.glob(f"*{part}-{what}*"))
    if len(paths) != 1:
        raise FileNotFoundError(f"{folder}: need one file *{part}-{what}*, there are {len(paths)}")
    return paths[0]


def read_idx(path):
    """The bytes of an idx file (LeCun, "The MNIST database"), [N] or [N, H, W]."""
    content = (gzip.decompress if path.suffix == ".gz" else bytes)(path.read_bytes())
    magic = int.from_bytes(content[:4], "big")
    if magic not in (IMAGES, LABELS):
        raise ValueError(f"{path}: begins with {magic:#010x}, need {IMAGES:#010x} or {LABELS:#010x}")
    dimensions = magic & 0xFF
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def subset(labels, examples):
    """Rows of the first `examples` / classes of each class, ascending."""
    classes = np.unique(labels)
    each = examples // len(classes)
    rows = [np.flatnonzero(labels == label)[:each] for label in classes]
    if each == 0 or min(map(len, rows)) < each:
        most = len(classes) * min(map(len, rows))
        raise ValueError(f"examples: {examples} of {len(classes)} classes, need {len(classes)} to {most}")
    return np.sort(np.concatenate(rows))


def build(input_shape, classes, *, width=32, dropout=0.3):
    """Three blocks of convolution, batch norm and pooling, then two linear layers.

    [N, C, H, W] → [N, classes]; with the default width 245,000 parameters for 28 x 28 pixels and 36 classes.
    """
    channels, height, pixels = input_shape
    layers = []
    for factor in (1, 2, 4):
        convolution = nn.Conv2d(channels, factor * width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(factor * width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = factor * width
    hidden = 4 * width
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels * (height // 8) * (pixels // 8), hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
