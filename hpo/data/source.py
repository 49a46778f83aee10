"""The raw data that a study file names: first what identifies them, then their rows."""

import difflib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hpo.config import CsvData, FolderData, IdxData, SklearnData, StudyConfig, TorchvisionData, UserData
from hpo.data import torchvision_sets
from hpo.data.arrays import call_load, digest, load_sklearn
from hpo.data.emnist import characters
from hpo.data.idx import find_files, read_part
from hpo.data.images import RawImages
from hpo.data.table import RawTable
from hpo.data.tabular import parse_csv
from hpo.errors import DataError
from hpo.usercode import load_function


@dataclass(frozen=True)
class Source:
    """Raw data that have been identified, but perhaps not yet parsed."""

    content: str
    """What is equal for equal content, wherever it lies."""
    read: Callable[[], RawTable | RawImages]
    """Raises DataError."""


def open_source(config: StudyConfig) -> Source:
    """The raw data of a study.

    Files are identified by their bytes; a data set of scikit-learn by its name and scikit-learn's version.
    A function of the user's is called and identified by the arrays that it returns: its source says nothing
    of the files it reads, and a stale cache would be worse than a call for each worker.

    Raises:
        DataError: there is no such file, or the user's function raised or returned something else.
        UserCodeError: the user's function cannot be loaded.
    """
    data = config.data
    match data:
        case CsvData():
            return _csv(data, config.folder / data.path)
        case SklearnData():
            version = importlib.metadata.version("scikit-learn")
            return Source(f"{data.name} {version}", lambda: load_sklearn(data))
        case IdxData():
            return _idx(data, config.folder / data.path)
        case FolderData():
            return _folder(data, config.folder / data.path)
        case TorchvisionData():
            root = config.folder / data.path
            files = torchvision_sets.present(data, root)
            return Source(_digest(files), lambda: torchvision_sets.read(data, root))
        case UserData():
            raw = call_load(load_function(data.source, config.folder), data)
            return Source(digest(raw), lambda: raw)


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


def _idx(data: IdxData, folder: Path) -> Source:
    files = find_files(folder, data.prefix)
    names = data.class_names or characters(files.prefix)

    def read() -> RawImages:
        test = read_part(files.test, data.transposed) if files.test else None
        return RawImages(read_part(files.train, data.transposed), test, tuple(names) if names else None)

    # The prefix tells EMNIST's splits apart, whose labels have other names.
    return Source(f"{_digest(files.all())} {''.join(names or ())}", read)


def _folder(data: FolderData, folder: Path) -> Source:
    from hpo.data.imagefolder import list_folder, read_folder  # here, as Pillow is needed for nothing else

    listing = list_folder(folder)
    return Source(listing.digest(), lambda: read_folder(listing, data))


def _digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the files' own, in their order."""
    sha = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return sha.hexdigest()
