"""`StudyConfig`: what a study file says, typed. Reading the file and its mistakes is `hpo.studyfile`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, PrivateAttr, Tag

from hpo.space import Choice, Parameter, Value
from hpo.usercode import is_user_function

Task = Literal["classification", "regression"]
Metric = Literal["accuracy", "f1", "roc_auc", "loss", "rmse", "mae", "r2"]
Optimizer = Literal["adam", "adamw", "rmsprop", "sgd"]
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


class Section(BaseModel):
    """A part of a study file: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Data(Section):
    test_fraction: float = Field(0.15, gt=0, lt=1, description="Share of all rows sealed as the test set.")
    task: Task | None = Field(
        None, description="What is predicted; by default as the metric says, and classification for loss."
    )


class CsvData(_Data):
    """A table in a text file with a header line."""

    source: Literal["csv"]
    path: str = Field(min_length=1, description="Relative to the study file.")
    target: str = Field(min_length=1, description="The column to predict.")
    delimiter: str | None = Field(None, min_length=1, max_length=1, description="Found by itself by default.")
    missing: Literal["drop", "median", "mean", "most_frequent"] = Field(
        "median", description="Rows with missing cells are dropped, or the cells are filled in."
    )
    zero_is_missing: list[str] = Field([], description="Numeric columns in which 0 means missing.")
    categorical: list[str] = Field([], description="Columns of categories, even if their cells are numbers.")
    ignore: list[str] = Field([], description="Columns to leave out, such as row numbers.")


class SklearnData(_Data):
    """A data set that ships with scikit-learn."""

    source: Literal["sklearn"]
    name: Literal["breast_cancer", "wine", "digits", "iris", "diabetes"]


class UserData(_Data):
    """The user's own arrays: `load(**options)` returns `(features, targets)`."""

    source: str = Field(pattern=r"^.+\.py:[A-Za-z_]\w*$", description="path/to/file.py:load")
    options: dict[str, Any] = Field({}, description="Keyword arguments for the function.")


def _data_kind(raw: Any) -> str | None:
    source = raw.get("source") if isinstance(raw, dict) else getattr(raw, "source", None)
    if isinstance(source, str) and is_user_function(source):
        return "file.py:load"
    return source if isinstance(source, str) and source in {"csv", "sklearn"} else None


Data = Annotated[
    Annotated[CsvData, Tag("csv")]
    | Annotated[SklearnData, Tag("sklearn")]
    | Annotated[UserData, Tag("file.py:load")],
    Discriminator(_data_kind),
]


class Fraction(Section):
    """One validation part of this share of all rows, like `test_fraction`."""

    fraction: float = Field(0.15, gt=0, lt=1)


class Folds(Section):
    """Cross-validation: a trial's value is the mean over its folds."""

    folds: int = Field(ge=2, le=50)


def _validation_kind(raw: Any) -> str:
    return "folds" if isinstance(raw, Folds) or (isinstance(raw, dict) and "folds" in raw) else "fraction"


Validation = Annotated[
    Annotated[Fraction, Tag("fraction")] | Annotated[Folds, Tag("folds")], Discriminator(_validation_kind)
]


class Hyperparameters(Section):
    """What every architecture is trained with; each may be searched, and these are the defaults."""

    batch_size: int = Field(64, ge=1)
    optimizer: Optimizer = "adam"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="L2 penalty; decoupled for adamw (as in torch.optim)."
    )
    momentum: float = Field(0.0, ge=0, lt=1, description="Of sgd and rmsprop.")
    nesterov: bool = Field(False, description="Of sgd.")


class Training(Hyperparameters):
    """How a trial trains."""

    epochs: int = Field(30, ge=1)
    seed: int = Field(0, ge=0, lt=2**31)
    select: Literal["last", "best_epoch"] = Field(
        "last", description="A trial's value is its last epoch's, or its best one's."
    )


class _Seeded(Section):
    name: str
    seed: int | None = Field(None, ge=0, lt=2**31, description="training.seed by default.")


class Tpe(_Seeded):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"
    startup_trials: int = Field(10, ge=1, description="Random trials before the model is asked.")
    multivariate: bool | None = Field(
        None, description="Model parameters jointly; Optuna decides by default."
    )


class Gp(_Seeded):
    """Gaussian process with expected improvement."""

    name: Literal["gp"] = "gp"
    startup_trials: int = Field(10, ge=1, description="Random trials before the model is asked.")


