"""Trials and attributes as people can read them, and nothing in them that would break the page.

Values that are not finite, or of a kind that optuna-dashboard does not expect, make it answer 500 for the
whole study, for ever. So they are put right here, in what is shown, whatever is stored.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

LONGEST = 2000
"""Characters of an attribute."""


def readable_trial(trial: FrozenTrial) -> FrozenTrial:
    """A copy to show. A complete trial without a finite value counts as failed (P7)."""
    shown = copy.copy(trial)
    shown.user_attrs = readable_attrs(trial.user_attrs)
    named = {
        name: found for name, found in trial.distributions.items() if _drawable(found, trial.params[name])
    }
    shown.distributions = named
    shown.params = {name: trial.params[name] for name in named}
    shown.system_attrs = _system_attrs(trial.system_attrs)
    values = trial.values
    if values is not None and not all(map(math.isfinite, values)):
        shown.values = None
        shown.user_attrs["stored value"] = ", ".join(map(str, values))
    if trial.state == TrialState.COMPLETE and shown.values is None:
        shown.state = TrialState.FAIL
    return shown


def readable_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as numbers and text; figures to as many digits as tell something."""
    return {str(name): _readable(value) for name, value in attrs.items()}


def _readable(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value if isinstance(value, int) else in_words(value)


def in_words(value: Any) -> str:
    """A value in one line, lists and mappings without brackets around them."""
    if isinstance(value, Mapping):
        words = ", ".join(f"{key}: {_nested(item)}" for key, item in value.items() if item is not None)
    elif isinstance(value, list | tuple):
        words = ", ".join(map(_nested, value))
    else:
        words = "" if value is None else str(value)
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _nested(value: Any) -> str:
    return f"({in_words(value)})" if isinstance(value, Mapping | list | tuple) else str(_readable(value))


def _drawable(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return True
    bounds = (distribution.low, distribution.high)  # type: ignore[attr-defined]
    return all(math.isfinite(number) for number in (*bounds, value))


def _system_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the page shows: what a trial was enqueued with, and its constraints."""
    kept: dict[str, Any] = {}
    if isinstance(fixed := attrs.get("fixed_params"), Mapping):
        kept["fixed_params"] = dict(fixed)
    constraints = attrs.get("constraints")
    if isinstance(constraints, list | tuple) and all(_finite(value) for value in constraints):
        kept["constraints"] = list(constraints)
    return kept


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
