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
