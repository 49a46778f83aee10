"""Candidates for the winner: what the search said of them, and what fresh seeds and splits say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t as student_t

from hpo.config import Metric, StudyConfig
from hpo.errors import HpoError
from hpo.results.defaults import defaults
from hpo.results.metrics import Array, Interval, Record
from hpo.results.values import complete_trials, ranked, value_of
from hpo.search.status import INFEASIBLE
from hpo.space import Value

DEFAULTS = 2**30 - 1
"""Number that the lanes of the configuration's defaults have in place of a trial's: no study has so many."""


class Candidate(Record):
    """One of the search's best trials, or the configuration's defaults, re-evaluated."""

    number: int | None
    """The trial's number in the search; None for the defaults, which are no trial."""
    params: dict[str, Value]
    value: float | None
    """What the search said: the best of many noisy values, so on average better than the truth. None for
    the defaults."""
    epochs: int
    """Epochs of each of its trainings from here on."""
    n: int
    """Finished re-evaluations."""
    mean: float | None
    """Over the re-evaluations; None when the candidate is out."""
    interval: Interval | None
    """95 %, of the mean; None with a single re-evaluation."""
    shrunk: float | None
    """The mean, shrunk towards that of all candidates; see `assess` for the defaults."""
    values: list[float]
    """One for each fresh seed and split, the same ones for all candidates."""
    out: str | None = None
    """Why it cannot win."""

    @property
    def name(self) -> str:
        """What a sentence calls it."""
        return "the defaults" if self.number is None else f"trial {self.number}"

    @property
    def lane_number(self) -> int:
        """What the random streams of its lanes depend on in place of a trial's number."""
        return DEFAULTS if self.number is None else self.number


@dataclass(frozen=True)
class Entrant:
    """What is re-evaluated."""

    number: int
    """The trial's, or `DEFAULTS`."""
    params: dict[str, Value]
    value: float | None
    """The search's."""
    epochs: int


def entrants(config: StudyConfig, trials: Sequence[FrozenTrial]) -> list[Entrant]:
    """The best of `trials`, best first, and last the configuration's defaults, trained for all epochs.

    Raises:
        HpoError: no trial is complete.
        UserCodeError: the user's builder, which knows the defaults of its options, cannot be loaded.
    """
    found = [
        Entrant(trial.number, dict(trial.params), value_of(trial), epochs_of(config, trial))
        for trial in best_trials(config, trials)
    ]
    return [*found, Entrant(DEFAULTS, defaults(config), None, config.training.epochs)]


