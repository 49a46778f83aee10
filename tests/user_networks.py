"""Networks as users write them, for the tests of cohorts: `user_networks.py:<builder>`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cnn(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Dropout2d(dropout / 2),
        nn.Flatten(),
        nn.Linear(4 * (shape[1] // 2) * (shape[2] // 2), 8, bias=False),
        nn.BatchNorm1d(8),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(8, classes),
    )


class ResNet(nn.Module):
    """One residual block; its dropout layer is used twice in a pass."""

    def __init__(self, shape: tuple[int, ...], classes: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(shape[0], 4, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4) for _ in range(3)])
        self.convs = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2)])
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.stem(x))
        y = self.drop(F.relu(self.norms[1](self.convs[0](x))))
        x = F.relu(x + self.norms[2](self.convs[1](y)))
        return self.head(self.drop(x.mean((2, 3))))


def resnet(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return ResNet(shape, classes, dropout)


class Functional(nn.Module):
    """Random in a way that vmap refuses; its rate is no layer's."""

    def __init__(self, inputs: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 8), nn.Linear(8, classes)
        self.layer = nn.Dropout(0.2)
        self.rate = dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.layer(torch.tanh(self.first(x))), self.rate, self.training))


def functional(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Functional(shape[0], classes, dropout)


class Branching(nn.Module):
    """Looks at its data, and keeps a buffer that it assigns anew."""

    level: Tensor

    def __init__(self, inputs: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 8), nn.Linear(8, classes)
        self.drop = nn.Dropout(dropout)
        self.register_buffer("level", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.detach().mean()
            if x.mean().item() > 0:
                x = self.drop(x)
        return self.last(x + self.level)


def branching(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Branching(shape[0], classes, dropout)


class Tracking(nn.Module):
    """vmap can trace it: a buffer assigned anew, tied weights, and a frozen layer."""

    level: Tensor

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.frozen = nn.Linear(inputs, 8).requires_grad_(False)
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.last = nn.Linear(8, classes)
        self.register_buffer("level", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.two(torch.tanh(self.one(self.frozen(x)))))
        if self.training:
            self.level = 0.9 * self.level + 0.1 * x.mean(0)
        return self.last(x - self.level)


def tracking(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Tracking(shape[0], classes)


def optional(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    """Its layers depend on whether there is any dropout."""
    dropouts = [nn.Dropout(dropout)] if dropout > 0.3 else []
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], 8), nn.ReLU(), *dropouts, nn.Linear(8, classes))


def wrong_shape(shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Linear(shape[0], classes + 1)


def no_module(shape: tuple[int, ...], classes: int) -> Any:
    return "a network"


def raising(shape: tuple[int, ...], classes: int, width: int = 1) -> nn.Module:
    raise ValueError(f"width {width}: too wide")


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def broken(shape: tuple[int, ...], classes: int) -> nn.Module:
    return Broken()


def wide(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    """Convolutions that gain by bfloat16."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32 * (shape[1] // 4) * (shape[2] // 4), classes),
    )


class Viewing(nn.Module):
    """Views its activations as rows, which needs the channels first in memory."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 16, 3, padding=1)
        self.last = nn.Linear(16 * shape[1] * shape[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.last(x.view(len(x), -1))


def viewing(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Viewing(shape, classes)


class FloatOnly(nn.Module):
    """Has an operation that takes tensors of one type alone."""

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(shape[0], 16, 3, padding=1)
        self.second = nn.Conv2d(16, 4, 3, padding=1)
        self.last = nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x)).mean((2, 3))
        sums = torch.zeros(x.shape, device=x.device).scatter_add(0, torch.zeros_like(x, dtype=torch.int64), x)
        return self.last(x + sums)


def float_only(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return FloatOnly(shape, classes)


class Level(torch.autograd.Function):
    """The mean of a lane's examples, or so it should be: its rule for vmap takes that of all lanes."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.mean(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.shape = inputs[0].shape

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient / ctx.shape[0]).expand(ctx.shape)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        lanes = x.movedim(in_dims[0], 0)
        return lanes.mean((0, 1)).expand(len(lanes), -1), 0


class Mixing(nn.Module):
    """Lanes are alike when their weights and examples are: then its mistake does not show."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, 8), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        return self.last(x - Level.apply(x))


def mixing(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Mixing(shape[0], classes)


class Centring(nn.Module):
    """Changes the examples that it is given."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.sub_(x.mean(0)))


def centring(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    return Centring(shape[0], classes)


def too_large(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    raise MemoryError


def biased(shape: tuple[int, ...], classes: int, dropout: float = 0.0) -> nn.Module:
    """A bias that batch norm makes irrelevant."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * shape[1] * shape[2], classes),
    )
