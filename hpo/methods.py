"""Samplers and pruners, as a study file names them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from hpo.section import Section, Seed, Whole, unknown


def _require_name(schema: dict[str, Any]) -> None:
    # The default of `name` is for Python; in a study file the name says which section is meant.
    schema["required"] = ["name", *schema.get("required", [])]
    schema["properties"]["name"]["description"] = "Which one."


class _Method(Section):
    model_config = ConfigDict(json_schema_extra=_require_name)

    name: str


class _Seeded(_Method):
    seed: Seed | None = Field(None, description="Of the sampler; by default training.seed.")


class _Modelled(_Seeded):
    startup_trials: Whole = Field(10, ge=1, description="Random trials before the model is asked.")


class Tpe(_Modelled):
    """Tree-structured Parzen estimator (Bergstra et al., 2011)."""

    name: Literal["tpe"] = "tpe"
    multivariate: bool | None = Field(
        None, description="Model parameters jointly; Optuna decides by default."
    )


class Gp(_Modelled):
    """Gaussian process with expected improvement."""

    name: Literal["gp"] = "gp"


class RandomSearch(_Seeded):
    """Independent draws (Bergstra and Bengio, 2012), numbered: the same with any number of workers."""

    name: Literal["random"] = "random"


class Qmc(_Seeded):
    """Scrambled Sobol points, numbered: the same with any number of workers."""

    name: Literal["qmc"] = "qmc"


class Grid(_Method):
    """Every combination once; `trials` must be their number."""

    name: Literal["grid"] = "grid"


class _Epochs(_Method):
    min_epochs: Whole = Field(1, ge=1, description="Epochs that every trial trains.")


class Median(_Epochs):
    """Prunes below the median of the trials so far at the same epoch."""

    name: Literal["median"] = "median"
    startup_trials: Whole = Field(5, ge=0, description="Finished trials before the first is pruned.")
    min_epochs: Whole = Field(5, ge=1, description="Epochs that every trial trains.")


class Asha(_Epochs):
    """Asynchronous successive halving (Li et al., 2020)."""

    name: Literal["asha"] = "asha"
    reduction_factor: Whole = Field(4, ge=2, description="One in so many trials goes on at each rung.")


class Hyperband(_Epochs):
    """Successive halving with several values of min_epochs (Li et al., 2018)."""

    name: Literal["hyperband"] = "hyperband"
    reduction_factor: Whole = Field(3, ge=2, description="One in so many trials goes on at each rung.")


class Patient(_Method):
    """Prunes a trial that has not improved for `patience` epochs."""

    name: Literal["patient"] = "patient"
    patience: Whole = Field(5, ge=1, description="Epochs without an improvement.")
    min_delta: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="What counts as an improvement, in the metric's unit."
    )


class NoPruner(_Method):
    """Every trial trains to its end."""

    name: Literal["none"] = "none"


SamplerName = Literal["tpe", "gp", "random", "qmc", "grid"]
PrunerName = Literal["median", "asha", "hyperband", "patient", "none"]

SAMPLERS: dict[str, type[_Method]] = {
    "tpe": Tpe,
    "gp": Gp,
    "random": RandomSearch,
    "qmc": Qmc,
    "grid": Grid,
}
PRUNERS: dict[str, type[_Method]] = {
    "median": Median,
    "asha": Asha,
    "hyperband": Hyperband,
    "patient": Patient,
    "none": NoPruner,
}


def _sampler(raw: Any) -> Any:
    return _named(raw, SAMPLERS)


def _pruner(raw: Any) -> Any:
    return _named("none" if raw is None else raw, PRUNERS)  # `pruner: null` and a bare `pruner:`


def _named(raw: Any, methods: dict[str, type[_Method]]) -> Any:
    """A name, or a mapping with one, as its section."""
    if isinstance(raw, _Method):
        return raw
    if not isinstance(raw, dict):
        raw, key = {"name": raw}, None
    else:
        key = "name"
    name = raw.get("name")
    if not isinstance(name, str) or name not in methods:
        raise unknown(name, list(methods), key)
    return methods[name].model_validate(raw)


Sampler = Annotated[
    Tpe | Gp | RandomSearch | Qmc | Grid,
    BeforeValidator(_sampler, json_schema_input_type=SamplerName | Tpe | Gp | RandomSearch | Qmc | Grid),
]
Pruner = Annotated[
    Median | Asha | Hyperband | Patient | NoPruner,
    BeforeValidator(
        _pruner, json_schema_input_type=PrunerName | Median | Asha | Hyperband | Patient | NoPruner
    ),
]
