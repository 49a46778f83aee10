"""What examples are told apart by in every figure: their class, or a third of the target's range."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.data.table import Targets
from hpo.data.unsealed import UnsealedTable


@dataclass(frozen=True)
class Groups:
    """Examples by group."""

    names: tuple[str, ...]
    codes: NDArray[np.int64]
    """[N] indices of `names`"""


def groups_of(targets: Targets, classes: tuple[str, ...]) -> Groups:
    """By class; of numbers to predict, by thirds with as many examples each."""
    if classes:
        return Groups(classes, targets.astype(np.int64))
    low, high = (float(cut) for cut in np.quantile(targets, [1 / 3, 2 / 3]))
    if not targets.min() < low < high < targets.max():
        return Groups(("all",), np.zeros(len(targets), np.int64))
    names = (f"target up to {low:.4g}", f"up to {high:.4g}", f"above {high:.4g}")
    return Groups(names, np.searchsorted([low, high], targets, side="left").astype(np.int64))


@dataclass(frozen=True)
class View:
    """The rows of a table that will be trained and validated on."""

    frame: pd.DataFrame
    """[N, F] as in `UnsealedTable`, without empty and constant columns"""
    targets: Targets
    places: NDArray[np.int64]
    validation: NDArray[np.bool_]
    groups: Groups
    classes: tuple[str, ...]

    def sample(self, rows: int) -> "View":
        """At most so many rows, drawn evenly; always the same ones."""
        if len(self.frame) <= rows:
            return self
        chosen = np.sort(np.random.default_rng(0).choice(len(self.frame), rows, replace=False))
        return View(
            self.frame.iloc[chosen],
            self.targets[chosen],
            self.places[chosen],
            self.validation[chosen],
            Groups(self.groups.names, self.groups.codes[chosen]),
            self.classes,
        )


def view_of(table: UnsealedTable, classes: tuple[str, ...]) -> View:
    """What remains of the table without the rows that cleaning drops."""
    kept = ~table.dropped
    frame = table.frame[kept]
    targets = table.targets[kept]
    return View(
        frame.loc[:, frame.nunique() > 1],
        targets,
        table.places[kept],
        table.validation[kept],
        groups_of(targets, classes),
        classes,
    )
