"""Groups of trials by the value of one parameter: its choices, or parts of its range with equally many."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.results.theme import short
from hpo.space import Choices, ordered

FEW = 4
"""A number of which trials have at most so many values is grouped by value."""


@dataclass(frozen=True)
class Grouping:
    """Trials by the groups of one parameter's values."""

    name: str
    """Of the parameter."""
    labels: tuple[str, ...]
    """Of its groups."""
    counts: tuple[int, ...]
    """Trials in each."""
    columns: npt.NDArray[np.float64]
    """[N, groups - 1]: which trials are in each group but the first, less its share of those that have the
    parameter; 0 for those that lack it. So what its condition names is compared at its average."""
    of_trials: tuple[int, ...]
    """[N] each trial's group; -1 where it lacks the parameter."""


def groupings(trials: Sequence[FrozenTrial], config: StudyConfig, parts: int) -> list[Grouping]:
    """A grouping for each parameter of which the trials have values in two groups or more.

    parts: groups of a number's range.
    """
    found = []
    for name in ordered(config.search):
        if any(name in trial.params for trial in trials):
            labels, groups = _grouped(name, trials, isinstance(config.search[name], Choices), parts)
            if len(labels) > 1:
                found.append(_grouping(name, labels, groups))
    return found


def _grouping(name: str, labels: Sequence[str], groups: Sequence[int]) -> Grouping:
    places = np.asarray(groups)
    counts = np.array([(places == group).sum() for group in range(len(labels))])
    inside = (places[:, None] == np.arange(1, len(labels))).astype(np.float64)
    columns = np.where(places[:, None] < 0, 0.0, inside - counts[1:] / counts.sum())
    return Grouping(name, tuple(labels), tuple(counts.tolist()), columns, tuple(groups))


def _grouped(
    name: str, trials: Sequence[FrozenTrial], categorical: bool, parts: int
) -> tuple[list[str], list[int]]:
    """Labels of the groups, and each trial's."""
    values = [trial.params[name] for trial in trials if name in trial.params]
    distinct = list(dict.fromkeys(values)) if categorical else sorted(set(values))
    if categorical or len(distinct) <= FEW:
        groups = {value: group for group, value in enumerate(distinct)}
        return [short(value) for value in distinct], [
            groups.get(trial.params.get(name), -1) for trial in trials
        ]
    cuts = np.unique(np.quantile(values, [part / parts for part in range(1, parts)]))
    group_of = {value: int(np.searchsorted(cuts, value, side="left")) for value in distinct}
    used = sorted(set(group_of.values()))
    inside = [[value for value in distinct if group_of[value] == group] for group in used]
    labels = [
        f"{short(some[0])} to {short(some[-1])}" if len(some) > 1 else short(some[0]) for some in inside
    ]
    renumbered = {group: place for place, group in enumerate(used)}
    return labels, [
        renumbered[group_of[trial.params[name]]] if name in trial.params else -1 for trial in trials
    ]
