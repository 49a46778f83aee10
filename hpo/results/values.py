"""Trials' values: the complete trials, the best of them, the limits of an axis to show them on."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from hpo.config import Metric, StudyConfig
from hpo.results.theme import NothingToDraw

LABELS: dict[Metric, str] = {
    "accuracy": "accuracy",
    "f1": "F1 (macro)",
    "roc_auc": "ROC AUC",
    "loss": "loss",
    "rmse": "RMSE (target's unit)",
    "mae": "MAE (target's unit)",
    "r2": "R²",
}
"""Metrics of a study file, as shown."""
METRIC_LABELS: dict[str, str] = {
    **{str(name): label for name, label in LABELS.items()},
    "precision": "precision (macro)",
    "recall": "recall (macro)",
}
"""These, and the others that a test comes to."""


def value_label(config: StudyConfig) -> str:
    """What a trial's value is, as the title of an axis."""
    return f"validation {LABELS[config.metric]}"


def value_of(trial: FrozenTrial) -> float:
    """The value of a complete trial."""
    assert trial.value is not None
    return trial.value


def complete_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that have a value, by number."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: trial.number)


def drawable(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The complete trials.

    Raises:
        NothingToDraw: there is none.
    """
    complete = complete_trials(trials)
    if not complete:
        raise NothingToDraw("No trial is complete, so there are no values to draw.")
    return complete


def ranked(trials: Sequence[FrozenTrial], config: StudyConfig) -> list[FrozenTrial]:
    """Complete trials, best first, the earlier first of equals."""
    sign = -1 if config.direction == "maximize" else 1
    return sorted(trials, key=lambda trial: (sign * value_of(trial), trial.number))


def focus(values: Sequence[float], config: StudyConfig) -> tuple[float, float]:
    """Limits of an axis that outliers on the bad side do not flatten: 3 quartile ranges below the middle."""
    quartiles = np.percentile(values, [25, 50, 75])
    reach = 3 * float(quartiles[2] - quartiles[0])
    low, high = min(values), max(values)
    if config.direction == "maximize":
        low = max(low, float(quartiles[1]) - reach) if reach else low
    else:
        high = min(high, float(quartiles[1]) + reach) if reach else high
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return low - margin, high + margin


def evenly(length: int, most: int) -> list[int]:
    """Indices of at most `most` of `length` things, evenly spread, the first and the last among them."""
    return sorted({round(float(index)) for index in np.linspace(0, length - 1, min(length, most))})