def best_trials(config: StudyConfig, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The best `config.final.top` complete trials, best first, the earlier first of equals.

    Of several trials with the same parameters the best one counts.

    Raises:
        HpoError: no trial is complete; the message says what became of them.
    """
    complete = complete_trials(trials)
    if not complete:
        raise HpoError(_nothing_complete(config, trials))
    distinct: dict[str, FrozenTrial] = {}
    for trial in ranked(complete, config):
        distinct.setdefault(repr(sorted(trial.params.items())), trial)
    return list(distinct.values())[: config.final.top]


def _nothing_complete(config: StudyConfig, trials: Sequence[FrozenTrial]) -> str:
    text = f"study {config.name!r} has no complete trial to choose a winner from: "
    if not trials:
        within = "" if config.hours is None else f" within its {config.hours:g} hours"
        return f"{text}none began{within}"
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    text += f"of {len(trials)} trials {len(failed)} failed and {pruned} were pruned"
    refused = [trial for trial in trials if INFEASIBLE in trial.user_attrs]
    if refused:
        text += (
            f", {len(refused)} of these untrained, since they violate a constraint; the first, trial "
            f"{refused[0].number}: {refused[0].user_attrs[INFEASIBLE]}"
        )
    if failed:
        reason = failed[0].user_attrs.get("failure", "no reason was recorded")
        text += f"; the first failure, of trial {failed[0].number}: {reason}"
    return text


def epochs_of(config: StudyConfig, trial: FrozenTrial) -> int:
    """How long to train with a trial's parameters: fixed by the search, so that nobody peeks later."""
    values = {step: value for step, value in trial.intermediate_values.items() if math.isfinite(value)}
    if config.training.select == "last" or not values:
        return config.training.epochs
    sign = -1 if config.direction == "maximize" else 1
    return min(values, key=lambda step: (sign * values[step], step))


def assess(
    config: StudyConfig,
    entered: Sequence[Entrant],
    values: Mapping[int, Sequence[float]],
    failures: Mapping[int, str],
    overlap: float,
) -> list[Candidate]:
    """A candidate of each entrant, in their order.

    The trials' means are shrunk together: they are the best of one search. The defaults are shrunk with them
    unless they differ from them by more than chance explains; then they stand apart, so that poor defaults
    do not make the trials' own differences look real.

    values: of each entrant's number that is not in `failures`, its re-evaluations in the common order of
    seeds. overlap: validation rows per training row of a re-evaluation.
    """
    inside = [entrant.number for entrant in entered if entrant.number not in failures]
    shrunk = _shrunk({number: values[number] for number in inside}, overlap)
    return [
        Candidate(
            number=None if entrant.number == DEFAULTS else entrant.number,
            params=entrant.params,
            value=entrant.value,
            epochs=entrant.epochs,
            n=len(values.get(entrant.number, [])),
            mean=float(np.mean(values[entrant.number])) if entrant.number in shrunk else None,
            interval=value_interval(config, values[entrant.number], overlap)
            if entrant.number in shrunk
            else None,
            shrunk=shrunk.get(entrant.number),
            values=list(values.get(entrant.number, [])),
            out=failures.get(entrant.number),
        )
        for entrant in entered
    ]


def _shrunk(values: Mapping[int, Sequence[float]], overlap: float) -> dict[int, float]:
    """By number."""
    apart = [number for number in values if number == DEFAULTS and _stands_apart(values, overlap)]
    together = [number for number in values if number not in apart]
    found = dict(zip(together, shrink([values[number] for number in together], overlap), strict=True))
    return found | {number: float(np.mean(values[number])) for number in apart}


def _stands_apart(values: Mapping[int, Sequence[float]], overlap: float) -> bool:
    """Whether the mean of the defaults is two standard errors or more from that of the trials."""
    table = np.array([values[number] for number in values], dtype=np.float64)
    if min(table.shape) < 2:
        return False
    is_defaults = np.array([number == DEFAULTS for number in values])
    distance = float(table[is_defaults].mean() - table[~is_defaults].mean())
    return abs(distance) > 2 * math.sqrt(_noise(table, overlap) * (1 + 1 / (len(table) - 1)))


def value_interval(config: StudyConfig, values: Sequence[float], overlap: float) -> Interval | None:
    """The interval of the mean, as far as the study's metric goes."""
    interval = mean_interval(values, overlap)
    if interval is None:
        return None
    least, most = _LIMITS[config.metric]
    return max(least, interval[0]), min(most, interval[1])


_LIMITS: dict[Metric, Interval] = {
    "accuracy": (0, 1),
    "f1": (0, 1),
    "roc_auc": (0, 1),
    "r2": (-math.inf, 1),
    "loss": (0, math.inf),
    "rmse": (0, math.inf),
    "mae": (0, math.inf),
}


def choose(config: StudyConfig, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the best shrunk mean; of equals the one with the best mean, then the defaults, then
    the earliest.

    Raises:
        HpoError: every candidate is out.
    """
    sign = -1 if config.direction == "maximize" else 1
    inside = [
        (sign * candidate.shrunk, sign * candidate.mean, _turn(candidate), candidate)
        for candidate in candidates
        if candidate.shrunk is not None and candidate.mean is not None
    ]
    if not inside:
        reasons = "; ".join(f"{candidate.name}: {candidate.out}" for candidate in candidates)
        raise HpoError(
            f"study {config.name!r} has no winner, re-evaluating its best trials failed: {reasons}"
        )
    *_, chosen = min(inside, key=lambda found: found[:3])
    return chosen


def _turn(candidate: Candidate) -> int:
    return -1 if candidate.number is None else candidate.number


def selection_cost(config: StudyConfig, candidate: Candidate) -> float | None:
    """By how much the search's value flattered a candidate; negative where it was too modest."""
    if candidate.shrunk is None or candidate.value is None:
        return None
    sign = 1 if config.direction == "maximize" else -1
    return sign * (candidate.value - candidate.shrunk)


def mean_interval(values: Sequence[float], overlap: float) -> Interval | None:
    """95 % t-interval of the mean of `values`, one for each random split; None for fewer than two.

    Random splits share rows, so their values are correlated and s²/n is too small; the correction of
    Nadeau and Bengio (2003, "Inference for the generalization error") puts s²(1/n + overlap) in its place.
    """
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) * math.sqrt(1 / len(values) + overlap)
    half = float(student_t.ppf(0.975, len(values) - 1)) * error
    mean = float(np.mean(values))
    return mean - half, mean + half


def shrink(values: Sequence[Sequence[float]], overlap: float) -> list[float]:
    """Each candidate's mean, drawn towards the mean of all by as much as chance explains their spread.

    values: [candidates, n], columns are common seeds and splits. Empirical Bayes in the form of James and
    Stein (1961) and Efron and Morris (1975, "Data analysis using Stein's estimator"): with means mᵢ of
    variance v around true values of variance τ², the estimate is m̄ + (mᵢ - m̄)·τ²/(τ² + v), where the sample
    variance of the means estimates τ² + v. What all candidates share, a hard split say, moves no
    comparison: v comes from the residuals after rows and columns. One v for all keeps the order of the
    means, so it is the winner's estimate that shrinking mends; how much it has to is the price of having
    chosen.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 2:
        return [float(np.mean(row)) for row in values]
    means, grand = table.mean(axis=1), table.mean()
    spread = float(means.var(ddof=1))
    kept = max(0.0, 1 - _noise(table, overlap) / spread) if spread > 0 else 0.0
    return [float(grand + kept * (mean - grand)) for mean in means]


def _noise(table: Array, overlap: float) -> float:
    """Variance of a row's mean, without what all rows share. table: [candidates, n], both 2 or more."""
    rows, columns = table.shape
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    return float((residuals**2).sum() / ((rows - 1) * (columns - 1)) * (1 / columns + overlap))
