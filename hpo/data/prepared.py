"""What the data room hands on: cleaned, split, transformed tensors; the test part sealed on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hpo.config import Task


@dataclass(frozen=True)
class Normalization:
    """What images are normalized by: a mean and a deviation (above 0) for each channel, of 0 to 255."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """Examples ready to train on or to evaluate.

    features: [N, *input_shape] float32. targets: [N] int64 class indices, or float32 for regression.
    """

    features: Tensor
    targets: Tensor
    rows: Tensor | None = None
    """Of images: [N] int64, those of `features` that are this part's. Then `features` are the images of all
    of train + validation, [R, channels, height, width] uint8, which all parts share, not normalized."""

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Fold:
    """A training part, and the validation part transformed by statistics of that training part alone.

    Regression targets of both parts stay in their own unit; `target_mean` and `target_scale` (0 and 1 for
    classification) are the training part's, for a network that learns standardized targets.
    """

    train: Part
    validation: Part
    target_mean: float = 0.0
    target_scale: float = 1.0
    normalization: Normalization | None = None
    """For images: of the training part, for `features` of both parts."""


@dataclass(frozen=True)
class Finding:
    """Something that was noticed in the raw data, in one sentence."""

    kind: str
    """unparsable, zero, blank, empty, constant, duplicate, dropped, imputed, categories, row_number, rare;
    of images: duplicate, classes, unreadable, resized, unused"""
    text: str


@dataclass(frozen=True)
class PreparedData:
    """A data set as the search sees it."""

    fingerprint: str
    """SHA-256 of the raw content and of all configuration that shapes the parts."""
    task: Task
    classes: tuple[str, ...]
    """Class names by index; empty for regression."""
    input_shape: tuple[int, ...]
    feature_names: tuple[str, ...]
    """Of the raw columns; empty for arrays without names."""
    sizes: dict[str, int]
    """Rows: raw, train, validation (of the first fold), test."""
    folds: tuple[Fold, ...]
    """One, when validation is a fraction."""
    findings: tuple[Finding, ...]
    cache: Path
    """The folder that holds the parts, among them the sealed test set."""
    test_counts: tuple[int, ...] = ()
    """Test rows of each class, counted as they were sealed; empty for regression, and where the cache is
    older than these counts."""

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return len(self.classes) if self.task == "classification" else 1


@dataclass(frozen=True)
class FinalTraining:
    """All of train + validation, for retraining the winner; the test part stays sealed."""

    train: Part
    preprocessing: Any
    """The fitted scikit-learn transformer (raw columns → features), for the test part and for skops.

    It takes a DataFrame of the raw columns; an array [N, F] where they have no names, and images likewise,
    flattened.
    """
    target_mean: float = 0.0
    target_scale: float = 1.0
    normalization: Normalization | None = None
