"""A delimited text file as a table of strings that know their lines; nothing here knows what a cell means."""

import csv
import io
import itertools
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.errors import DataError

DELIMITERS = (",", ";", "\t", "|", ":", "^", "~", " ")
"""Looked for in this order; a space stands for any run of spaces and tabs."""
SAMPLE = 100
"""Lines from the start of a file that its delimiter is found in."""
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Cells:
    """The rows below the header, as text."""

    frame: pd.DataFrame
    """Strings, "" where nothing stands (short rows too); one column for each name of the header."""
    lines: NDArray[np.int64]
    """The line of the file on which each row begins, counted from 1."""
    blank_lines: int


def read_cells(where: str, content: bytes, delimiter: str | None, target: str) -> Cells:
    """Split the file `content` into cells.

    Args:
        where: the file's name, for messages.
        delimiter: found by itself if None: the one under which most lines have as many cells as the header,
            among those under which the header names `target`, if there are any.

    Raises:
        DataError: the file is empty, binary or not UTF-8, has no rows, repeats a column name, has a row of
            too many cells, or a quote that is never closed.
    """
    text = _decode(where, content)
    delimiter = delimiter or _sniff(text, target)
    if delimiter in {'"', "\r", "\n"}:
        raise DataError(f"{where}: {delimiter!r} (data.delimiter) cannot stand between cells")
    try:
        frame = _parse(where, text, delimiter, _header_width(where, text, delimiter))
    except csv.Error as error:  # a cell beyond 128 KiB
        raise DataError(f"{where}: {error}; is a quote never closed?") from error
    lines = _starting_lines(frame, quoted='"' in text)
    filled = np.flatnonzero((frame != "").to_numpy().any(axis=1))
    blank_lines = len(frame) - len(filled)
    frame, lines = frame.iloc[filled], lines[filled]
    if len(frame) < 2:
        raise DataError(f"{where}: has a header with {frame.shape[1]} columns, but no rows below it")
    frame = _name_columns(where, frame)
    return Cells(frame.iloc[1:].reset_index(drop=True), lines[1:], blank_lines)


def _decode(where: str, content: bytes) -> str:
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        raise DataError(f"{where}: is UTF-16 text; save it as UTF-8")
    if (offset := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(f"{where}: is not a text file: NUL byte at offset {offset} (line {line})")
    try:
        text = content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + (len(BOM) if content.startswith(BOM) else 0)
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{where}: is not UTF-8: byte 0x{content[offset]:02x} at offset {offset} (line {line}); "
            "save it as UTF-8"
        ) from error
    if not re.search(r"\w", text):
        raise DataError(f"{where}: is empty; expected a header line and rows")
    return text


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank: the line on which it begins, and its cells."""
    if delimiter == " ":
        for number, line in enumerate(io.StringIO(text, newline=""), start=1):
            if line.strip():
                yield number, line.split()
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    begins = 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            yield begins, [cell.strip() for cell in cells]
        begins = reader.line_num + 1


def _sniff(text: str, target: str) -> str:
    sample = "".join(itertools.islice(io.StringIO(text, newline=""), SAMPLE))
    best, best_score = DELIMITERS[0], (False, 0.0, 1)
    for delimiter in DELIMITERS:
        try:
            rows = [cells for _, cells in _records(sample, delimiter)]
        except csv.Error:  # a cell beyond 128 KiB: not this one
            continue
        width = len(rows[0])
        agreeing = sum(len(row) == width for row in rows) / len(rows)
        score = (target in rows[0], agreeing, width)
        if width > 1 and score > best_score:
            best, best_score = delimiter, score
    return best


def _header_width(where: str, text: str, delimiter: str) -> int:
    for _, cells in _records(text, delimiter):
        return len(cells)
    raise DataError(f"{where}: has no header: nothing stands between the delimiters {delimiter!r}")


def _parse(where: str, text: str, delimiter: str, width: int) -> pd.DataFrame:
    """All records, the header among them.

    pandas takes the first column for an index when rows end in a delimiter and the header does not, and
    cuts long rows off when told not to. So it is given one column more than there are names, in which
    nothing may stand.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # it would cut the first row off
            frame = pd.read_csv(
                io.StringIO(text, newline=""),
                sep=r"\s+" if delimiter == " " else delimiter,
                header=None,
                names=[str(index) for index in range(width + 1)],
                index_col=False,
                dtype=object,
                na_filter=False,
                skip_blank_lines=False,
                skipinitialspace=True,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        if quote := re.search(r"EOF inside string starting at row (\d+)", str(error)):
            row = int(quote[1]) + 1
            raise DataError(f'{where}: a quote (") that opens in row {row} is never closed') from error
        raise _too_many_cells(where, text, delimiter, width) or DataError(f"{where}: {error}") from error
    surplus = frame.pop(str(width))
    if (surplus.str.strip() != "").any():
        raise _too_many_cells(where, text, delimiter, width) or DataError(f"{where}: a row is too long")
    return frame


def _too_many_cells(where: str, text: str, delimiter: str, width: int) -> DataError | None:
    for line, cells in _records(text, delimiter):
        if len(cells) > width + 1 or any(cells[width:]):
            return DataError(f"{where}: line {line} has {len(cells)} cells, but the header has {width}")
    return None


def _starting_lines(frame: pd.DataFrame, quoted: bool) -> NDArray[np.int64]:
    lines = np.arange(1, len(frame) + 1, dtype=np.int64)
    if quoted:  # a quoted cell may hold line breaks, which move the rows below it
        breaks = sum(frame[column].str.count("\n").to_numpy(np.int64) for column in frame)
        lines[1:] += np.cumsum(breaks)[:-1]
    return lines


def _name_columns(where: str, frame: pd.DataFrame) -> pd.DataFrame:
    names = [str(name).strip() for name in frame.iloc[0]]
    used = [
        index for index, name in enumerate(names) if name or (frame.iloc[1:, index].str.strip() != "").any()
    ]
    frame = frame.iloc[:, used]  # a delimiter at the end of the header makes no column
    named = [names[index] or f"Unnamed: {index}" for index in used]  # as pandas calls it
    repeated = sorted({name for name in named if named.count(name) > 1})
    if repeated:
        raise DataError(f"{where}: more than one column is called {', '.join(map(repr, repeated))}")
    return frame.set_axis(named, axis="columns")
