"""The space: does the optimum lie on its edge, and which parameters made no difference?"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.stats import binom, rankdata
from scipy.stats import t as student_t
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from hpo.config import Hyperparameters, StudyConfig
from hpo.results.findings import Finding, Subject, counted, fine, unchecked, warning
from hpo.results.theme import short
from hpo.results.values import complete_trials, evenly, ranked, value_of
from hpo.space import Choices, Range

Array = NDArray[np.float64]

OUTER = 0.15
"""Share of a range, on its own scale, that counts as one of its edges."""
FEWEST_FOR_EDGE = 10
FEWEST_FOR_IDLE = 30
"""Complete trials with a parameter, below which nothing is said of it."""
MOST_TRIALS = 500
"""That the forest is grown on; of more it sees an even sample."""
NO_MORE = 0.02
"""Of R²: a parameter that explains no more than this, with 95 % confidence, made no difference."""
LEAST_EXPLAINED = 0.2
"""R² without which the forest cannot tell which parameters matter."""


# --- the edge


def edges(subject: Subject) -> Iterator[Finding]:
    """Ranges at whose end the best trials gather."""
    name, config = "edge of the space", subject.config
    complete = complete_trials(subject.trials)
    ranges = {key: kind for key, kind in config.search.items() if isinstance(kind, Range)}
    seen = {key: ranked([trial for trial in complete if key in trial.params], config) for key in ranges}
    told = [key for key, trials in seen.items() if len(trials) >= FEWEST_FOR_EDGE]
    if ranges and not told:
        few = f"{counted(len(complete), 'complete trial')} are too few to tell"
        yield unchecked(name, f"{few}: at least {FEWEST_FOR_EDGE} are needed.", complete=len(complete))
        return
    found = [edge for key in told for edge in _edges(key, ranges[key], seen[key])]
    for edge in found:
        yield edge.finding(name)
    if not found:
        what = "no numeric parameter" if not ranges else f"none of {counted(len(told), 'range')} has its best"
        text = (
            "There is no numeric parameter"
            if not ranges
            else f"{what.capitalize()} trials gathered at an end"
        )
        yield fine(name, f"{text}.", ranges=told)


@dataclass(frozen=True)
class _Edge:
    parameter: str
    end: str
    """low or high"""
    bound: float
    best: float
    at_edge: int
    top: int
    expected: float
    """Share of trials that would lie there if the parameter made no difference."""

    def finding(self, name: str) -> Finding:
        further = "below" if self.end == "low" else "above"
        return warning(
            name,
            f"{self.at_edge} of the best {counted(self.top, 'trial')} lie at the {self.end} end of "
            f"{self.parameter}, {short(self.bound)}, among them the best one with {short(self.best)}; by "
            f"chance {self.expected * self.top:.1f} would.",
            f"Widen search.{self.parameter} {further} {short(self.bound)}.",
            parameter=self.parameter,
            end=self.end,
            bound=self.bound,
            best=self.best,
            at_edge=self.at_edge,
            top=self.top,
            expected_share=self.expected,
        )


def _edges(name: str, parameter: Range, trials: Sequence[FrozenTrial]) -> Iterator[_Edge]:
    """trials: those that have the parameter, best first."""
    top = trials[: min(20, max(5, math.ceil(len(trials) / 10)))]
    worse = trials[len(trials) // 2 :]
    for end, bound in (("low", parameter.low), ("high", parameter.high)):
        if _cannot_be_widened(name, parameter, end):
            continue

        def outer(values: Sequence[float], end: str = end) -> NDArray[np.bool_]:
            places = _places(parameter, values)
            return places <= OUTER if end == "low" else places >= 1 - OUTER

        inside = outer([trial.params[name] for trial in top])
        # A sampler that learns draws more often where others were good, whatever the parameter does.
        drawn = float(outer([trial.params[name] for trial in worse]).mean())
        expected = max(_share(parameter, outer), drawn)
        count = int(inside.sum())
        if inside[0] and 2 * count >= len(top) and binom.sf(count - 1, len(top), expected) < 0.01:
            yield _Edge(name, end, bound, top[0].params[name], count, len(top), expected)


def _places(parameter: Range, values: Sequence[float]) -> Array:
    """Where values lie in the range, from 0 to 1, on its own scale."""
    scale: Callable[[Array], Array] = np.log if parameter.log else np.asarray
    low, high = scale(np.array([parameter.low, parameter.high], float))
    places: Array = (scale(np.asarray(values, float)) - low) / (high - low)
    return places


def _share(parameter: Range, outer: Callable[[Sequence[float]], NDArray[np.bool_]]) -> float:
    """Of random draws, how many lie at an end."""
    values = parameter.grid()
    if values is None or len(values) > 1000:
        return OUTER
    numbers = np.array(values, float)
    weights = 1 / numbers if parameter.log else np.ones(len(numbers))
    return float(weights[outer(numbers.tolist())].sum() / weights.sum())


def _cannot_be_widened(name: str, parameter: Range, end: str) -> bool:
    """Whether an end is where the parameter itself ends: 0 of a rate, 1 of a count."""
    if end == "low" and parameter.integer and parameter.low <= 1:
        return True
    if name == "dropout":
        return end == "low" and parameter.low <= 0
    field = Hyperparameters.model_fields.get(name)
    limits = (
        {}
        if field is None
        else {
            key: getattr(limit, key)
            for limit in field.metadata
            for key in ("ge", "le")
            if hasattr(limit, key)
        }
    )
    if end == "low":
        return "ge" in limits and parameter.low <= limits["ge"]
    return "le" in limits and parameter.high >= limits["le"]


# --- parameters that made no difference


def idle(subject: Subject) -> Iterator[Finding]:
    """Parameters whose values might as well have been dealt at random.

    A random forest learns the ranks of the trials' values; on trials that it has not seen, the values of one
    parameter are shuffled (Breiman, 2001), and R² falls by what the parameter explains.
    """
    name, config = "idle parameters", subject.config
    complete = complete_trials(subject.trials)
    complete = [complete[index] for index in evenly(len(complete), MOST_TRIALS)] if complete else []
    if len(complete) < FEWEST_FOR_IDLE:
        few = f"{counted(len(complete), 'complete trial')} are too few to tell"
        yield unchecked(name, f"{few}: at least {FEWEST_FOR_IDLE} are needed.", complete=len(complete))
        return
    explained, falls = explained_by(complete, config)
    evidence = {
        "complete": len(complete),
        "r2": explained,
        "r2_lost_when_shuffled": {key: {"mean": mean, "up_to": most} for key, (mean, most) in falls.items()},
    }
    if explained < LEAST_EXPLAINED:
        yield unchecked(
            name,
            f"The parameters explain too little of the differences between {len(complete)} trials to tell "
            f"(R² {explained:.2f} of a random forest on trials that it has not seen): they may be noise.",
            **evidence,
        )
        return
    useless = {key: most for key, (_, most) in falls.items() if most < NO_MORE}
    for key, most in useless.items():
        yield warning(
            name,
            f"{key} made no difference: with its values shuffled, a random forest explains as much of "
            f"{len(complete)} trials' ranks (R² {explained:.2f}, at most {max(most, 0.001):.3f} less).",
            f"Fix {key}, and spend the trials on the others.",
            parameter=key,
            **evidence,
        )
    if not useless:
        yield fine(name, f"None of {counted(len(falls), 'parameter')} is without effect.", **evidence)


def explained_by(
    trials: Sequence[FrozenTrial], config: StudyConfig
) -> tuple[float, dict[str, tuple[float, float]]]:
    """R² of a forest on trials that it has not seen, and by parameter what of it is lost when it is shuffled.

    The latter is the mean over five folds and its upper 95 % bound; only of parameters that enough trials
    have, and that differ in them.
    """
    places = {name: _column(name, trials, config) for name in config.search}
    usable = {
        name: column
        for name, column in places.items()
        if np.isfinite(column).sum() >= FEWEST_FOR_IDLE and len(np.unique(column[np.isfinite(column)])) > 1
    }
    if not usable:
        return 0.0, {}
    inputs = np.nan_to_num(np.stack(list(usable.values()), axis=1), nan=-0.5)
    ranks = rankdata([value_of(trial) for trial in trials]) / len(trials)
    predicted = np.zeros(len(trials))
    lost: dict[str, list[float]] = {name: [] for name in usable}
    rng = np.random.default_rng(0)
    for train, held_out in KFold(5, shuffle=True, random_state=0).split(inputs):
        forest = RandomForestRegressor(100, min_samples_leaf=2, random_state=0).fit(
            inputs[train], ranks[train]
        )
        predicted[held_out] = forest.predict(inputs[held_out])
        for index, (name, column) in enumerate(usable.items()):
            has = held_out[np.isfinite(column[held_out])]
            if len(has) > 1:
                lost[name].append(_lost(forest, inputs[has], ranks[has], index, rng))
    variance = float(np.var(ranks)) or 1.0
    explained = 1 - float(np.mean((predicted - ranks) ** 2)) / variance
    return explained, {name: _bound(np.array(falls) / variance) for name, falls in lost.items()}


def _column(name: str, trials: Sequence[FrozenTrial], config: StudyConfig) -> Array:
    """[N] the parameter's places, nan where a trial has none."""
    parameter = config.search[name]
    if isinstance(parameter, Choices):
        places: Mapping[object, int] = {choice: index for index, choice in enumerate(parameter.choices)}
        return np.array([places.get(trial.params.get(name), math.nan) for trial in trials], float)
    values = [trial.params.get(name, math.nan) for trial in trials]
    return _places(parameter, values)


def _lost(
    forest: RandomForestRegressor, inputs: Array, ranks: Array, index: int, rng: np.random.Generator
) -> float:
    """By how much the squared error grows when the column `index` is shuffled: the mean of five times."""
    times, rows = 5, len(inputs)
    shuffled = np.tile(inputs, (times, 1))
    shuffled[:, index] = np.concatenate([rng.permutation(inputs[:, index]) for _ in range(times)])
    wrong = np.mean((forest.predict(shuffled) - np.tile(ranks, times)) ** 2)
    return float(wrong - np.mean((forest.predict(inputs[:rows]) - ranks) ** 2))


def _bound(falls: Array) -> tuple[float, float]:
    """Mean, and the upper end of its one-sided 95 % t-interval."""
    error = float(np.std(falls, ddof=1)) / math.sqrt(len(falls)) if len(falls) > 1 else math.inf
    return float(np.mean(falls)), float(np.mean(falls)) + float(student_t.ppf(0.95, len(falls) - 1)) * error
