"""Search spaces: the parameters of a study file and their Optuna distributions."""

import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from hpo.errors import MISSING
from hpo.section import Choice as Choice
from hpo.section import ChoiceOrList, Number, Section, refusal, refusals
from hpo.section import Value as Value

Step = Annotated[Number, Field(gt=0), WithJsonSchema({"type": "number", "exclusiveMinimum": 0})]
Condition = dict[str, ChoiceOrList]

LISTABLE = 1_000_000
"""A parameter with more values than this, or a grid of more points, is not listed: it would fill memory."""

_WHEN = "Searched only when these other searched parameters have these values (one, or a list of them)."


class Range(Section):
    """Numbers from `low` to `high`, both included; whole numbers where both ends are."""

    low: Number = Field(description="The smallest value.")
    high: Number = Field(description="The largest value.")
    log: bool = Field(False, description="Sample in the logarithmic domain.")
    step: Step | None = Field(None, description="Distance of neighbouring values.")
    when: Condition | None = Field(None, description=_WHEN)

    @model_validator(mode="after")
    def _check(self) -> "Range":
        mistakes = [*self._wrong_ends(), *self._wrong_step()]
        if mistakes:
            raise refusals(mistakes)
        return self

    def _wrong_ends(self) -> Iterator[tuple[str, object, str]]:
        if self.low >= self.high:
            yield "low", self.low, f"must be below high ({self.high})"
        elif not math.isfinite(float(self.high) - float(self.low)):
            yield "high", self.high, "must be less far from low than the largest double precision number"
        if self.log and self.low <= 0:
            yield "low", self.low, "must be above 0 with log: true"

    def _wrong_step(self) -> Iterator[tuple[str, object, str]]:
        if self.step is None or self.low >= self.high:
            return
        span = _exact(self.high) - _exact(self.low)
        if self.log:
            yield "step", MISSING, "excludes log: true"
        elif self.step > span:
            yield "step", self.step, f"must be at most high - low ({span})"
        elif span % _exact(self.step):  # Optuna would lower `high` with a warning
            yield "step", self.step, f"must divide high - low ({span})"

    @property
    def integer(self) -> bool:
        """Whether low, high and step are all whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 0))

    def distribution(self) -> FloatDistribution | IntDistribution:
        """The Optuna distribution of these values."""
        if self.integer:
            step = 1 if self.step is None else int(self.step)
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=step)
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def ends(self) -> dict[str, Value]:
        """The values to check against what the parameter's owner accepts, by key."""
        return {"low": self.low, "high": self.high}

    def mapped(self, change: Callable[[Value], Any]) -> "Range":
        """The same with each number changed."""
        step = None if self.step is None else change(self.step)
        return self.model_copy(update={"low": change(self.low), "high": change(self.high), "step": step})

    def grid(self) -> list[Value] | None:
        """All values, or None where they cannot be listed."""
        if not self.integer and self.step is None:
            return None
        low, step = _exact(self.low), _exact(self.step or 1)
        count = int((_exact(self.high) - low) / step) + 1
        if count > LISTABLE:
            return None
        kind = int if self.integer else float
        return [kind(low + index * step) for index in range(count)]


class Choices(Section):
    """One of the listed values."""

    choices: list[Choice] = Field(min_length=1, description="The values, each once.")
    when: Condition | None = Field(None, description=_WHEN)

    @model_validator(mode="after")
    def _check(self) -> "Choices":
        # Optuna finds a choice by `==`, for which 1, 1.0 and true are one value.
        repeated = [
            (f"choices[{index}]", choice, f"must differ from choices[{self.choices.index(choice)}]")
            for index, choice in enumerate(self.choices)
            if choice in self.choices[:index]
        ]
        if repeated:
            raise refusals(list(repeated))
        return self

    def distribution(self) -> CategoricalDistribution:
        """The Optuna distribution of these values."""
        return CategoricalDistribution(self.choices)

    def ends(self) -> dict[str, Value]:
        """The values to check against what the parameter's owner accepts, by key."""
        return {f"choices[{index}]": choice for index, choice in enumerate(self.choices)}

    def mapped(self, change: Callable[[Value], Any]) -> "Choices":
        """The same with each choice changed."""
        return self.model_copy(update={"choices": [change(choice) for choice in self.choices]})

    def grid(self) -> list[Value] | None:
        """All values."""
        return list(self.choices)


def _exact(number: int | float) -> Decimal:
    """As it is written: 0.3 is three times 0.1."""
    return Decimal(str(number))


def _parameter(raw: Any) -> Range | Choices:
    if isinstance(raw, Range | Choices):
        return raw
    if not isinstance(raw, dict):
        raise refusal("must be {low: …, high: …} or {choices: […]}")
    return parameter_kind(raw).model_validate(raw)


def parameter_kind(raw: Mapping[Any, Any]) -> type[Range] | type[Choices]:
    """What a parameter with these keys is meant to be."""
    return Choices if "choices" in raw else Range


Parameter = Annotated[Range | Choices, BeforeValidator(_parameter, json_schema_input_type=Range | Choices)]
Space = Mapping[str, Range | Choices]


class Suggests(Protocol):
    """What `suggest` needs of an Optuna trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None, log: bool
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


def ordered(space: Space) -> list[str]:
    """Parameter names, each after those that its condition names.

    Raises:
        ValueError: conditions form a circle; names are those in it.
    """
    order: list[str] = []
    remaining = list(space)
    while remaining:
        free = [name for name in remaining if not set(space[name].when or {}) & set(remaining)]
        if not free:
            raise ValueError(f"the conditions of {', '.join(remaining)} form a circle")
        order += free
        remaining = [name for name in remaining if name not in free]
    return order


def active(parameter: Range | Choices, values: Mapping[str, Value]) -> bool:
    """Whether `parameter` is searched when its ancestors have these `values`."""
    return all(
        name in values and values[name] in (wanted if isinstance(wanted, list) else [wanted])
        for name, wanted in (parameter.when or {}).items()
    )


def suggest(trial: Suggests, space: Space) -> dict[str, Value]:
    """Ask `trial` for a value of each active parameter of `space`."""
    values: dict[str, Value] = {}
    for name in ordered(space):
        parameter = space[name]
        if active(parameter, values):
            values[name] = _suggest_one(trial, name, parameter.distribution())
    return values


def _suggest_one(trial: Suggests, name: str, distribution: BaseDistribution) -> Value:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, CategoricalDistribution)
    value: Value = trial.suggest_categorical(name, distribution.choices)
    return value


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The Optuna distribution of each parameter."""
    return {name: parameter.distribution() for name, parameter in space.items()}


def grid(space: Space) -> list[dict[str, Value]]:
    """Every combination of values, conditional parameters only where they are active.

    Raises:
        ValueError: a parameter has a continuous range, or there are more than a million points.
    """
    endless = [name for name, parameter in space.items() if parameter.grid() is None]
    if endless:
        raise ValueError(f"{', '.join(endless)}: a grid needs choices, whole numbers or a step")
    points = list(islice(_points(space, ordered(space), {}), LISTABLE + 1))
    if len(points) > LISTABLE:
        raise ValueError(f"a grid of more than {LISTABLE} points")
    return points


def _points(space: Space, names: list[str], point: dict[str, Value]) -> Iterator[dict[str, Value]]:
    """All points that agree with `point` and differ in `names`, the last name changing fastest."""
    if not names:
        yield point
        return
    name, *others = names
    if not active(space[name], point):
        yield from _points(space, others, point)
        return
    for value in space[name].grid() or []:
        yield from _points(space, others, {**point, name: value})
