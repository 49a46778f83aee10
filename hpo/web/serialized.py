"""A trial as the page takes it.

The same as `optuna_dashboard._serializer.serialize_frozen_trial` comes to (a test compares), in less time:
that asks NumPy of each single value whether it is finite, and describes each distribution anew.
"""

import json
import math
from functools import lru_cache
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from optuna_dashboard._serializer import serialize_attrs, serialize_distribution

NO_NOTE = (0, "")
"""A note's version and text."""


def trial_json(study_id: int, trial: FrozenTrial, note: tuple[int, str], full: bool) -> str:
    """JSON of a readable trial; `full` with its intermediate values."""
    fixed = trial.system_attrs.get("fixed_params", {})
    serialized: dict[str, Any] = {
        "trial_id": trial._trial_id,
        "study_id": study_id,
        "number": trial.number,
        "state": trial.state.name.capitalize(),
        "fixed_params": [{"name": name, "param_external_value": str(value)} for name, value in fixed.items()],
        "user_attrs": serialize_attrs(trial.user_attrs),
        "note": {"version": note[0], "body": note[1]},
        "artifacts": [],
        "constraints": trial.system_attrs.get("constraints", []),
        "intermediate_values": _steps(trial) if full else [],
    }
    if trial.values is not None:
        serialized["values"] = list(map(_short, trial.values))
    if trial.datetime_start is not None:
        serialized["datetime_start"] = trial.datetime_start.isoformat()
    if trial.datetime_complete is not None:
        serialized["datetime_complete"] = trial.datetime_complete.isoformat()
    params = ", ".join(_param(name, value, trial.distributions[name]) for name, value in trial.params.items())
    return f'{json.dumps(serialized, allow_nan=False)[:-1]}, "params": [{params}]}}'


def _steps(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {"step": step, "value": _short(value)} for step, value in sorted(trial.intermediate_values.items())
    ]


def _param(name: str, value: Any, distribution: BaseDistribution) -> str:
    internal = _short(distribution.to_internal_repr(value))
    serialized = {
        "name": name,
        "param_internal_value": internal,
        "param_external_value": str(_short(value)),
        "param_external_pytyp": str(type(value)),
    }
    return f'{json.dumps(serialized, allow_nan=False)[:-1]}, "distribution": {_described(distribution)}}}'


@lru_cache(maxsize=4096)
def _described(distribution: BaseDistribution) -> str:
    return json.dumps(serialize_distribution(distribution), allow_nan=False)


def _short(value: Any) -> Any:
    """A number to as many digits as a page can show; as text where JSON has no such number."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
