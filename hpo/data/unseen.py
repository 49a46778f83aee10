"""Rows that a finished model is to predict: what its columns mean is known, and no row is lost.

A row that cannot be predicted stays, with the reason in its note.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer

from hpo.config import CsvData, StudyConfig
from hpo.data.csvfile import read_cells
from hpo.data.table import Features
from hpo.data.tabular import blank_to_missing, parsed_numbers, suggestion
from hpo.errors import DataError


@dataclass(frozen=True)
class Unseen:
    """Rows as they came in."""

    features: Features
    """Of those rows alone that can be predicted: as `preprocessing.transform` takes them."""
    usable: NDArray[np.bool_]
    """[N] whether a row can be predicted."""
    notes: tuple[str, ...]
    """[N] what was noticed in a row, or why it cannot be predicted; mostly nothing."""


@dataclass(frozen=True)
class Columns:
    """What a fitted transformer takes of a table."""

    numeric: tuple[str, ...]
    categories: dict[str, frozenset[str]]
    """Those known, by column."""
    zero_is_missing: frozenset[str]
    drop: bool
    """Whether the study left rows with missing cells out (`missing: drop`)."""

    @classmethod
    def of(cls, fitted: ColumnTransformer, config: StudyConfig) -> "Columns":
        parts = {name: (transformer, columns) for name, transformer, columns in fitted.transformers_}
        encoder, names = parts.get("categorical", (None, []))
        known = encoder[-1].categories_ if encoder is not None else []
        data = config.data
        return cls(
            tuple(parts["numeric"][1]) if "numeric" in parts else (),
            {name: frozenset(map(str, values)) for name, values in zip(names, known, strict=True)},
            frozenset(data.zero_is_missing if isinstance(data, CsvData) else ()),
            isinstance(data, CsvData) and data.missing == "drop",
        )

    def read(self, where: str, frame: pd.DataFrame) -> Unseen:
        """frame: cells as text, "" where missing, or as numbers; other columns than these are not looked at.

        Raises:
            DataError: it lacks a column.
        """
        self._check_columns(where, [str(name) for name in frame])
        notes = _Notes(len(frame), "the study left such rows out" if self.drop else "filled in")
        columns: dict[str, NDArray[Any]] = {
            name: self._numbers(name, _column(frame, name), notes) for name in self.numeric
        }
        for name, known in self.categories.items():
            columns[name] = _category(name, _column(frame, name), known, notes)
        features = pd.DataFrame(columns)
        usable = ~notes.missing if self.drop else np.ones(len(frame), dtype=bool)
        return Unseen(features[usable], usable, notes.texts())

    def _check_columns(self, where: str, names: list[str]) -> None:
        needed = [*self.numeric, *self.categories]
        missing = [name for name in needed if name not in names]
        if len(missing) > 1:
            raise DataError(
                f"{where}: has no columns {', '.join(map(repr, missing))}; it has {', '.join(names)}"
            )
        if missing:
            raise DataError(f"{where}: has no column {missing[0]!r}{suggestion(missing[0], names)}")
        if repeated := [name for name in needed if names.count(name) > 1]:
            raise DataError(f"{where}: more than one column is called {repeated[0]!r}")

    def _numbers(self, name: str, cells: pd.Series, notes: "_Notes") -> NDArray[np.float64]:
        values = _parsed(name, cells, notes)
        if name in self.zero_is_missing:
            zeros = values == 0
            notes.lacking(zeros, f"column {name!r}: 0 means missing")
            values[zeros] = np.nan
        return values


class _Notes:
    """What is noticed of each row."""

    def __init__(self, rows: int, consequence: str) -> None:
        self._found: dict[int, list[str]] = {}
        self._consequence = consequence
        self.missing = np.zeros(rows, dtype=bool)

    def add(self, row: int, text: str) -> None:
        self._found.setdefault(row, []).append(text)

    def lacking(self, mask: NDArray[np.bool_], text: str, cells: pd.Series | None = None) -> None:
        """Rows whose cell counts as missing; with `cells` the text is about what stands there."""
        self.missing |= mask
        for row in np.flatnonzero(mask):
            shown = text if cells is None else text.format(str(cells.iloc[row])[:60])
            self.add(int(row), f"{shown}, {self._consequence}")

    def texts(self) -> tuple[str, ...]:
        return tuple("; ".join(self._found.get(row, [])) for row in range(len(self.missing)))


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame.iloc[:, [str(column) for column in frame].index(name)].reset_index(drop=True)


def _parsed(name: str, cells: pd.Series, notes: _Notes) -> NDArray[np.float64]:
    """As float64, nan where a cell is missing or no number that float32 can hold."""
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_complex_dtype(cells):
        values = cells.to_numpy(np.float64, na_value=np.nan, copy=True)
        dirt = np.abs(values) > np.finfo(np.float32).max
        values[dirt] = np.nan
        missing = np.isnan(values) & ~dirt
    else:
        text = pd.Series(["" if pd.isna(cell) else str(cell) for cell in cells], dtype=object)
        values, dirt, present = parsed_numbers(text)
        missing = ~present
    quoted = f"column {name!r}".replace("{", "{{").replace("}", "}}")
    notes.lacking(dirt, quoted + ": {!r} is no number", cells)
    notes.lacking(missing, f"column {name!r}: missing")
    return values


def _category(name: str, cells: pd.Series, known: frozenset[str], notes: _Notes) -> NDArray[np.object_]:
    text = pd.Series(["" if pd.isna(cell) else str(cell) for cell in cells], dtype=object)
    values = blank_to_missing(text).to_numpy(object, copy=True)
    absent = np.asarray(pd.isna(values), dtype=bool)
    notes.lacking(absent, f"column {name!r}: missing")
    for row in np.flatnonzero(~absent):
        if values[row] in known:
            continue
        whole = re.sub(r"\.0$", "", values[row])  # pandas makes 1.0 of 1 where another cell is missing
        if whole in known:
            values[row] = whole
        else:
            notes.add(
                int(row),
                f"column {name!r}: unknown category {values[row][:60]!r}, taken as none of those known",
            )
    return values


def read_csv(
    where: str, content: bytes, config: StudyConfig, columns: Columns | None, width: int
) -> tuple[Unseen, NDArray[np.int64]]:
    """The rows of a CSV file, and the line on which each begins.

    columns: None for a model of columns without names, of which `width` must be there, in their order.

    Raises:
        DataError: the file is no table, or lacks a column.
    """
    delimiter = config.data.delimiter if isinstance(config.data, CsvData) else None
    hint = next(iter((*columns.numeric, *columns.categories)), "") if columns else ""
    cells = read_cells(where, content, delimiter, hint)
    if columns is not None:
        return columns.read(where, cells.frame), cells.lines
    found = cells.frame.shape[1]
    if found != width:
        raise DataError(
            f"{where}: has {found} columns; the network takes {width}, without names, in their order"
        )
    named = Columns(tuple(map(str, cells.frame)), {}, frozenset(), drop=False)
    unseen = named.read(where, cells.frame)
    features: Any = unseen.features
    return Unseen(features.to_numpy(np.float64), unseen.usable, unseen.notes), cells.lines


def read_array(where: str, array: NDArray[Any], shape: tuple[int, ...]) -> Unseen:
    """Examples as numbers: [N, *shape]; where an example is a row of numbers, nan is filled in.

    Raises:
        DataError: another shape, or no numbers.
    """
    if array.shape[1:] != shape or array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: is an array of {array.dtype} and shape {list(array.shape)}; must be of numbers, "
            f"[N, {', '.join(map(str, shape))}]"
        )
    values: NDArray[np.floating] = array.astype(np.float64) if len(shape) == 1 else array.astype(np.float32)
    usable, notes = np.ones(len(values), dtype=bool), [""] * len(values)
    flat = values.reshape(len(values), -1)
    bad = ~np.isfinite(flat) if len(shape) > 1 else np.abs(flat) > np.finfo(np.float32).max
    for row in np.flatnonzero(bad.any(axis=1)):
        usable[row] = False
        notes[row] = "has numbers that are not finite"
    return Unseen(values[usable], usable, tuple(notes))
