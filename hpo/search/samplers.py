"""Samplers: from a configuration to Optuna's, and two of our own that are numbered.

Workers make a sampler for each trial, seeded by the trial's number: what is drawn does not depend on which
worker draws it or on what it drew before. Random, QMC and grid points depend on the number alone.
"""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hpo import methods
from hpo.config import StudyConfig
from hpo.search.spaces import KnownSpace
from hpo.search.tpe import Known, Tpe
from hpo.space import Space, Value, distributions, grid, suggest


def make_sampler(
    config: StudyConfig, number: int, known: Known | None = None, first: Sequence[dict[str, Value]] = ()
) -> BaseSampler:
    """The sampler that draws trial `number`; `known` is what those of one study have in common.

    first: parameters that the study's first trials were enqueued with: of a grid, they are its first points.
    """
    sampler = config.sampler
    if isinstance(sampler, methods.Grid):
        return NumberedGrid(config.search, first)
    chosen = config.training.seed if sampler.seed is None else sampler.seed
    if isinstance(sampler, methods.Qmc):
        return NumberedQmc(config.search, chosen)
    seed = _mix(chosen, number)
    if isinstance(sampler, methods.RandomSearch):
        return optuna.samplers.RandomSampler(seed=seed)
    if isinstance(sampler, methods.Gp):
        return _Gp(config.search, seed=seed, n_startup_trials=sampler.startup_trials)
    with experimental():
        return Tpe(
            config.search,
            known or Known(),
            seed=seed,
            n_startup_trials=sampler.startup_trials,
            multivariate=sampler.multivariate,
        )


def experimental() -> AbstractContextManager[object]:
    """Without the warning that an interface may change: optuna is pinned below its next major version."""
    return warnings.catch_warnings(action="ignore", category=ExperimentalWarning)


def learns(config: StudyConfig) -> bool:
    """Whether sampling or pruning looks at other trials."""
    return isinstance(config.sampler, methods.Tpe | methods.Gp) or not isinstance(
        config.pruner, methods.NoPruner
    )


def default_in_flight(config: StudyConfig) -> int:
    """How many trials may run at once in the whole study.

    A model-based sampler that has seen nothing guesses at random: with a thousand trials in flight it is
    random search. An eighth of the budget keeps seven rounds of learning.
    """
    if isinstance(config.sampler, methods.Tpe | methods.Gp):
        return max(1, config.trials // 8)
    return config.trials


def _mix(*parts: int) -> int:
    """A seed from several numbers; neighbouring numbers give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


class _Gp(KnownSpace, optuna.samplers.GPSampler):
    pass


class _Numbered(BaseSampler):
    """Draws what `point` says for the trial's number."""

    def __init__(self, space: Space) -> None:
        self.space = distributions(space)

    def point(self, number: int) -> dict[str, Any]:
        """The values of trial `number`, at least of its active parameters."""
        raise NotImplementedError

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.point(trial.number)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise ValueError(f"parameter {param_name!r} of trial {trial.number} is not in the study's space")


class NumberedGrid(_Numbered):
    """Trial `n` is the grid's point `n`."""

    def __init__(self, space: Space, first: Sequence[dict[str, Value]] = ()) -> None:
        """first: points that come before all others."""
        super().__init__(space)
        self.points = [*first, *(point for point in grid(space) if point not in first)]

    def point(self, number: int) -> dict[str, Any]:
        """A study that was extended goes round the grid again."""
        return self.points[number % len(self.points)]


class NumberedQmc(_Numbered):
    """Trial `n` is the scrambled Sobol sequence's point `n` (Owen, 1998), a dimension for each parameter.

    Optuna's own keeps its place in the sequence as a study attribute, which two workers may read at once.
    """

    def __init__(self, space: Space, seed: int) -> None:
        super().__init__(space)
        self.seed = seed

    def point(self, number: int) -> dict[str, Any]:
        """Inactive parameters have a dimension too, so that the others do not depend on them."""
        from scipy.stats import qmc  # here, as it takes 0.9 s of every worker's start

        sequence = qmc.Sobol(len(self.space), scramble=True, rng=np.random.default_rng(self.seed))
        if number:
            sequence.fast_forward(number)
        coordinates = sequence.random(1)[0]
        return {
            name: _value(distribution, float(u))
            for (name, distribution), u in zip(self.space.items(), coordinates, strict=True)
        }


def _value(distribution: BaseDistribution, u: float) -> Any:
    """The value at `u` in [0, 1) of a distribution's range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(u * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log and isinstance(distribution, FloatDistribution):
        return float(min(high, np.exp(np.log(low) + u * (np.log(high) - np.log(low)))))
    if distribution.log:
        # Each whole number stands for the half above and below it, as in Optuna.
        return int(
            np.clip(round(np.exp(np.log(low - 0.5) + u * np.log((high + 0.5) / (low - 0.5)))), low, high)
        )
    if step is None:
        return low + u * (high - low)
    count = round((high - low) / step) + 1
    return min(high, low + int(u * count) * step)


class _Middle:
    """Suggests the middle of each distribution, but for parameters that are fixed."""

    def __init__(self, fixed: Mapping[str, Value]) -> None:
        self.fixed = fixed

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        return float(self._value(name, FloatDistribution(low, high, log=log, step=step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        return int(self._value(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._value(name, CategoricalDistribution(choices))

    def _value(self, name: str, distribution: BaseDistribution) -> Any:
        return self.fixed[name] if name in self.fixed else _value(distribution, 0.5)


def middle(space: Space, fixed: Mapping[str, Value] | None = None) -> dict[str, Value]:
    """A trial in the middle of the space, to measure what trials cost, with the values that are `fixed`."""
    return suggest(_Middle(fixed or {}), space)
