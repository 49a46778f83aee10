"""The pruner: a few of the trials that it ended are trained on to their end. Would one have won?

Random streams are keyed by seed, trial and fold, so that a pruned trial comes to just the values that it
would have had. Nothing of it is written to the study.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig
from hpo.data.prepared import PreparedData
from hpo.errors import TrialError
from hpo.results.audit_search import jitter
from hpo.results.findings import Finding, Subject, counted, fine, unchecked, warning
from hpo.results.lanes import Progress, Watch
from hpo.results.summary import duration, number
from hpo.results.values import LABELS, complete_trials, ranked, value_of
from hpo.search.trainer import Trainer

FEW = 6
"""Pruned trials that are retrained unless told otherwise."""
SECONDS = 300.0
"""That this may take by itself, by what the trials' epochs took."""
NAME = "pruner"


def pruner(subject: Subject, retrain: int | None, progress: Progress) -> Iterator[Finding]:
    """Whether the pruner ended a trial that would have beaten the best one.

    retrain: how many pruned trials to train to their end; None: `FEW`, if they take no more than `SECONDS`.
    """
    config = subject.config
    pruned = [t for t in subject.trials if t.state == TrialState.PRUNED and t.intermediate_values]
    complete = complete_trials(subject.trials)
    if not pruned:
        yield fine(NAME, "No trial was pruned in training.", pruned=0)
        return
    told = f"{counted(len(pruned), 'trial')} were pruned" if len(pruned) > 1 else "1 trial was pruned"
    chosen = sample(pruned, FEW if retrain is None else retrain, config)
    reason = _not_to_be_retrained(subject, complete, chosen, automatic=retrain is None)
    if reason or subject.prepared is None:
        yield unchecked(NAME, f"{told}, and none was trained to its end: {reason}.", pruned=len(pruned))
        return
    values, failures = retrained(config, subject.prepared, chosen, progress)
    if not values:
        first = next(iter(failures.values()), "")
        yield unchecked(NAME, f"{told}; those that were trained on failed: {first}.", pruned=len(pruned))
        return
    yield _judged(config, ranked(complete, config)[0], values, told, len(pruned))


def _not_to_be_retrained(
    subject: Subject, complete: Sequence[FrozenTrial], chosen: Sequence[FrozenTrial], automatic: bool
) -> str:
    """Why, if so."""
    if not complete:
        return "no trial is complete to compare them with"
    if not chosen:
        return "that was left out (--retrain 0)"
    if subject.prepared is None:
        return f"the data are not at hand: {subject.no_data}"
    seconds = _expected_seconds(subject.config, chosen)
    if automatic and seconds > SECONDS:
        took = f"{len(chosen)} would take up to {duration(seconds)}, by what their epochs took"
        return f"{took}; --retrain {len(chosen)} does it"
    return ""


def _expected_seconds(config: StudyConfig, trials: Sequence[FrozenTrial]) -> float:
    """At most: side by side they take less."""
    recorded = [(trial.user_attrs.get("seconds", 0.0), trial.user_attrs.get("epochs", 0)) for trial in trials]
    return config.training.epochs * math.fsum(seconds / epochs for seconds, epochs in recorded if epochs)


def sample(pruned: Sequence[FrozenTrial], count: int, config: StudyConfig) -> list[FrozenTrial]:
    """Half of them those that looked best when they were pruned, half drawn from all the others."""
    sign = -1 if config.direction == "maximize" else 1
    order = sorted(pruned, key=lambda trial: (sign * trial.intermediate_values[_last(trial)], trial.number))
    promising = order[: -(-count // 2)]
    others = order[len(promising) :]
    drawn = np.random.default_rng(config.training.seed).permutation(len(others))[: count - len(promising)]
    return promising + [others[index] for index in sorted(drawn)]


def _last(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values)


def retrained(
    config: StudyConfig, prepared: PreparedData, trials: Sequence[FrozenTrial], progress: Progress
) -> tuple[dict[int, float], dict[int, str]]:
    """By number the values that trials come to at their end, and why others failed."""
    trainer = Trainer(config, prepared)
    shapes: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        shapes.setdefault(trainer.shape_key(config.settings(trial.params)), []).append(trial)
    watch = Watch(progress, "retraining pruned trials", len(trials) * config.training.epochs)
    values: dict[int, float] = {}
    failures: dict[int, str] = {}
    for alike in shapes.values():
        try:
            _train(trainer, config, alike, watch, values, failures)
        except Exception as error:  # noqa: BLE001  (the user's module may raise anything)
            failures.update({trial.number: f"{type(error).__name__}: {error}" for trial in alike})
    return values, failures


def _train(
    trainer: Trainer,
    config: StudyConfig,
    trials: Sequence[FrozenTrial],
    watch: Watch,
    values: dict[int, float],
    failures: dict[int, str],
) -> None:
    """Train trials of one shape to their end, side by side."""
    group = trainer.group(config.settings(trials[0].params))
    for trial in trials:
        try:
            group.add(trial.number, config.settings(trial.params))
        except TrialError as error:
            failures[trial.number] = str(error)
    history: dict[int, dict[int, float]] = {}
    for _ in range(config.training.epochs if len(group) else 0):
        watch.advance(len(group))
        epochs = group.train_epoch()
        broken = {number: epoch.failure for number, epoch in epochs.items() if epoch.failure}
        failures.update(broken)
        group.drop(broken)
        for number_, epoch in epochs.items():
            history.setdefault(number_, {})[epoch.number] = epoch.value
        if not len(group):
            return
    values.update({n: config.chosen(reached) for n, reached in history.items() if n not in failures})


def _judged(
    config: StudyConfig, best: FrozenTrial, values: dict[int, float], told: str, pruned: int
) -> Finding:
    sign = 1 if config.direction == "maximize" else -1
    top, noise = value_of(best), jitter(best)
    number_ = max(values, key=lambda each: (sign * values[each], -each))
    regret = max(0.0, sign * (values[number_] - top))
    beat = sum(sign * (value - top) > noise for value in values.values())
    metric, label = config.metric, LABELS[config.metric]
    evidence = {
        "pruned": pruned,
        "retrained": {str(key): value for key, value in values.items()},
        "best": top,
        "noise": noise,
        "regret": regret,
    }
    text = (
        f"{told}; of {len(values)} that were trained to their end the best, trial {number_}, comes to "
        f"{number(metric, values[number_])}, the study's best {label} is {number(metric, top)}"
    )
    if not beat:
        return fine(NAME, f"{text}: no more than noise was lost.", **evidence)
    return warning(
        NAME,
        f"{text}: {beat} of {len(values)} would have beaten it, by up to {number(metric, regret)}.",
        "Prune later or less: raise pruner.min_epochs, or use `pruner: patient`.",
        **evidence,
    )
