"""What is explained: a model, and examples that it is explained on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.compose import ColumnTransformer
from torch import Tensor, nn

from hpo.config import Task
from hpo.data.prepared import Normalization
from hpo.errors import UsageError
from hpo.results.attribution import outputs_of


@dataclass(frozen=True)
class Column:
    """A column of the raw table."""

    name: str
    places: tuple[int, ...]
    """The network's inputs that are made of it: several of a category."""
    categorical: bool = False


@dataclass(frozen=True)
class RawTable:
    """The examples as they were before preprocessing, one row each, missing cells filled in."""

    frame: pd.DataFrame
    columns: tuple[Column, ...]
    """In the order of `frame`."""
    encode: Callable[[pd.DataFrame], Tensor]
    """To network inputs, [N, F] float32."""


@dataclass(frozen=True)
class Subject:
    """A model and the examples that it is explained on."""

    name: str
    task: Task
    classes: tuple[str, ...]
    """Empty for regression."""
    module: nn.Module
    """In evaluation mode. A regressor's outputs are in the target's unit."""
    features: Tensor
    """[N, *input_shape] float32, what the module reads; where it is."""
    targets: Tensor | None
    """[N] on the CPU, class indices or numbers; None where they are not known."""
    baseline: Tensor
    """[*input_shape]: an input in which there is nothing."""
    baseline_text: str
    """What it is, as part of a sentence."""
    about: tuple[str, ...]
    """Sentences: which model this is, and which examples."""
    table: RawTable | None = None
    """Of one-dimensional examples."""
    normalization: Normalization | None = None
    """Of images: to undo it for drawing."""
    outputs: Tensor = field(init=False)
    """[N, C] on the CPU."""

    def __post_init__(self) -> None:
        if not 1 <= self.features.ndim - 1 <= 3:
            raise UsageError(
                f"{self.name}: its examples have the shape {list(self.features.shape[1:])}; explained are "
                "tables, and images of [height, width] or [channels, height, width]"
            )
        try:
            outputs = outputs_of(self.module, self.features)
        except RuntimeError as error:
            raise UsageError(f"{self.name}: the model does not run on these examples: {error}") from error
        object.__setattr__(self, "outputs", outputs)

    @property
    def classification(self) -> bool:
        return self.task == "classification"

    @property
    def outputs_named(self) -> tuple[str, ...]:
        """What the network's outputs are called."""
        return self.classes or ("the predicted value",)

    @property
    def predicted(self) -> Tensor:
        """[N]: class indices, or numbers."""
        return self.outputs.argmax(1) if self.classification else self.outputs[:, 0]

    @property
    def probabilities(self) -> Tensor:
        """[N, C] of classes."""
        return self.outputs.softmax(1)

    @property
    def truth(self) -> Tensor:
        """[N]: the targets; where they are not known, what the model says."""
        return self.predicted if self.targets is None else self.targets

    @property
    def groups(self) -> Tensor:
        """[N], the output that each example belongs to: of its class, or of all numbers the one there is."""
        return (
            self.truth.long() if self.classification else torch.zeros(len(self.features), dtype=torch.int64)
        )


class InUnit(nn.Module):
    """A regressor that answers in the target's own unit."""

    def __init__(self, module: nn.Module, mean: float, scale: float) -> None:
        super().__init__()
        self.module, self.mean, self.scale = module, mean, scale

    def forward(self, inputs: Tensor) -> Tensor:
        """[N, *input_shape] → [N, 1]"""
        outputs: Tensor = self.module(inputs) * self.scale + self.mean
        return outputs


def spread(targets: Tensor, most: int, seed: int = 0) -> Tensor:
    """Indices, ascending, of at most `most` examples, drawn evenly from all classes.

    targets: [N] int64; all equal where there are no classes.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    rank = torch.zeros(len(targets))
    for kind in set(targets.tolist()):
        members = order[targets[order] == kind]
        rank[members] = torch.arange(len(members), dtype=torch.float32)
    chosen = order[torch.argsort(rank[order], stable=True)][:most]
    return chosen.sort().values


def background(images: Tensor) -> Tensor:
    """What counts as nothing in pictures: in each channel the median pixel of their borders.

    images: [N, C, H, W] or [N, H, W] → [*image shape]
    """
    edges = torch.cat(
        [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]], dim=-1
    )  # [N, C, 2 (H + W)]
    middle = edges.movedim(0, -1).flatten(-2).median(-1).values
    return middle[..., None, None].expand(images.shape[1:]).contiguous()


def raw_table(features: Any, fitted: Any, encode: Callable[[Any], Tensor], layout: Any = None) -> RawTable:
    """The raw rows of a table, with where their columns go.

    features: DataFrame with named columns, or [N, F]. fitted: what transforms them, from
    `hpo.data.preprocessing.fit`. layout: another one, whose one-hot columns `encode` makes.
    """
    if not isinstance(features, pd.DataFrame):
        values = np.asarray(features, dtype=np.float64)
        filled = fitted[0].transform(values)
        frame = pd.DataFrame(filled, columns=[f"column {index}" for index in range(values.shape[1])])
        columns = tuple(Column(str(name), (index,)) for index, name in enumerate(frame))
        return RawTable(frame, columns, lambda some: encode(some.to_numpy()))
    frame = _filled(features, fitted)
    places: dict[str, tuple[int, ...]] = {}
    at = 0
    for kind, width, name in _widths(layout or fitted):
        places[name] = tuple(range(at, at + width))
        at += width
        del kind
    names = [name for name in frame if name in places]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in names]
    columns = tuple(
        Column(str(name), places[name], not number) for name, number in zip(names, numeric, strict=True)
    )
    return RawTable(frame[names], columns, encode)


def _widths(fitted: ColumnTransformer) -> list[tuple[str, int, str]]:
    """(kind, network inputs, name) of each column, in the order of the network's inputs."""
    found = []
    for kind, pipeline, names in fitted.transformers_:
        if kind == "numeric":
            found += [(kind, 1, name) for name in names]
        elif kind == "categorical":
            sizes = map(len, pipeline[-1].categories_)
            found += [(kind, size, name) for name, size in zip(names, sizes, strict=True)]
    return found


def _filled(frame: pd.DataFrame, fitted: ColumnTransformer) -> pd.DataFrame:
    filled = frame.reset_index(drop=True).copy()
    for kind, pipeline, names in fitted.transformers_:
        if kind in {"numeric", "categorical"}:
            values = pipeline[0].transform(filled[names])
            for index, name in enumerate(names):
                filled[name] = values[:, index]
    return filled
