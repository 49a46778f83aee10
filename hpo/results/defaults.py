"""The configuration's defaults: what a study would train if it searched nothing."""

from typing import Any

from hpo.config import StudyConfig
from hpo.options import options_of
from hpo.space import Choices, Range, Value, active, ordered


def defaults(config: StudyConfig) -> dict[str, Value]:
    """A value for each searched parameter that is active: its default, or what in the space is nearest to it.

    The default of a hyperparameter is the study's under `training`, that of an option its builder's. Of
    choices that are no numbers the first stands for a default that is not among them. An option without a
    default takes the middle of its range, or its first choice.

    Raises:
        UserCodeError: the user's builder cannot be loaded.
    """
    own: dict[str, Any] = dict(config.training)
    own |= {
        name: value
        for name, value in options_of(config.architecture, config.folder).defaults.items()
        if name not in own
    }
    values: dict[str, Value] = {}
    for name in ordered(config.search):
        parameter = config.search[name]
        if active(parameter, values):
            default = own.get(name)
            values[name] = (
                _choice(parameter, default) if isinstance(parameter, Choices) else _number(parameter, default)
            )
    return values


def _choice(parameter: Choices, default: Any) -> Value:
    for choice in parameter.choices:
        if choice == default and isinstance(choice, bool) == isinstance(default, bool):
            return choice
    numbers = [choice for choice in parameter.choices if _is_number(choice)]
    if _is_number(default) and numbers:
        return min(numbers, key=lambda choice: abs(choice - default))
    return parameter.choices[0]


def _number(parameter: Range, default: Any) -> Value:
    low, high = float(parameter.low), float(parameter.high)
    wanted = float(default) if _is_number(default) else _middle(low, high, parameter.log)
    inside = min(max(wanted, low), high)
    if parameter.step:
        inside = min(high, low + round((inside - low) / parameter.step) * parameter.step)
    return round(inside) if parameter.integer else inside


def _middle(low: float, high: float, log: bool) -> float:
    return float((low * high) ** 0.5) if log else (low + high) / 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
