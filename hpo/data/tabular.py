"""CSV files: which columns are numbers, which are categories, and which cells are missing."""

import difflib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.config import CsvData
from hpo.data.csvfile import Cells, read_cells
from hpo.data.prepared import Finding
from hpo.data.table import RawTable, Unparsable
from hpo.errors import DataError

NUMERIC_SHARE = 0.8
"""A column is numeric if at least this share of its cells that are not missing are finite numbers. Dirt is
rare (dataset.csv: 1 cell in 766); a column of codes such as `17, 2B, 18A` stays below and keeps its
categories."""

MISSING = frozenset(
    {"", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "-nan", "NAN", "NULL", "null", "Null", "<NA>"}
)
"""Cells that mean missing. `None` does not: in real tables it is a category (no disorder, no garage)."""

REPORTED_CELLS = 20
"""Unparsable cells of a column that are reported one by one; the others are counted."""


def parse_csv(where: str, content: bytes, data: CsvData) -> RawTable:
    """The table in the file `content`, its columns numbers or categories.

    Raises:
        DataError: the file is not a table (see `read_cells`), or a column that the configuration names is
            not there or of the wrong kind.
    """
    cells = read_cells(where, content, data.delimiter, data.target)
    _check_names(where, data, [str(name) for name in cells.frame])
    left_out = {data.target, *data.ignore}
    findings = [Finding("blank", f"{cells.blank_lines} blank lines")] if cells.blank_lines else []
    unparsable: list[Unparsable] = []
    columns: dict[str, pd.Series] = {}
    for name in cells.frame:
        if name not in left_out:
            columns[str(name)] = _column(where, data, cells, str(name), findings, unparsable)
    labels = blank_to_missing(cells.frame[data.target])
    features = pd.DataFrame(columns, index=cells.frame.index)
    values = labels.to_numpy(object)
    return RawTable(where, features, values, cells.lines, "line", tuple(findings), tuple(unparsable))


def _check_names(where: str, data: CsvData, names: list[str]) -> None:
    if data.target not in names:
        raise DataError(
            f"{where}: has no column {data.target!r} (data.target){suggestion(data.target, names)}"
        )
    features = [name for name in names if name != data.target]
    for key in ("zero_is_missing", "categorical", "ignore"):
        for name in getattr(data, key):
            if name not in features:
                raise DataError(
                    f"{where}: has no feature column {name!r} (data.{key}){suggestion(name, features)}"
                )
    for key in ("categorical", "ignore"):
        if both := sorted(set(getattr(data, key)) & set(data.zero_is_missing)):
            raise DataError(f"{where}: column {both[0]!r} is named in data.zero_is_missing and in data.{key}")


def suggestion(name: str, columns: list[str]) -> str:
    """What the column `name` may have been meant to be, and what there is."""
    by_lower_case = {column.lower(): column for column in columns}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f"; did you mean {by_lower_case[near[0]]!r}? It has " if near else "; it has "
    return f"{hint}{', '.join(columns[:100])}{' …' if len(columns) > 100 else ''}"


def blank_to_missing(cells: pd.Series) -> pd.Series:
    """Categories: the cells without the blanks around them, nan where missing."""
    stripped = cells.str.strip()
    return stripped.where(~stripped.isin(MISSING), np.nan)


def _column(
    where: str,
    data: CsvData,
    cells: Cells,
    name: str,
    findings: list[Finding],
    unparsable: list[Unparsable],
) -> pd.Series:
    """The column as floats or as categories; what was noticed joins `findings` and `unparsable`."""
    text = cells.frame[name]
    values, dirt, present = parsed_numbers(text)
    parsed = present.sum() - dirt.sum()
    numeric = parsed >= NUMERIC_SHARE * present.sum() and name not in data.categorical
    if not numeric:
        if name in data.zero_is_missing:
            first = text[dirt].iloc[0]
            raise DataError(
                f"{where}: column {name!r} (data.zero_is_missing) is not numeric: "
                f"{dirt.sum()} of {present.sum()} cells are no numbers, such as {first!r}"
            )
        categories = blank_to_missing(text)
        findings.extend(_too_many_categories(name, categories))
        return categories
    findings.extend(_unparsable(cells, name, dirt))
    if dirt.any():
        unparsable.append(Unparsable(name, np.flatnonzero(dirt), tuple(text[dirt])))
    if name in data.zero_is_missing:
        zeros = values == 0
        findings.append(Finding("zero", f"column {name!r}: {zeros.sum()} zeros count as missing"))
        values[zeros] = np.nan
    findings.extend(_row_number(name, values))
    return pd.Series(values, index=text.index)


def parsed_numbers(text: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
    """The cells as float64 (nan where that fails), which of them are dirt, and which are not missing.

    A number that float32 cannot hold is dirt: it would train as infinity.
    """
    values = np.array(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    bad = ~(np.abs(values) <= np.finfo(np.float32).max)
    values[bad] = np.nan
    missing = np.zeros(len(text), dtype=bool)
    missing[bad] = text[bad].str.strip().isin(MISSING)
    return values, bad & ~missing, ~missing


def _unparsable(cells: Cells, name: str, unparsable: NDArray[np.bool_]) -> list[Finding]:
    rows = np.flatnonzero(unparsable)
    findings = [
        Finding(
            "unparsable",
            f"line {cells.lines[row]}, column {name!r}: {cells.frame[name].iloc[row]!r} is no number "
            "and counts as missing",
        )
        for row in rows[:REPORTED_CELLS]
    ]
    if len(rows) > REPORTED_CELLS:
        more = f"column {name!r}: {len(rows) - REPORTED_CELLS} more cells are no numbers and count as missing"
        findings.append(Finding("unparsable", more))
    return findings


def _too_many_categories(name: str, categories: pd.Series) -> list[Finding]:
    """Names, dates and numbers with decimal commas make a feature for almost every row."""
    count = categories.nunique()
    if count <= max(20, len(categories) // 2):
        return []
    example = categories.dropna().iloc[0]
    text = f"column {name!r} has {count} categories in {len(categories)} rows, such as {example!r}"
    return [Finding("categories", f"{text}; `ignore: [{name}]` leaves it out")]


def _row_number(name: str, values: NDArray[np.float64]) -> list[Finding]:
    if len(values) < 3 or not (np.diff(values) == 1).all():
        return []
    return [Finding("row_number", f"column {name!r} only counts the rows; `ignore: [{name}]` leaves it out")]