class RandomSearch(_Seeded):
    """Independent draws (Bergstra and Bengio, 2012), numbered: the same with any number of workers."""

    name: Literal["random"] = "random"


class Qmc(_Seeded):
    """Scrambled Sobol points, numbered: the same with any number of workers."""

    name: Literal["qmc"] = "qmc"


class Grid(Section):
    """Every combination once; `trials` must be their number."""

    name: Literal["grid"] = "grid"


class Median(Section):
    """Prunes below the median of the trials so far at the same epoch."""

    name: Literal["median"] = "median"
    startup_trials: int = Field(5, ge=0, description="Finished trials before the first is pruned.")
    min_epochs: int = Field(5, ge=1, description="Epochs that every trial trains.")


class Asha(Section):
    """Asynchronous successive halving (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    min_epochs: int = Field(1, ge=1, description="Epochs that every trial trains.")
    reduction_factor: int = Field(4, ge=2, description="One in so many trials goes on at each rung.")


class Hyperband(Section):
    """Successive halving with several values of min_epochs (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    min_epochs: int = Field(1, ge=1, description="Epochs that every trial trains.")
    reduction_factor: int = Field(3, ge=2, description="One in so many trials goes on at each rung.")


class Patient(Section):
    """Prunes a trial that has not improved for `patience` epochs."""

    name: Literal["patient"] = "patient"
    patience: int = Field(5, ge=1)
    min_delta: float = Field(0.0, ge=0, allow_inf_nan=False)


class NoPruner(Section):
    """Every trial trains to its end."""

    name: Literal["none"] = "none"


def _named(raw: Any) -> Any:
    return {"name": raw} if isinstance(raw, str) else raw


def _name(raw: Any) -> Any:
    return raw.get("name") if isinstance(raw, dict) else getattr(raw, "name", None)


Sampler = Annotated[
    Annotated[Tpe, Tag("tpe")]
    | Annotated[Gp, Tag("gp")]
    | Annotated[RandomSearch, Tag("random")]
    | Annotated[Qmc, Tag("qmc")]
    | Annotated[Grid, Tag("grid")],
    Discriminator(_name),
    BeforeValidator(_named, json_schema_input_type=str | dict[str, Any]),
]
Pruner = Annotated[
    Annotated[Median, Tag("median")]
    | Annotated[Asha, Tag("asha")]
    | Annotated[Hyperband, Tag("hyperband")]
    | Annotated[Patient, Tag("patient")]
    | Annotated[NoPruner, Tag("none")],
    Discriminator(_name),
    BeforeValidator(_named, json_schema_input_type=str | dict[str, Any]),
]


class Final(Section):
    """How the winner is chosen and tested."""

    top: int = Field(
        5, ge=1, le=100, description="Best trials that are re-evaluated with fresh seeds and splits."
    )
    seeds: int = Field(10, ge=1, le=1000, description="Fresh seeds for each, and retrainings of the winner.")


@dataclass(frozen=True)
class TrialSettings:
    """A trial's searched values over the configuration's defaults: all that its training depends on."""

    hyperparameters: Hyperparameters
    options: dict[str, Any]
    """For the architecture's builder, its `dropout` among them."""


class StudyConfig(Section):
    """A study file: a data set, an architecture and a search space."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
        description="The study's name in the database: letters, digits, dots, dashes, underscores.",
    )
    data: Data
    validation: Validation = Fraction(fraction=0.15)
    metric: Metric = "accuracy"
    architecture: str = Field("mlp", description="A name, or path/to/file.py:build for your own nn.Module.")
    options: dict[str, Choice | list[Choice]] = Field({}, description="Fixed options of the architecture.")
    search: dict[str, Parameter] = Field(min_length=1)
    training: Training = Training()
    trials: int = Field(100, ge=1, le=1_000_000)
    hours: float | None = Field(None, gt=0, description="No trial starts later than this after the first.")
    sampler: Sampler = Tpe()
    pruner: Pruner = NoPruner()
    final: Final = Final()

    _folder: Path = PrivateAttr(default=Path())

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
        inherent: Task = "regression" if is_sklearn_regression(self.data) else "classification"
        return self.data.task or TASKS[self.metric] or inherent

    @property
    def folds(self) -> int:
        """How many lanes a trial trains."""
        return self.validation.folds if isinstance(self.validation, Folds) else 1

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


def is_sklearn_regression(data: object) -> bool:
    """Whether `data` is a data set of scikit-learn with a number to predict."""
    return isinstance(data, SklearnData) and data.name == "diabetes"
