"""Warm start: the best trials of an earlier study, as the first trials of a new one.

They are trained again, so that their values are this study's own and its sampler learns from them. What a
trial of the earlier study was trained with is taken over by name, also what was fixed there and is searched
now; what is not in the new space is left to the sampler.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from hpo import methods
from hpo.config import StudyConfig
from hpo.errors import UsageError, brief
from hpo.options import options_of
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.studies import Studies
from hpo.space import Space, Value, active, grid, ordered

log = structlog.get_logger()


@dataclass
class Translated:
    """One earlier trial in a new space."""

    params: dict[str, Value] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """Which values are not taken over, and why."""


def beginning(studies: Studies, config: StudyConfig, earlier: StudyRecord, old: StudyConfig) -> list[Any]:
    """The trials that a study begins with, as JSON: their numbers and values there, and parameters here.

    Args:
        studies: Where both studies are.
        config: Of the new study, which has a `warm_start`.
        earlier: The study that this names.
        old: The earlier study's configuration.

    Raises:
        UsageError: the earlier study had another metric, or nothing of it can be taken over.
    """
    assert config.warm_start is not None
    if old.metric != config.metric:
        raise UsageError(
            f"warm_start.study: study {old.name!r} was searched for {old.metric}, this one is for "
            f"{config.metric}: the best trials of the one need not be good for the other"
        )
    trials = _ranked(read_trials(studies.database, earlier.study_id), config)
    if not trials:
        raise UsageError(f"warm_start.study: study {old.name!r} has no complete trial to begin with")
    most = min(config.warm_start.top, config.trials)
    chosen = _chosen(config, old, trials, most)
    if not chosen:
        raise UsageError(
            f"warm_start.study: study {old.name!r} has no trial with a value in this study's space; it "
            f"searched {', '.join(old.search)}, this one searches {', '.join(config.search)}"
        )
    log.info("the search begins with trials of an earlier study", study=old.name, trials=len(chosen))
    return chosen


def _ranked(trials: Sequence[FrozenTrial], config: StudyConfig) -> list[FrozenTrial]:
    """Those with a value, best first."""
    sign = -1 if config.direction == "maximize" else 1
    valued = [
        (sign * trial.values[0], trial.number, trial)
        for trial in trials
        if trial.state == TrialState.COMPLETE and trial.values and math.isfinite(trial.values[0])
    ]
    return [trial for _, _, trial in sorted(valued, key=lambda found: found[:2])]


def _chosen(
    config: StudyConfig, old: StudyConfig, trials: Sequence[FrozenTrial], most: int
) -> list[dict[str, Any]]:
    """The first `most` of `trials` that differ in this study's space."""
    points = grid(config.search) if isinstance(config.sampler, methods.Grid) else None
    chosen: list[dict[str, Any]] = []
    known: set[str] = set()
    for trial in trials:
        if len(chosen) == most:
            break
        found = translated(config.search, used(config, old, trial.params), trial.params)
        params = found.params
        if params and points is not None:
            params = _take_point(points, params)
        key = repr(sorted(params.items()))
        if key in known:
            continue
        for reason in found.left_out:
            log.warning(f"warm start: of trial {trial.number} of study {old.name!r}, {reason}")
        if params:
            known.add(key)
            chosen.append({"number": trial.number, "value": trial.values[0], "params": params})
    return chosen


def _take_point(points: list[dict[str, Value]], params: Mapping[str, Value]) -> dict[str, Value]:
    """The first point of the grid with these values, no longer among `points`; {} where there is none."""
    for index, point in enumerate(points):
        if all(name in point and _same(point[name], value) for name, value in params.items()):
            return points.pop(index)
    return {}


def used(config: StudyConfig, old: StudyConfig, params: Mapping[str, Value]) -> dict[str, Any]:
    """All that a trial of the earlier study was trained with, by name."""
    settings = old.settings(params)
    same = old.architecture == config.architecture
    defaults = options_of(old.architecture, old.folder).defaults if same else {}
    options = settings.options if same else {}
    return {**settings.hyperparameters.model_dump(), **defaults, **options, **params}


def translated(space: Space, values: Mapping[str, Any], searched: Mapping[str, Value]) -> Translated:
    """What of `values` can be had in `space`; of those that were `searched` it is told if they cannot."""
    found = Translated()
    for name in searched:
        if name not in space:
            found.left_out.append(f"{name} {brief(searched[name])} is left out: it is not searched here")
    absent: set[str] = set()
    for name in ordered(space):
        parents = (space[name].when or {}).keys()
        decided = all(parent in found.params or parent in absent for parent in parents)
        if decided and not active(space[name], found.params):
            absent.add(name)
            continue
        if name not in values:
            continue
        fitting = list(_fitting(space[name].distribution(), values[name]))
        if fitting:
            found.params[name] = fitting[0]
        else:
            valid = _text(space[name].distribution())
            found.left_out.append(
                f"{name} {brief(values[name])} is left out and will be sampled: it is not {valid}"
            )
    return found


def _fitting(distribution: BaseDistribution, value: object) -> Iterator[Value]:
    """`value` as one of the distribution's, if it is one."""
    if isinstance(distribution, CategoricalDistribution):
        yield from (choice for choice in distribution.choices if _same(choice, value))  # type: ignore[misc]
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(distribution, IntDistribution) and not float(value).is_integer():
        return
    if distribution._contains(float(value)):
        yield int(value) if isinstance(distribution, IntDistribution) else float(value)


def _same(one: object, other: object) -> bool:
    """1 and 1.0 are one value, 1 and true are not."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _text(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {brief(list(distribution.choices))}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    stepped = distribution.step not in {None, 1}
    step = f" in steps of {distribution.step}" if stepped else ""
    whole = "a whole number " if isinstance(distribution, IntDistribution) else ""
    return f"{whole}from {distribution.low} to {distribution.high}{step}"
