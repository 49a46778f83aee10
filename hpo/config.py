"""`StudyConfig`: what a study file says, typed. Reading the file and its mistakes is `hpo.studyfile`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from hpo.methods import Asha as Asha
from hpo.methods import Gp as Gp
from hpo.methods import Grid as Grid
from hpo.methods import Hyperband as Hyperband
from hpo.methods import Median as Median
from hpo.methods import NoPruner as NoPruner
from hpo.methods import Patient as Patient
from hpo.methods import Pruner, Sampler
from hpo.methods import Qmc as Qmc
from hpo.methods import RandomSearch as RandomSearch
from hpo.methods import Tpe as Tpe
from hpo.section import ChoiceOrList, Section, Seed, Whole, refusal
from hpo.sources import CsvData as CsvData
from hpo.sources import Data
from hpo.sources import FolderData as FolderData
from hpo.sources import IdxData as IdxData
from hpo.sources import ImageData as ImageData
from hpo.sources import SklearnData as SklearnData
from hpo.sources import Task as Task
from hpo.sources import TorchvisionData as TorchvisionData
from hpo.sources import UserData as UserData
from hpo.sources import data_model as data_model
from hpo.space import Parameter, Value

Metric = Literal["accuracy", "f1", "roc_auc", "loss", "rmse", "mae", "r2"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
Schedule = Literal["constant", "cosine", "one_cycle"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "on", "off"]
Direction = Literal["maximize", "minimize"]

DIRECTIONS: dict[Metric, Direction] = {
    "accuracy": "maximize",
    "f1": "maximize",
    "roc_auc": "maximize",
    "loss": "minimize",
    "rmse": "minimize",
    "mae": "minimize",
    "r2": "maximize",
}
TASKS: dict[Metric, Task | None] = {  # None: either
    "accuracy": "classification",
    "f1": "classification",
    "roc_auc": "classification",
    "loss": None,
    "rmse": "regression",
    "mae": "regression",
    "r2": "regression",
}


class Fraction(Section):
    """One validation part of this share of all rows, like `test_fraction`."""

    fraction: float = Field(
        0.15,
        gt=0,
        lt=1,
        description="Share of all rows to validate on; not counting a test set that the data come with.",
    )


class Folds(Section):
    """Cross-validation: a trial's value is the mean over its folds."""

    folds: Whole = Field(ge=2, le=50, description="How many parts take turns as the validation part.")


def _validation(raw: Any) -> Any:
    if isinstance(raw, Fraction | Folds):
        return raw
    if not isinstance(raw, dict):
        raise refusal("must be {fraction: …} or {folds: …}")
    return validation_model(raw).model_validate(raw)


def validation_model(raw: Mapping[Any, Any]) -> type[Section]:
    """What a validation with these keys is meant to be."""
    return Folds if "folds" in raw else Fraction


Validation = Annotated[
    Fraction | Folds, BeforeValidator(_validation, json_schema_input_type=Fraction | Folds)
]


class Hyperparameters(Section):
    """What every architecture is trained with; each may be searched, and these are the defaults."""

    batch_size: Whole = Field(64, ge=1, description="Examples in one step.")
    optimizer: Optimizer = Field("adam", description="As in torch.optim.")
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False, description="Step size of the optimizer.")
    weight_decay: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="L2 penalty; decoupled for adamw (as in torch.optim)."
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Of sgd and rmsprop.")
    nesterov: bool = Field(False, description="Of sgd with momentum.")
    schedule: Schedule = Field(
        "constant",
        description="Of the learning rate, step by step over all training.epochs, as in torch.optim.",
    )
    warmup: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Epochs in which the learning rate rises first; with one_cycle, 0 is 30 % of all.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of a training target that is spread over all classes."
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Of the moving average of the weights that is evaluated and exported; 0: none.",
    )
    shift: float = Field(
        0.0, ge=0, le=0.5, description="Training images are shifted by up to this share of their sides."
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="Training images are rotated by up to so many degrees."
    )
    scale: float = Field(
        0.0, ge=0, le=0.9, description="Training images are scaled by a factor of up to 1 ± this."
    )
    cutout: float = Field(
        0.0, ge=0, le=1, description="Share of the sides of a box that is blanked in training images."
    )
    horizontal_flip: bool = Field(False, description="Every other training image is mirrored, at random.")


AUGMENTATION = ("shift", "rotation", "scale", "cutout", "horizontal_flip")
"""Hyperparameters that distort the images of the training part; 0 and false leave them alone."""


class Training(Hyperparameters):
    """How a trial trains."""

    epochs: Whole = Field(30, ge=1, description="Epochs of a trial that is not pruned.")
    seed: Seed = Field(0, description="Of splits, initial weights, sample order, dropout, augmentation.")
    select: Literal["last", "best_epoch"] = Field(
        "last", description="A trial's value is its last epoch's, or its best one's."
    )
    precision: Precision = Field(
        "auto",
        description="What layers compute in; auto: bfloat16 for convolutions where the hardware has it.",
    )
    compile: Compile = Field(
        "auto",
        description="Whether torch.compile is used; auto: where it pays back within the study. "
        "off: nor are a GPU's steps recorded as CUDA graphs.",
    )


