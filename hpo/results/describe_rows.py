"""The rows of a table: those that repeat each other, and those whose targets contradict each other."""

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.data.unsealed import UnsealedTable
from hpo.results.metrics import Record

NAMED = 10
"""Groups that are named one by one."""
IN_GROUP = 6
"""Places of one group."""


class Duplicates(Record):
    """Rows whose features are equal in every cell."""

    repeated: int
    """Rows that repeat an earlier one, target included."""
    contradicting: int
    """Rows that share all features with one of another target."""
    in_both: int
    """Validation rows that a training row equals in all features."""
    groups: tuple[tuple[int, ...], ...]
    """Places of rows that are equal, target included."""
    contradictions: tuple[tuple[tuple[int, str], ...], ...]
    """(place, target) of rows that are equal in all features and differ in their target."""


def duplicates(table: UnsealedTable, classes: tuple[str, ...]) -> Duplicates:
    """Which rows repeat each other; rows that cleaning drops are left out."""
    kept = ~table.dropped
    frame = table.frame[kept]
    targets, places, validation = table.targets[kept], table.places[kept], table.validation[kept]
    group = _groups(frame)
    with_target = _groups(pd.DataFrame({"group": group, "target": targets}))
    sizes = np.bincount(with_target, minlength=1)
    seen = pd.Series(with_target).duplicated().to_numpy(bool)
    targets_of_group = pd.Series(targets).groupby(group).nunique().to_numpy()
    contradicting = targets_of_group[group] > 1
    named = [str(classes[int(target)]) if classes else f"{target:.6g}" for target in targets]
    return Duplicates(
        repeated=int(seen.sum()),
        contradicting=int(contradicting.sum()),
        in_both=int(np.isin(group[validation], group[~validation]).sum()),
        groups=tuple(
            tuple(int(places[row]) for row in rows) for rows in _first(with_target, sizes[with_target] > 1)
        ),
        contradictions=tuple(
            tuple((int(places[row]), named[row]) for row in rows) for rows in _first(group, contradicting)
        ),
    )


def _groups(frame: pd.DataFrame) -> NDArray[np.int64]:
    """[N] a number for each distinct row; missing cells are equal to each other."""
    if not frame.shape[1]:
        return np.zeros(len(frame), np.int64)
    hashes = pd.util.hash_pandas_object(frame, index=False)  # of 64 bits
    return cast("NDArray[np.int64]", np.unique(hashes, return_inverse=True)[1].astype(np.int64))


def _first(group: NDArray[np.int64], among: NDArray[np.bool_]) -> list[list[int]]:
    """The rows of the first groups that have one in `among`, some of each."""
    rows = np.flatnonzero(among)
    found: dict[int, list[int]] = {}
    for row in rows.tolist():
        members = found.setdefault(int(group[row]), [])
        if len(members) < IN_GROUP:
            members.append(row)
    return list(found.values())[:NAMED]
