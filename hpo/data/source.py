"""The raw data that a study file names: first what identifies them, then their rows."""

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sklearn

from hpo.config import CsvData, SklearnData, StudyConfig, UserData
from hpo.data.arrays import call_load, digest, load_sklearn
from hpo.data.table import RawTable
from hpo.data.tabular import parse_csv
from hpo.errors import DataError
from hpo.usercode import load_function


@dataclass(frozen=True)
class Source:
    """Raw data that have been identified, but perhaps not yet parsed."""

    content: str
    """What is equal for equal content, wherever it lies."""
    read: Callable[[], RawTable]
    """Raises DataError."""


def open_source(config: StudyConfig) -> Source:
    """The raw data of a study.

    A CSV file is identified by its bytes; a data set of scikit-learn by its name and scikit-learn's version.
    A function of the user's is called and identified by the arrays that it returns: its source says nothing
    of the files it reads, and a stale cache would be worse than a call for each worker.

    Raises:
        DataError: there is no such file, or the user's function raised or returned something else.
        UserCodeError: the user's function cannot be loaded.
    """
    data = config.data
    if isinstance(data, CsvData):
        return _csv(data, config.folder / data.path)
    if isinstance(data, SklearnData):
        return Source(f"{data.name} {sklearn.__version__}", lambda: load_sklearn(data))
    if isinstance(data, UserData):
        raw = call_load(load_function(data.source, config.folder), data)
        return Source(digest(raw), lambda: raw)
    raise TypeError(f"no reader for {type(data).__name__}")


def _csv(data: CsvData, path: Path) -> Source:
    if path.is_dir():
        raise DataError(f"{path}: is a folder (data.path); expected a CSV file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read (data.path): {error.strerror}{_nearby(path)}") from error
    return Source(hashlib.sha256(content).hexdigest(), lambda: parse_csv(str(path), content, data))


def _nearby(path: Path) -> str:
    if path.exists() or not path.parent.is_dir():
        return ""
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