class Final(Section):
    """How the winner is chosen and tested."""

    top: Whole = Field(
        5, ge=1, le=100, description="Best trials that are re-evaluated on fresh splits; of images 2."
    )
    seeds: Whole = Field(
        10, ge=1, le=1000, description="Fresh seeds for each, and retrainings of the winner; of images 3."
    )


FINAL_OF_IMAGES = {"top": 2, "seeds": 3}
"""What a study of images does not say: each training takes minutes there, and its value varies less."""


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class WarmStart(Section):
    """Trials of an earlier study that are the first ones of this study."""

    study: str = Field(pattern=NAME, description="The earlier study's name, in the same database.")
    top: Whole = Field(10, ge=1, le=1000, description="So many of its best trials are tried first.")


class AtMost(Section):
    """An upper limit."""

    max: Whole = Field(ge=1, description="The largest number that is allowed.")


class Constraints(Section):
    """What a trial's network must satisfy; checked before it is trained."""

    parameters: AtMost | None = Field(None, description="Trained numbers of the network.")
    flops: AtMost | None = Field(
        None, description="Floating-point operations of the forward pass of one example."
    )

    @model_validator(mode="after")
    def _check(self) -> "Constraints":
        if self.parameters is None and self.flops is None:
            raise refusal("must have parameters: {max: …}, flops: {max: …} or both")
        return self


@dataclass(frozen=True)
class TrialSettings:
    """A trial's searched values over the configuration's defaults: all that its training depends on."""

    hyperparameters: Hyperparameters
    options: dict[str, Any]
    """For the architecture's builder, its `dropout` among them."""


class StudyConfig(Section):
    """A study file: a data set, an architecture and a search space."""

    name: str = Field(
        pattern=NAME,
        description="The study's name in the database: letters, digits, dots, dashes, underscores.",
    )
    data: Data = Field(description="What to learn from.")
    validation: Validation = Field(
        Fraction(fraction=0.15), description="What trials are compared on: one part, or folds in turn."
    )
    metric: Metric = Field("accuracy", description="What the search improves, on the validation part.")
    architecture: str = Field(
        "mlp", min_length=1, description="A name, or path/to/file.py:build for your own nn.Module."
    )
    options: dict[str, ChoiceOrList] = Field({}, description="Fixed options of the architecture.")
    search: dict[str, Parameter] = Field(
        min_length=1, description="What to search: keys of training, and options of the architecture."
    )
    training: Training = Field(Training(), description="How a trial trains, where it is not searched.")
    trials: Whole = Field(100, ge=1, le=1_000_000, description="How many trials; with hours, at most.")
    hours: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="No trial starts later than this after the first."
    )
    sampler: Sampler = Field(
        Tpe(), description="What proposes parameters: a name, or a mapping with its settings."
    )
    pruner: Pruner = Field(
        NoPruner(), description="What ends hopeless trials early: a name, or a mapping with its settings."
    )
    warm_start: WarmStart | None = Field(None, description="Begin with the best trials of an earlier study.")
    constraints: Constraints | None = Field(
        None, description="Limits of a trial's network; one beyond them is not trained."
    )
    final: Final = Field(
        default_factory=Final, validate_default=True, description="How the winner is chosen and tested."
    )

    _folder: Path = PrivateAttr(default=Path())

    @field_validator("final", mode="before")
    @classmethod
    def _suited_to_the_data(cls, raw: Any, info: ValidationInfo) -> Any:
        """Of the user's own arrays nobody knows yet whether they are images: for them it is as for tables."""
        data = info.data.get("data")  # not there if it has mistakes
        images = isinstance(data, ImageData) or (isinstance(data, SklearnData) and data.images)
        given = raw.model_dump(exclude_unset=True) if isinstance(raw, Final) else raw
        return FINAL_OF_IMAGES | given if images and isinstance(given, dict) else raw

    @property
    def folder(self) -> Path:
        """Where the study file lies; the paths in it are relative to this."""
        return self._folder

    def at(self, folder: Path) -> "StudyConfig":
        """The same configuration, its paths relative to `folder`."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    @property
    def direction(self) -> Direction:
        """Whether the metric is to grow or to shrink."""
        return DIRECTIONS[self.metric]

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.data.task or TASKS[self.metric] or self.data.inherent_task or "classification"

    @property
    def folds(self) -> int:
        """How many lanes a trial trains."""
        return self.validation.folds if isinstance(self.validation, Folds) else 1

    def chosen(self, values: Mapping[int, float]) -> float:
        """A trial's value from its epochs' values: the last one's, or with `select: best_epoch` the best."""
        if self.training.select == "last":
            return values[max(values)]
        return (max if self.direction == "maximize" else min)(values.values())

    def settings(self, params: Mapping[str, Value]) -> TrialSettings:
        """The defaults, overridden by a trial's `params`."""
        known = Hyperparameters.model_fields
        defaults = {name: getattr(self.training, name) for name in known}
        searched = {name: value for name, value in params.items() if name in known}
        options = {name: value for name, value in params.items() if name not in known}
        return TrialSettings(
            Hyperparameters.model_validate(defaults | searched), dict(self.options) | options
        )

    def digest(self) -> str:
        """SHA-256 of the resolved configuration."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
