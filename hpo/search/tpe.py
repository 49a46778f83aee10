"""Optuna's TPE, drawing what Optuna's own draws, but with what its draws have in common kept between them."""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers._tpe import sampler as tpe
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.density import Density
from hpo.search.spaces import KnownSpace
from hpo.space import Space

Row = tuple[float, ...]
Rank = tuple[int, float, float, int]


@dataclass
class Divided:
    """Trials that have finished, divided as TPE does it: the best few, and the others."""

    trials: list[FrozenTrial]
    """By number."""
    best: set[int]
    """Numbers."""
    below: dict[tuple[str, ...], Density] = field(default_factory=dict)
    """What the best few are like, by names of parameters."""
    above: dict[tuple[str, ...], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = field(
        default_factory=dict
    )
    """Numbers [N] of the others that have all parameters, and their values [N, P], by names of parameters."""


@dataclass
class Known:
    """What the samplers of one study, a new one for each trial, have in common."""

    ranks: dict[int, tuple[FrozenTrial, Rank]] = field(default_factory=dict)
    """By trial id: a finished trial, and its place among others; the least is the best."""
    rows: dict[tuple[str, ...], dict[int, tuple[FrozenTrial, Row | None]]] = field(default_factory=dict)
    """By names of parameters and trial id: a finished trial, and its values as TPE has them."""
    divided: Divided | None = None
    """Of the last draw."""


class Tpe(KnownSpace, optuna.samplers.TPESampler):
    """Optuna's looks anew at each trial at each draw: at 500 trials half of the time of a draw.

    Of trials that have finished nothing changes, so that each is converted once, and until one more has
    finished they are divided once, and the estimator of the best ones is made once.
    """

    def __init__(self, space: Space, known: Known, **options: Any) -> None:
        super().__init__(space, **options)
        self.known = known

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is searched jointly."""
        return self.joint if self._is_multivariate(study) else {}

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's, which reads the running trials as well to count those that have finished."""
        if not search_space or len(self._finished(study)) < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's: of candidates from the best trials' density, the one that is least like the others."""
        divided = self._divide(study)
        below = self._below(divided, study, search_space)
        above = self._above(divided, study, trial, search_space)
        samples = below.sample(self._rng.rng, self._n_ei_candidates)
        gain = self._compute_acquisition_func(samples, below, above)
        drawn = self._compare(samples, gain)
        return {name: kind.to_external_repr(drawn[name]) for name, kind in search_space.items()}

    def _finished(self, study: Study) -> list[FrozenTrial]:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        return study._get_trials(deepcopy=False, states=states, use_cache=False)

    def _divide(self, study: Study) -> Divided:
        finished = self._finished(study)
        divided = self.known.divided
        if divided is None or divided.trials != finished:
            ranks = heapq.nsmallest(
                tpe.default_gamma(len(finished)), (self._rank(t, study) for t in finished)
            )
            divided = self.known.divided = Divided(finished, {number for *_, number in ranks})
        return divided

    def _rank(self, trial: FrozenTrial, study: Study) -> Rank:
        """Complete trials by value, pruned ones by when and at what value, infeasible ones by how much."""
        before, rank = self.known.ranks.get(trial._trial_id, (None, (0, 0.0, 0.0, 0)))
        if before is trial:
            return rank
        excess = tpe._get_infeasible_trial_score(trial)
        if excess > 0:
            rank = (2, excess, 0.0, trial.number)
        elif trial.state == TrialState.PRUNED:
            rank = (1, *tpe._get_pruned_trial_score(trial, study), trial.number)
        else:
            assert trial.value is not None
            sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
            rank = (0, sign * trial.value, 0.0, trial.number)
        self.known.ranks[trial._trial_id] = (trial, rank)
        return rank

    def _below(self, divided: Divided, study: Study, space: dict[str, BaseDistribution]) -> Density:
        names = tuple(space)
        if names not in divided.below:
            best = [trial for trial in divided.trials if trial.number in divided.best]
            divided.below[names] = self._estimator(self._rows(best, study, space)[1], space)
        return divided.below[names]

    def _above(
        self, divided: Divided, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]
    ) -> Density:
        names = tuple(space)
        if names not in divided.above:
            others = [other for other in divided.trials if other.number not in divided.best]
            divided.above[names] = self._rows(others, study, space)
        running = study._get_trials(deepcopy=False, states=(TrialState.RUNNING,), use_cache=False)
        numbers, rows = (
            np.concatenate(parts)
            for parts in zip(
                divided.above[names],
                self._rows([other for other in running if other.number != trial.number], study, space),
                strict=True,
            )
        )
        return self._estimator(rows[np.argsort(numbers)], space)

    def _estimator(self, rows: np.ndarray[Any, Any], space: dict[str, BaseDistribution]) -> Density:
        observed = {name: rows[:, column] for column, name in enumerate(space)}
        return Density(observed, space, self._parzen_estimator_parameters)

    def _rows(
        self, trials: list[FrozenTrial], study: Study, space: dict[str, BaseDistribution]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Numbers [N] and values [N, P] of those trials that have all parameters."""
        known = self.known.rows.setdefault(tuple(space), {})
        numbers, rows = [], []
        for trial in trials:
            before, row = known.get(trial._trial_id, (None, None))
            if before is not trial:
                row = self._internal(trial, space, study)
                if trial.state.is_finished():
                    known[trial._trial_id] = (trial, row)
            if row is not None:
                numbers.append(trial.number)
                rows.append(row)
        return np.array(numbers, dtype=int), np.array(rows, dtype=float).reshape(len(rows), len(space))

    def _internal(self, trial: FrozenTrial, space: dict[str, BaseDistribution], study: Study) -> Row | None:
        params = self._get_params(trial, study)
        if not space.keys() <= params.keys():
            return None
        return tuple(kind.to_internal_repr(params[name]) for name, kind in space.items())
