"""A study's outcome in sentences with numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from hpo.config import CsvData, FolderData, IdxData, StudyConfig, UserData
from hpo.results.baselines import Baseline
from hpo.results.candidates import Candidate, selection_cost
from hpo.results.finalize import FinalResult
from hpo.results.metrics import ClassificationMetrics, Interval
from hpo.results.theme import short
from hpo.results.values import LABELS
from hpo.search.status import INFEASIBLE

MAX_REASONS = 5


def summary(
    config: StudyConfig,
    trials: Sequence[FrozenTrial],
    result: FinalResult | None,
    data_sizes: Mapping[str, int],
) -> list[str]:
    """Sentences: what was searched, what won, what the search's score was worth, how it tested."""
    sentences = [searched(config, trials, data_sizes)]
    if result is None:
        return [*sentences, "The study has not been finalized: no winner is chosen, its test part is sealed."]
    winner = result.winner
    params = ", ".join(f"{name} {short(value)}" for name, value in winner.params.items())
    best = "the configuration's defaults" if winner.number is None else winner.name
    return [
        *sentences,
        f"The winner is {best}, with {params}.",
        *found_nothing(config, result),
        re_evaluated(config, winner),
        *_indistinct(result),
        tested(result),
        *_over_seeds(config, result),
        *unbeaten(config, result),
    ]


def found_nothing(config: StudyConfig, result: FinalResult) -> list[str]:
    """That no trial was better than the defaults, and what the search had made of the best one."""
    if result.winner.number is not None:
        return []
    best = result.candidates[0]
    text = "The search found nothing better than the defaults"
    if best.value is None or best.mean is None:
        return [f"{text}."]
    metric = config.metric
    return [
        f"{text}: its best, {best.name}, had a validation {LABELS[metric]} of {number(metric, best.value)} "
        f"there, and has {number(metric, best.mean)} re-evaluated."
    ]


def unbeaten(config: StudyConfig, result: FinalResult) -> list[str]:
    """Which of scikit-learn's models the winner does not beat by more than noise."""
    sentences = []
    for baseline in result.baselines:
        if baseline.lead is None:
            sentences.append(f"There is no {baseline.name} to compare with: {baseline.out}.")
        elif not baseline.beaten:
            sentences.append(_unbeaten(config, result, baseline))
    return sentences


def _unbeaten(config: StudyConfig, result: FinalResult, baseline: Baseline) -> str:
    metric, lead, rows = config.metric, baseline.lead or 0.0, result.test.scalars()
    interval = baseline.lead_interval
    splits = f"{result.winner.n} splits" if result.winner.n > 1 else "split"
    within = f" (95 % interval of the lead {interval_text(metric, interval)})" if interval else ""
    by = f"{'better' if lead > 0 else 'worse'} by {number(metric, abs(lead))}" if lead else "the same"
    if lead <= 0:
        verdict = f"The tuned network does not beat {baseline.name}"
    elif interval:
        verdict = f"The tuned network does not beat {baseline.name} by more than noise"
    else:
        verdict = f"One split does not tell whether the tuned network beats {baseline.name} by more than luck"
    return (
        f"{verdict}: on the same {splits} its {LABELS[metric]} is {by}{within}; on the test rows it has "
        f"{number(metric, rows[metric])}, {baseline.name} {number(metric, baseline.test[metric])}."
    )


def searched(config: StudyConfig, trials: Sequence[FrozenTrial], data_sizes: Mapping[str, int]) -> str:
    """What was searched, on what, with how many trials."""
    counts = Counter(trial.state for trial in trials)
    names = list(config.search)
    parameters = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    rows = [f"{data_sizes[part]:,} rows to {verb}" for part, verb in _PARTS.items() if part in data_sizes]
    sizes = f" ({', '.join(rows)})" if rows else ""
    took = _duration(trials)
    return (
        f"{len(trials):,} trials of {config.architecture} searched {parameters} on {data_name(config)}"
        f"{sizes} with the sampler {config.sampler.name} and the pruner "
        f"{config.pruner.name}{took}: "
        f"{counts[TrialState.COMPLETE]:,} are complete, {counts[TrialState.PRUNED]:,} were pruned"
        f"{_infeasible(trials)}, "
        f"{counts[TrialState.FAIL]:,} failed."
    )


def _infeasible(trials: Sequence[FrozenTrial]) -> str:
    refused = [trial for trial in trials if INFEASIBLE in trial.user_attrs]
    if not refused:
        return ""
    first = f"trial {refused[0].number}: {refused[0].user_attrs[INFEASIBLE]}"
    return f" ({len(refused):,} of them untrained, since they violate a constraint; the first, {first})"


def unfinished(running: int, waiting: int) -> str:
    """How far a search has come that goes on."""
    runs = f"{running:,} trial{' runs' if running == 1 else 's run'}"
    return f"The search has not ended: {runs} and {waiting:,} wait{'s' * (waiting == 1)}."


