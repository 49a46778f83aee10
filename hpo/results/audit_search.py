"""The search: was its budget enough, what became of its trials, what did it start from?"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo import methods
from hpo.config import StudyConfig
from hpo.results.findings import Finding, Subject, counted, fine, unchecked, warning
from hpo.results.summary import number
from hpo.results.values import LABELS, complete_trials, value_of
from hpo.search.status import INFEASIBLE, WARM_START

FEWEST = 10
"""Complete trials without which there is no telling whether a search still improves."""
PER_PARAMETER = 10
"""Trials that a searched parameter should have (Loeppky et al., 2009: ten runs for each input)."""
MOST_STARTUP = 1 / 3
"""Share of a model-based sampler's trials that may be random."""
MOST_FAILED = 0.05
"""Share of trials that may fail without a word."""
MOST_INFEASIBLE = 0.5
"""Share of trials that constraints may refuse without a word."""


def still_improving(subject: Subject) -> Iterator[Finding]:
    """The best value came late: more trials would probably find a better one."""
    name, config = "still improving", subject.config
    complete = complete_trials(subject.trials)
    if len(complete) < FEWEST:
        few = f"{counted(len(complete), 'complete trial')} are too few to tell"
        yield unchecked(name, f"{few}: at least {FEWEST} are needed.", complete=len(complete))
        return
    ended = sorted(complete, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete))
    last = max(1, len(ended) // 10)
    pick = max if config.direction == "maximize" else min
    before, best = pick(map(value_of, ended[:-last])), pick(map(value_of, ended))
    gained, noise = abs(best - before), jitter(pick(ended, key=value_of))
    evidence = {"complete": len(ended), "last": last, "before": before, "best": best, "noise": noise}
    label, metric = LABELS[config.metric], config.metric
    if gained <= noise:
        yield fine(
            name,
            f"The last {counted(last, 'complete trial')} of {len(ended)} did not improve the best {label}, "
            f"{number(metric, best)}, by more than its noise.",
            **evidence,
        )
        return
    yield warning(
        name,
        f"The last {counted(last, 'complete trial')} of {len(ended)} improved the best {label} from "
        f"{number(metric, before)} to {number(metric, best)}: the search may have ended too early.",
        f"`hpo extend {config.name} --trials {max(1, len(subject.trials) // 2)}` and go on.",
        **evidence,
    )


def jitter(trial: FrozenTrial) -> float:
    """The noise of a trial's value: how far it moves from epoch to epoch at the end of training.

    From the second differences of the last third of its epochs, over √6, which a steady trend does not move
    (Gasser, Sroka and Jennen-Steinmetz, 1986, "Residual variance and residual pattern").
    """
    values = [value for _, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)]
    tail = values[-max(4, len(values) // 3) :]
    if len(tail) < 3:
        return 0.0
    return float(np.sqrt(np.mean(np.diff(tail, 2) ** 2) / 6))


def trials_per_parameter(subject: Subject) -> Iterator[Finding]:
    """A space needs more trials the more parameters it has."""
    name, count = "trials per parameter", len(_finished(subject.trials))
    parameters = len(subject.config.search)
    evidence = {"finished": count, "waiting": subject.waiting, "parameters": parameters}
    told = f"{counted(count, 'finished trial')} for {counted(parameters, 'parameter')}"
    left = f"; {subject.waiting:,} more were not begun" if subject.waiting else ""
    if isinstance(subject.config.sampler, methods.Grid) and not subject.waiting:
        yield fine(name, f"{told}: the whole grid was searched.", **evidence)
    elif count >= PER_PARAMETER * parameters:
        yield fine(name, f"{told}{left}.", **evidence)
    else:
        yield warning(
            name,
            f"{told}{left}: {count / parameters:.1f} for each, where {PER_PARAMETER} are a rule of thumb.",
            "More trials, or fewer parameters: those that matter least can be fixed.",
            **evidence,
        )


def random_start(subject: Subject) -> Iterator[Finding]:
    """The trials before a model-based sampler begins to learn."""
    name, sampler = "random start", subject.config.sampler
    if not isinstance(sampler, methods.Tpe | methods.Gp):
        yield fine(name, f"The sampler {sampler.name} has no model to start.", sampler=sampler.name)
        return
    total = len(subject.trials) + subject.waiting
    random = min(sampler.startup_trials, total)
    evidence = {"sampler": sampler.name, "random": random, "trials": total}
    text = (
        f"{random} of {counted(total, 'trial')} are drawn at random before the sampler {sampler.name} learns"
    )
    if total and random / total > MOST_STARTUP:
        advice = f"More trials, or fewer `sampler: {{name: {sampler.name}, startup_trials: …}}`."
        yield warning(name, f"{text}: it has little to show.", advice, **evidence)
    else:
        yield fine(name, f"{text}.", **evidence)


def failed(subject: Subject) -> Iterator[Finding]:
    """How many trials failed, and mostly why."""
    name, finished = "failed trials", _finished(subject.trials)
    lost = [trial for trial in finished if trial.state == TrialState.FAIL]
    reasons = Counter(_reason(trial) for trial in lost)
    evidence = {"finished": len(finished), "failed": len(lost), "reasons": dict(reasons.most_common(5))}
    if not lost:
        yield fine(name, f"None of {counted(len(finished), 'finished trial')} failed.", **evidence)
        return
    reason, times = reasons.most_common(1)[0]
    text = (
        f"{len(lost)} of {counted(len(finished), 'finished trial')} ({len(lost) / len(finished):.0%}) "
        f"failed; the main reason, {counted(times, 'time')}: {reason}"
    )
    if len(lost) / len(finished) <= MOST_FAILED:
        yield fine(name, f"{text}.", **evidence)
        return
    yield warning(name, f"{text}.", "Mend what failed, or take those values out of the space.", **evidence)


def not_finite(subject: Subject) -> Iterator[Finding]:
    """Losses and metrics that were nan or infinite."""
    name, finished = "not finite", _finished(subject.trials)
    broken = [trial for trial in finished if trial.state == TrialState.FAIL and _is_not_finite(trial)]
    evidence: dict[str, object] = {"finished": len(finished), "not_finite": len(broken)}
    if not broken:
        yield fine(name, "No loss and no metric was nan or infinite.", **evidence)
        return
    rates = _median_rates(finished, broken, subject.config)
    where = ""
    if rates:
        evidence |= {"median_learning_rate": rates}
        broken_at, others_at = rates["broken"], rates["others"]
        where = f"; their median learning rate was {broken_at:.3g}, that of the others {others_at:.3g}"
    text = f"{len(broken)} of {counted(len(finished), 'finished trial')} ended with a loss or metric that is "
    text += f"nan or infinite{where}"
    if len(broken) / len(finished) <= MOST_FAILED:
        yield fine(name, f"{text}.", **evidence)
        return
    high = bool(rates) and rates["broken"] > rates["others"]
    advice = (
        "Lower the upper end of search.learning_rate."
        if high
        else "Look at the traces of these trials; data far out of scale do that, and so do learning rates."
    )
    yield warning(name, f"{text}.", advice, **evidence)


def constraints(subject: Subject) -> Iterator[Finding]:
    """How many trials were never trained, for their networks are too large."""
    name, finished = "constraints", _finished(subject.trials)
    if subject.config.constraints is None:
        yield fine(name, "The study has no constraints.")
        return
    refused = [trial for trial in finished if INFEASIBLE in trial.user_attrs]
    evidence = {"finished": len(finished), "infeasible": len(refused)}
    count = f"{len(refused)} of {counted(len(finished), 'finished trial')}"
    text = f"{count} violated a constraint, and were not trained"
    if not refused or len(refused) / len(finished) <= MOST_INFEASIBLE:
        yield fine(name, f"{text}.", **evidence)
        return
    yield warning(
        name,
        f"{text}; the first one, trial {refused[0].number}: {refused[0].user_attrs[INFEASIBLE]}.",
        "Take the largest networks out of the space, so that trials are not spent on them.",
        **evidence,
    )


def warm_start(subject: Subject) -> Iterator[Finding]:
    """Trials that were taken over from a study of other data may know this study's test part."""
    name, began = "warm start", subject.attrs.get(WARM_START)
    if not began:
        yield fine(name, "The search began with no earlier study's trials.")
        return
    count = len(began["trials"])
    text = f"The search began with {counted(count, 'trial')} of study {began['study']!r}"
    evidence = {"study": began["study"], "trials": count, "same_data": began["same_data"]}
    if began["same_data"]:
        yield fine(name, f"{text}, which has the same data and parts.", **evidence)
        return
    yield warning(
        name,
        f"{text}, which was searched on other data or other parts of them: its best trials may have been "
        "chosen on examples that are test examples here.",
        "Where both are drawn from one source, keep data.test_fraction and training.seed as they were there.",
        **evidence,
    )


def _finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state.is_finished()]


def _reason(trial: FrozenTrial) -> str:
    """Without the epoch, which differs between trials of one cause."""
    reason = str(trial.user_attrs.get("failure", "no reason was recorded"))
    return reason.partition(": ")[2] if reason.startswith("epoch ") else reason


def _is_not_finite(trial: FrozenTrial) -> bool:
    return _reason(trial).rpartition(" is ")[2] in {"nan", "inf", "-inf"}


def _median_rates(
    finished: Sequence[FrozenTrial], broken: Sequence[FrozenTrial], config: StudyConfig
) -> Mapping[str, float]:
    if "learning_rate" not in config.search:
        return {}
    numbers = {trial.number for trial in broken}
    others = [trial for trial in finished if trial.number not in numbers]
    groups = {"broken": broken, "others": others}
    rates = {
        key: [trial.params["learning_rate"] for trial in group if "learning_rate" in trial.params]
        for key, group in groups.items()
    }
    return {key: float(np.median(found)) for key, found in rates.items()} if all(rates.values()) else {}
