"""The columns of a table: what they hold, what is missing, and which cells look wrong."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from hpo.data.unsealed import UnsealedTable
from hpo.results.metrics import Record

Values = NDArray[np.float64]
NAMED = 10
"""Cells of a column that are named one by one."""
SHOWN = 60
"""Characters of a cell's text."""

FAR = 6.0
"""Robust deviations from the median beyond which a cell is an outlier. Measured on 100,000 draws: normal and
log-normal ones stay below 5, exponential ones below 3."""
OUTLIER_RULE = (
    f"An outlier is more than {FAR:.0f} robust standard deviations (1.4826 times the median absolute "
    "deviation) from the column's median, after a Yeo-Johnson transform that is fitted to its middle 90 %: "
    "skew alone accuses no one. Where more than 2 % are so far out, the column has a heavy tail or a second "
    "group: then only those count, a tenth at most, that are twice as far out as all the others. Columns in "
    "which half of the cells are equal, or that have few values, are not judged."
)
FREQUENT, FEWEST = 0.02, 3
"""Share of a column (and number) beyond which what is far out may be a group of its own, or a heavy tail."""
GROUP = 0.1
"""Share of a column that absurd values have at most: more are a group."""
FEW = 10
"""Distinct values below which a column is not judged."""
APART = 3.0
"""Steps between the smallest other values that a suspicious zero is away from them, at least."""
ZERO_RULE = (
    "Zeros look like missing values where a column of positive numbers (10 or more different ones) has "
    "several, at most 60 %, and nothing near them: its smallest other number is at least a tenth of their "
    "median, and 3 times as far from zero as the smallest ones are from each other. Besides, a tenth of the "
    "cells are zero, or zero is 2.5 robust standard deviations below the median of the others."
)

Kind = Literal["number", "whole number", "category", "constant", "empty"]


class Cell(Record):
    """One cell, by its place."""

    place: int
    """Line of the file, or row of the array, counted from 1."""
    column: str
    value: str


class Column(Record):
    """One feature column, without the sealed rows."""

    name: str
    kind: Kind
    missing: int
    """Cells in which nothing stands, or that are declared as missing."""
    unparsable: int
    """Cells that were to be numbers."""
    zeros: int
    suspicious_zeros: bool
    distinct: int
    low: float | None = None
    median: float | None = None
    high: float | None = None
    commonest: str | None = None
    """Of categories."""
    outliers: int = 0
    outlier_cells: tuple[Cell, ...] = ()
    """The farthest ones first."""


def columns(table: UnsealedTable) -> list[Column]:
    """What each column holds."""
    dirt = {found.column: len(found.rows) for found in table.unparsable}
    return [_column(table, str(name), dirt.get(str(name), 0)) for name in table.frame]


def unparsable_cells(table: UnsealedTable) -> list[Cell]:
    """All cells that were to be numbers, from the top of the file to its end."""
    cells = [
        Cell(place=int(table.places[row]), column=found.column, value=text[:SHOWN])
        for found in table.unparsable
        for row, text in zip(found.rows, found.texts, strict=True)
    ]
    return sorted(cells, key=lambda cell: (cell.place, cell.column))


def is_numeric(column: pd.Series) -> bool:
    """Whether it holds numbers, not categories."""
    return bool(pd.api.types.is_numeric_dtype(column))


def _column(table: UnsealedTable, name: str, unparsable: int) -> Column:
    cells = table.frame[name]
    present = cells.dropna()
    distinct = present.nunique()
    missing = int(len(cells) - len(present)) - unparsable
    if not is_numeric(cells):
        kind: Kind = "empty" if not distinct else "constant" if distinct == 1 else "category"
        commonest = str(present.mode().iloc[0])[:SHOWN] if distinct else None
        return Column(
            name=name,
            kind=kind,
            missing=missing,
            unparsable=unparsable,
            zeros=0,
            suspicious_zeros=False,
            distinct=distinct,
            commonest=commonest,
        )
    values = cells.to_numpy(np.float64)
    found = values[np.isfinite(values)]
    suspicious = suspicious_zeros(found)
    far = outliers(np.where(values == 0, np.nan, values) if suspicious else values)
    return Column(
        name=name,
        kind=_number_kind(found, distinct),
        missing=missing,
        unparsable=unparsable,
        zeros=int((found == 0).sum()),
        suspicious_zeros=suspicious,
        distinct=distinct,
        low=float(found.min()) if len(found) else None,
        median=float(np.median(found)) if len(found) else None,
        high=float(found.max()) if len(found) else None,
        outliers=len(far),
        outlier_cells=tuple(
            Cell(place=int(table.places[row]), column=name, value=f"{values[row]:.6g}") for row in far[:NAMED]
        ),
    )


