"""Candidates for the winner: what the search said of them, and what fresh seeds and splits say."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import t as student_t

from hpo.config import Metric, StudyConfig
from hpo.errors import HpoError
from hpo.results.metrics import Interval, Record
from hpo.results.values import complete_trials, ranked, value_of
from hpo.search.status import INFEASIBLE
from hpo.space import Value


class Candidate(Record):
    """One of the search's best trials, re-evaluated."""

    number: int
    """The trial's number in the search."""
    params: dict[str, Value]
    value: float
    """What the search said: the best of many noisy values, so on average better than the truth."""
    epochs: int
    """Epochs of each of its trainings from here on."""
    n: int
    """Finished re-evaluations."""
    mean: float | None
    """Over the re-evaluations; None when the candidate is out."""
    interval: Interval | None
    """95 %, of the mean; None with a single re-evaluation."""
    shrunk: float | None
    """The mean, shrunk towards that of all candidates."""
    values: list[float]
    """One for each fresh seed and split, the same ones for all candidates."""
    out: str | None = None
    """Why it cannot win."""


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
    trials: Sequence[FrozenTrial],
    values: Mapping[int, Sequence[float]],
    failures: Mapping[int, str],
    overlap: float,
) -> list[Candidate]:
    """A candidate of each trial, in the order of `trials`.

    values: of each trial's number that is not in `failures`, its re-evaluations in the common order of
    seeds. overlap: validation rows per training row of a re-evaluation.
    """
    inside = [trial.number for trial in trials if trial.number not in failures]
    shrunk = shrink([values[number] for number in inside], overlap)
    by_number = dict(zip(inside, shrunk, strict=True))
    return [
        Candidate(
            number=trial.number,
            params=trial.params,
            value=value_of(trial),
            epochs=epochs_of(config, trial),
            n=len(values.get(trial.number, [])),
            mean=float(np.mean(values[trial.number])) if trial.number in by_number else None,
            interval=_interval(config, values[trial.number], overlap) if trial.number in by_number else None,
            shrunk=by_number.get(trial.number),
            values=list(values.get(trial.number, [])),
            out=failures.get(trial.number),
        )
        for trial in trials
    ]


def _interval(config: StudyConfig, values: Sequence[float], overlap: float) -> Interval | None:
    """The interval of the mean, as far as the metric goes."""
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
    """The candidate with the best shrunk mean; of equals the one with the best mean, then the earliest.

    Raises:
        HpoError: every candidate is out.
    """
    sign = -1 if config.direction == "maximize" else 1
    inside = [
        (sign * candidate.shrunk, sign * candidate.mean, candidate.number, candidate)
        for candidate in candidates
        if candidate.shrunk is not None and candidate.mean is not None
    ]
    if not inside:
        reasons = "; ".join(f"trial {candidate.number}: {candidate.out}" for candidate in candidates)
        raise HpoError(
            f"study {config.name!r} has no winner, re-evaluating its best trials failed: {reasons}"
        )
    return min(inside)[3]


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
    rows, columns = table.shape
    means, grand = table.mean(axis=1), table.mean()
    residuals = table - means[:, None] - table.mean(axis=0) + grand
    noise = float((residuals**2).sum()) / ((rows - 1) * (columns - 1)) * (1 / columns + overlap)
    spread = float(means.var(ddof=1))
    kept = max(0.0, 1 - noise / spread) if spread > 0 else 0.0
    return [float(grand + kept * (mean - grand)) for mean in means]
