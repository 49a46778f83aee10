"""Planted truths: tables and pictures of which it is known what matters, and networks that learned it."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.data import preprocessing
from hpo.results import columns
from hpo.results.explain import Explanation, explain
from hpo.results.subject import Subject, background, raw_table

HOSTILE = "<script>alert(1)</script>"
SIDE = 12
SPOTS = ((1, 1), (1, 8), (8, 4))
"""Where in a picture of each class a bright patch of 3 x 3 pixels lies."""
CLASSES = ("upper left", HOSTILE, "a name of a class that is rather too long for a small card")
COLUMNS = ("a", "b", HOSTILE, "d", "e", "f", "g", "h", "i", "j")
PLANTED = {HOSTILE, "g"}
"""The columns that decide the class."""


def pictures(count: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """[N, 1, SIDE, SIDE] and [N]: noise, and a patch that decides the class."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, SIDE, SIDE, generator=generator) * 0.4
    classes = torch.arange(count) % len(SPOTS)
    for image, kind in zip(images, classes, strict=True):
        down, right = SPOTS[kind]
        image[0, down : down + 3, right : right + 3] = 1
    return images, classes


def in_patch(place: int, kind: int) -> bool:
    """Whether a pixel, by its number, lies on a class' patch, or beside it."""
    down, right = SPOTS[kind]
    row, column = divmod(place, SIDE)
    return down - 1 <= row <= down + 3 and right - 1 <= column <= right + 3


class Functional(nn.Module):
    """A user's own: its convolutions are no modules, and it changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(6, 1, 3, 3) * 0.3)
        self.out = nn.Linear(6 * (SIDE // 2) ** 2, len(SPOTS))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(x.sub_(0.5))
        return self.out(F.max_pool2d(F.relu(F.conv2d(x, self.kernels, padding=1)), 2).flatten(1))


class Blocked(nn.Module):
    """Not differentiable."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * (SIDE // 2) ** 2, len(SPOTS)),
    )


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 16), nn.ReLU(), nn.Linear(16, len(SPOTS)))


@cache
def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A network that has learned the pictures."""
    torch.manual_seed(0)
    return _fit(make(), *pictures())


def _fit(module: nn.Module, inputs: Tensor, targets: Tensor) -> nn.Module:
    loss = F.cross_entropy if targets.dtype == torch.int64 else lambda out, y: F.mse_loss(out[:, 0], y)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss(module(inputs.clone()), targets).backward()
        optimizer.step()
    return module.eval()


def picture_subject(module: nn.Module) -> Subject:
    """With a few examples whose label is wrong, so that the network is."""
    images, classes = pictures(90, seed=1)
    classes = torch.where(torch.arange(len(classes)) % 11 == 10, (classes + 1) % len(SPOTS), classes)
    return Subject(
        "pictures",
        "classification",
        CLASSES,
        module,
        images,
        classes,
        background(images),
        "nothing",
        ("About.",),
    )


@cache
def explained(kind: str) -> Explanation:
    """The explanation of the `table`, the `numbers` or the `pictures`, made once."""
    makes: dict[str, Callable[[], Subject]] = {
        "table": table_subject,
        "numbers": partial(table_subject, "regression"),
        "pictures": lambda: picture_subject(trained(convolutional)),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "PREDICTIONS", 0)
        return explain(makes[kind]())


def table_subject(task: str = "classification", known: bool = True) -> Subject:
    """Ten columns and a category; two columns decide."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(5, 3, (400, len(COLUMNS))), columns=list(COLUMNS))
    frame["kind"] = generator.choice(["u", "v", "w"], len(frame))
    score = torch.from_numpy((frame[HOSTILE] - 5 + 0.8 * (frame["g"] - 5)).to_numpy().copy()).float()
    targets = (score > 0).long() if task == "classification" else score
    fitted = preprocessing.fit(frame, "median")
    features = preprocessing.transform(fitted, frame)
    torch.manual_seed(0)
    outputs = 2 if task == "classification" else 1
    module = nn.Sequential(nn.Linear(features.shape[1], 16), nn.ReLU(), nn.Linear(16, outputs))
    _fit(module, features[:250], targets[:250])
    held = frame[250:].reset_index(drop=True)
    return Subject(
        HOSTILE,
        task,  # type: ignore[arg-type]
        ("no", HOSTILE) if outputs == 2 else (),
        module,
        features[250:],
        targets[250:] if known else None,
        features.mean(0),
        "the mean row",
        ("About.",),
        raw_table(held, fitted, partial(preprocessing.transform, fitted)),
    )
