"""Distorted training images: shifted, rotated, scaled, mirrored, with a box blanked; on the device.

Shapes: K lanes, B examples of a batch, S steps of an epoch, N = K·B images of C channels, H, W pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config import AUGMENTATION, Hyperparameters
from hpo.training.lane import LaneKey
from hpo.training.recording import of_step
from hpo.training.streams import stream

_DRAWS = 7
"""Uniform numbers for an image. All are always drawn, so that one strength changes no other's numbers."""


@dataclass(frozen=True)
class Distortions:
    """What is done to the images of every lane that distorts its own, in an epoch."""

    moves: Tensor
    """[S, K, B, 2, 3]: from where in an image, -1 to 1 from edge to edge, each pixel comes: x, then y."""
    centres: Tensor
    """[S, K, B, 2]: of the box that is blanked, down and to the right, as shares of the sides."""


class Augmentation:
    """Of lanes side by side, each image in its own way and to its lane's strength.

    Lanes that distort nothing are not touched, not even by rounding.
    """

    def __init__(
        self,
        lanes: Sequence[Hyperparameters],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        """shape: of one image, [C, H, W] or [H, W].

        Raises:
            ValueError: a lane distorts what is no image.
        """
        distorting = [any(getattr(lane, name) for name in AUGMENTATION) for lane in lanes]
        self._lanes = [lane for lane, distorts in zip(lanes, distorting, strict=True) if distorts]
        self._places = [place for place, distorts in enumerate(distorting) if distorts]
        if self._lanes and len(shape) not in {2, 3}:
            raise ValueError(f"examples of shape {list(shape)} are no images [C, H, W] to distort")
        self._all = all(distorting)
        self._index = torch.tensor(self._places, device=device)
        self._moves = any(_moves(lane) for lane in self._lanes)
        self._shape = shape
        self._dtype, self._device = dtype, device
        if self._lanes:
            height, width = shape[-2:]
            self._rows, self._columns = (_centres(side, dtype, device) for side in (height, width))
            boxes = [lane.cutout for lane in self._lanes]
            self._boxes = torch.tensor(boxes, dtype=dtype, device=device) if any(boxes) else None

    def drawn(self, lanes: Sequence[tuple[LaneKey, int]], steps: int, batch: int) -> Distortions | None:
        """What happens in an epoch of every lane; None where nothing does.

        lanes: all of them, each with the number of its epoch, which with its key decides alone.
        """
        if not self._lanes:
            return None
        moves, centres = [], []
        for lane, place in zip(self._lanes, self._places, strict=True):
            uniform = _uniform(*lanes[place], steps * batch).to(self._device)
            moves.append(_matrices(lane, uniform, *self._shape[-2:]).view(steps, batch, 2, 3))
            centres.append(uniform[-2:].T.reshape(steps, batch, 2))
        return Distortions(*(torch.stack(each, 1).to(self._dtype) for each in (moves, centres)))

    def __call__(self, x: Tensor, distortions: Distortions | None, step: int | Tensor) -> Tensor:
        """The images of a step, distorted; those of `x` may be overwritten. x: [K, B, *shape]"""
        if distortions is None:
            return x
        own = x if self._all else x.index_select(0, self._index)
        images = own.view(-1, *(1,) * (3 - len(self._shape)), *self._shape)
        if self._moves:
            images = self._moved(images, of_step(distortions.moves, step).flatten(0, 1))
        if self._boxes is not None:
            images = images * self._kept(of_step(distortions.centres, step), self._boxes)
        if self._all:
            return images.view(x.shape)
        return x.index_copy_(0, self._index, images.view(own.shape))

    def _moved(self, images: Tensor, moves: Tensor) -> Tensor:
        """images: [N, C, H, W], moves: [N, 2, 3]. Beyond an edge lies what is at the edge.

        Rows and columns apart, since `affine_grid` takes as long as the sampling itself: 0.64 ms for 128
        images of 28 x 28, against 0.07.
        """
        along_x, along_y, constant = (moves[:, :, part, None] for part in range(3))
        columns = along_x * self._columns  # [N, 2, W]
        rows = along_y * self._rows + constant  # [N, 2, H]
        grid = (columns[:, :, None] + rows[..., None]).movedim(1, -1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _kept(self, centres: Tensor, boxes: Tensor) -> Tensor:
        """0 in a box, whose sides are a share of the image's, and 1 around it. → [N, 1, H, W]

        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017):
        part of a box may lie outside, and what is blanked has the mean of the training images.
        """
        down, right = (
            (((side + 1) / 2 - centres[..., axis, None]).abs() * 2 >= boxes[:, None, None]).to(self._dtype)
            for axis, side in enumerate((self._rows, self._columns))
        )
        # In numbers, as a mask of booleans takes four times as long to apply.
        return torch.maximum(down.flatten(0, 1)[:, :, None], right.flatten(0, 1)[:, None])[:, None]


def _moves(lane: Hyperparameters) -> bool:
    return bool(lane.shift or lane.rotation or lane.scale or lane.horizontal_flip)


def _centres(side: int, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Of the pixels of a side, from -1 to 1 between its edges."""
    return (2 * torch.arange(side, dtype=dtype, device=device) + 1) / side - 1


def _uniform(key: LaneKey, epoch: int, images: int) -> Tensor:
    """From 0 to 1, for each image of a lane's epoch. → float32 [_DRAWS, images]"""
    generator = torch.Generator().manual_seed(stream(key, "augmentation", epoch))
    return torch.rand(_DRAWS, images, generator=generator)


def _matrices(lane: Hyperparameters, uniform: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of a distorted image comes from, see `Distortions`. → [images, 2, 3]

    It is turned about the centre and scaled as a shape of pixels, whatever the image's sides are.
    """
    angle, factor, x, y = (2 * uniform[:4] - 1).unbind()
    angle = angle * math.radians(lane.rotation)
    factor = 1 + lane.scale * factor
    mirror = torch.where(uniform[4] < 0.5, -1.0, 1.0) if lane.horizontal_flip else 1.0
    cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
    elements = (
        (cosine * mirror, -sine * (height / width), 2 * lane.shift * x),
        (sine * mirror * (width / height), cosine, 2 * lane.shift * y),
    )
    return torch.stack([torch.stack(row, -1) for row in elements], -2)
