"""Search spaces: the parameters of a study file and their Optuna distributions."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)

Value = bool | int | float | str
Number = Annotated[StrictInt | StrictFloat, Field(allow_inf_nan=False)]
Choice = StrictBool | StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)] | StrictStr
Condition = dict[str, Choice | list[Choice]]


class Range(BaseModel):
    """Numbers from `low` to `high`, both included; whole numbers where both ends are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: Number
    high: Number
    log: StrictBool = Field(False, description="Sample in the logarithmic domain.")
    step: Number | None = Field(None, description="Distance of neighbouring values.", gt=0)
    when: Condition | None = Field(None, description="Searched only when these parameters have these values.")

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, not {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step ({self.step}) must be at most high - low ({self.high - self.low})")
        return self

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

    def ends(self) -> list[Value]:
        """The values to check against what the parameter's owner accepts."""
        return [self.low, self.high]

    def grid(self) -> list[Value] | None:
        """All values, or None where they cannot be listed."""
        distribution = self.distribution()
        if isinstance(distribution, IntDistribution):
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        if distribution.step is None:
            return None
        count = round((distribution.high - distribution.low) / distribution.step) + 1
        return [distribution.low + index * distribution.step for index in range(count)]


class Choices(BaseModel):
    """One of the listed values."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choices: list[Choice] = Field(min_length=1)
    when: Condition | None = Field(None, description="Searched only when these parameters have these values.")

    @model_validator(mode="after")
    def _check(self) -> "Choices":
        # True == 1 in Python, so compare with types.
        keys = [(type(choice), choice) for choice in self.choices]
        repeated = [choice for (kind, choice) in keys if keys.count((kind, choice)) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]!r} is listed more than once")
        return self

    def distribution(self) -> CategoricalDistribution:
        """The Optuna distribution of these values."""
        return CategoricalDistribution(self.choices)

    def ends(self) -> list[Value]:
        """The values to check against what the parameter's owner accepts."""
        return list(self.choices)

    def grid(self) -> list[Value] | None:
        """All values."""
        return list(self.choices)


def _kind(raw: Any) -> Literal["choices", "range"]:
    if isinstance(raw, Choices) or (isinstance(raw, dict) and "choices" in raw):
        return "choices"
    return "range"


Parameter = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    Discriminator(_kind),
]
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
        ValueError: a parameter has a continuous range.
    """
    endless = [name for name, parameter in space.items() if parameter.grid() is None]
    if endless:
        raise ValueError(f"{', '.join(endless)}: a grid needs choices, whole numbers or a step")
    names = ordered(space)
    points: list[dict[str, Value]] = [{}]
    for name in names:
        points = list(itertools.chain.from_iterable(_extend(point, name, space[name]) for point in points))
    return points


def _extend(point: dict[str, Value], name: str, parameter: Range | Choices) -> Iterator[dict[str, Value]]:
    if not active(parameter, point):
        yield point
        return
    for value in parameter.grid() or []:
        yield {**point, name: value}