_PARTS = {"train": "train on", "validation": "validate on", "test": "test on"}


def data_name(config: StudyConfig) -> str:
    """The data set as its study file calls it."""
    data = config.data
    if isinstance(data, CsvData | IdxData | FolderData):
        return data.path
    return data.source if isinstance(data, UserData) else data.name


def _duration(trials: Sequence[FrozenTrial]) -> str:
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    ends = [trial.datetime_complete for trial in trials if trial.datetime_complete]
    if not starts or not ends:
        return ""
    return f" in {duration((max(ends) - min(starts)).total_seconds())}"


def duration(seconds: float) -> str:
    """`seconds` in the two largest units that say enough."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def number(metric: str, value: float | None) -> str:
    """A metric's value: three decimals where it lies between 0 and 1, else four significant digits."""
    if value is None:
        return "undefined"
    return f"{value:.4g}" if metric in {"loss", "rmse", "mae"} else f"{round(value, 3) + 0.0:.3f}"


def interval_text(metric: str, interval: Interval) -> str:
    """An interval as `low to high`."""
    return " to ".join(number(metric, end) for end in interval)


def re_evaluated(config: StudyConfig, winner: Candidate) -> str:
    """What the search's score was worth."""
    label, metric = LABELS[config.metric], config.metric
    within = f" (95 % interval {interval_text(metric, winner.interval)})" if winner.interval else ""
    how = f"re-evaluated with {_count(winner.n, 'fresh seed')}, each on its own split"
    mean = f"{number(metric, winner.mean)}{within}"
    if winner.value is None:
        return f"The defaults, {how}, have a validation {label} of {mean}."
    text = f"The search gave it a validation {label} of {number(metric, winner.value)}; {how}, it has {mean}."
    cost = selection_cost(config, winner) or 0.0
    if cost > 0:
        return f"{text} Being the best of many noisy values had flattered it by {number(metric, cost)}."
    return f"{text} The search's value had not flattered it."


def _indistinct(result: FinalResult) -> list[str]:
    shrunk = [candidate.shrunk for candidate in result.candidates if candidate.shrunk is not None]
    if len(shrunk) < 2 or result.winner.n < 2 or max(shrunk) - min(shrunk) > 1e-9 * abs(max(shrunk)):
        return []
    return [
        f"The {len(shrunk)} candidates cannot be told apart: they differ by no more than chance explains."
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def tested(result: FinalResult) -> str:
    """The exported model on the test part."""
    test = result.test
    trained = f"Retrained on train + validation for {_count(result.epochs, 'epoch')}, the exported model"
    if isinstance(test, ClassificationMetrics):
        auc = f", ROC AUC {test.roc_auc:.3f}" if test.roc_auc is not None else ""
        return (
            f"{trained} reaches a test accuracy of {test.accuracy:.3f} on {test.n:,} held-out rows (95 % "
            f"interval {interval_text('accuracy', test.accuracy_interval)}), macro F1 {test.f1:.3f}{auc}."
            f"{_calibrated(test)}"
        )
    r2 = f", R² {test.r2:.3f}" if test.r2 is not None else ""
    return (
        f"{trained} has a test RMSE of {test.rmse:.4g} and an MAE of {test.mae:.4g} in the target's unit on "
        f"{test.n:,} held-out rows{r2}."
    )


def _calibrated(test: ClassificationMetrics) -> str:
    if test.calibration is None:
        return ""
    return f" Its probabilities are off by {test.calibration.ece:.3f} on average (ECE)."


def _over_seeds(config: StudyConfig, result: FinalResult) -> list[str]:
    metric = config.metric
    spread = result.seeds.get(metric)
    if spread is None or spread.std is None:
        return []
    within = ""
    if spread.interval is not None:
        within = f"; 95 % interval over seeds and test rows {interval_text(metric, spread.interval)}"
    failed = ""
    if result.failed_seeds:
        seeds = ", ".join(map(str, result.failed_seeds))
        failed = f" Retraining was not finite with these seeds: {seeds}."
    return [
        f"Over {spread.n} retrainings with different seeds the test {LABELS[metric]} is "
        f"{number(metric, spread.mean)} ± {number(metric, spread.std)} (standard deviation){within}.{failed}"
    ]


def failures(trials: Sequence[FrozenTrial]) -> list[str]:
    """Why trials failed, the commonest reasons first."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    reasons = Counter(str(trial.user_attrs.get("failure", "no reason was recorded")) for trial in failed)
    first = {str(trial.user_attrs.get("failure")): trial.number for trial in reversed(failed)}
    found = [
        f"{reason} ({_count(count, 'trial')}{f', first trial {first[reason]}' if reason in first else ''})"
        for reason, count in reasons.most_common(MAX_REASONS)
    ]
    rest = len(reasons) - len(found)
    return [*found, f"and {_count(rest, 'other reason')}"] if rest else found