def _number_kind(found: Values, distinct: int) -> Kind:
    if not distinct:
        return "empty"
    if distinct == 1:
        return "constant"
    return "whole number" if bool((found == np.round(found)).all()) else "number"


def suspicious_zeros(found: Values) -> bool:
    """Whether the zeros of a column look like missing values, by `ZERO_RULE`."""
    zeros = int((found == 0).sum())
    others = np.unique(found[found != 0])
    if zeros < 2 or len(others) < FEW or others[0] < 0 or zeros > 0.6 * len(found):
        return False
    step = float(np.median(np.diff(others[:FEW])))
    middle, scale = _centre(found[found != 0])
    empty = others[0] >= max(APART * step, middle / 10)
    return bool(empty and (zeros >= len(found) / 10 or middle >= 2.5 * scale))


def outliers(values: Values) -> NDArray[np.int64]:
    """Indices of the outliers by `OUTLIER_RULE`, the farthest first.

    values: [N], nan where missing.
    """
    present = values[np.isfinite(values)]
    if len(np.unique(present)) < FEW:
        return np.zeros(0, np.int64)
    middle, scale = _centre(present)
    if scale == 0:
        return np.zeros(0, np.int64)
    standard = (values - middle) / scale
    low, high = np.nanpercentile(standard, [5, 95])
    core = standard[(standard >= low) & (standard <= high)]
    power = min(2.0, max(0.0, float(stats.yeojohnson(_evenly(core))[1])))  # beyond, it would swallow outliers
    moved = stats.yeojohnson(standard, power)
    middle, scale = _centre(moved[np.isfinite(moved)])
    if scale == 0:
        return np.zeros(0, np.int64)
    distance = np.nan_to_num(np.abs(moved - middle) / scale)
    order = np.argsort(-distance, kind="stable")
    return order[: _outlying(distance[order], len(present))]


def _outlying(distance: Values, count: int) -> int:
    """How many of the distances, the greatest first, are outliers of a column with `count` cells."""
    far = int((distance > FAR).sum())
    if far <= max(FEWEST, FREQUENT * count):
        return far
    apart = np.flatnonzero(distance[:far] >= 2 * distance[1 : far + 1]) + 1
    return int(apart[apart <= GROUP * count].max(initial=0))


def _evenly(values: Values, most: int = 5000) -> Values:
    """At most so many of the values, evenly spread over their ranks: enough to fit one power to."""
    if len(values) <= most:
        return values
    return np.sort(values)[np.linspace(0, len(values) - 1, most).astype(np.int64)]


def _centre(values: Values) -> tuple[float, float]:
    """Median and robust standard deviation."""
    middle = float(np.median(values))
    return middle, 1.4826 * float(np.median(np.abs(values - middle)))


class MissingRows(Record):
    """How many rows lack so many cells."""

    cells: int
    rows: int
    places: tuple[int, ...]
    """Some of them."""


def missing_rows(table: UnsealedTable) -> list[MissingRows]:
    """Rows by the number of cells that they lack (unparsable ones too), the emptiest first."""
    lacking = table.frame.isna().to_numpy().sum(axis=1)
    return [
        MissingRows(
            cells=int(count),
            rows=int((lacking == count).sum()),
            places=_first(table.places[lacking == count]),
        )
        for count in np.unique(lacking)[::-1]
        if count
    ]


def _first(places: Sequence[int] | NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(place) for place in places[:NAMED])
