"""torchvision's data sets, in its own layout: downloaded by it, or read where they lie.

Importing torchvision takes seconds, so it waits until something is to be downloaded or unpickled.
"""

import fcntl
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hpo.config import TorchvisionData
from hpo.data.emnist import CHARACTERS
from hpo.data.idx import IdxFiles, read_part
from hpo.data.images import Labelled, RawImages
from hpo.errors import DataError

NAMES: dict[str, tuple[str, ...]] = {
    "MNIST": tuple("0123456789"),
    "FashionMNIST": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    "KMNIST": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
CIFAR: dict[str, tuple[str, tuple[str, ...]]] = {
    "CIFAR10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "CIFAR100": ("cifar-100-python", ("train", "test", "meta")),
}
"""Folder and files."""


def present(data: TorchvisionData, root: Path) -> tuple[Path, ...]:
    """The files of the data set, downloaded if they are not there.

    Raises:
        DataError: they are not there, and `download: false` forbids it or it fails.
    """
    missing = _missing(data, root)
    if missing:
        if not data.download:
            raise DataError(f"{missing[0]}: there is no such file, and data.download is false")
        _download(data, root)
        if missing := _missing(data, root):
            raise DataError(f"{missing[0]}: is not there, although torchvision has downloaded {data.name}")
    return _files(data, root)


def read(data: TorchvisionData, root: Path) -> RawImages:
    """Both parts of the data set, whose files are there.

    Raises:
        DataError: a file is damaged.
    """
    if data.name in CIFAR:
        return _read_cifar(data, root)
    train_images, train_labels, test_images, test_labels = _files(data, root)
    files = IdxFiles("", (train_images, train_labels), (test_images, test_labels))
    transposed = data.name == "EMNIST"
    names = tuple(CHARACTERS[_split(data)]) if transposed else NAMES[data.name]
    assert files.test is not None
    return RawImages(read_part(files.train, transposed), read_part(files.test, transposed), names)


def _split(data: TorchvisionData) -> str:
    return data.split or "balanced"


def _files(data: TorchvisionData, root: Path) -> tuple[Path, ...]:
    """Of the idx files that lie there plain and compressed, or not at all, the plain ones."""
    if data.name in CIFAR:
        folder, names = CIFAR[data.name]
        return tuple(root / folder / name for name in names)
    emnist = f"emnist-{_split(data)}-"
    prefixes = (f"{emnist}train", f"{emnist}test") if data.name == "EMNIST" else ("train", "t10k")
    raw = root / data.name / "raw"
    plain = [raw / f"{prefix}-{what}-ubyte" for prefix in prefixes for what in ("images-idx3", "labels-idx1")]
    return tuple(path if path.is_file() else _compressed(path) or path for path in plain)


def _compressed(path: Path) -> Path | None:
    beside = path.with_name(f"{path.name}.gz")
    return beside if beside.is_file() else None


def _missing(data: TorchvisionData, root: Path) -> list[Path]:
    return [path for path in _files(data, root) if not path.is_file()]


def _dataset(data: TorchvisionData, root: Path, train: bool, download: bool) -> Any:
    import torchvision.datasets

    options = {"split": _split(data)} if data.name == "EMNIST" else {}
    return getattr(torchvision.datasets, data.name)(root, train=train, download=download, **options)


def _download(data: TorchvisionData, root: Path) -> None:
    """With torchvision's progress bar on stderr."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            if _missing(data, root):  # another process may have done it while this one waited
                _dataset(data, root, train=True, download=True)
    except (OSError, RuntimeError) as error:  # OSError: URLError is one
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        raise DataError(
            f"{root}: {data.name} is not there and cannot be downloaded: {reason}; "
            f"it would lie as {_files(data, root)[0]}, and data.path names another folder"
        ) from error


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Of the processes on one machine, one downloads: torchvision writes straight into its files."""
    with (root / ".hpo-download").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_cifar(data: TorchvisionData, root: Path) -> RawImages:
    """torchvision checks the files' MD5 before it unpickles them."""
    folder = root / CIFAR[data.name][0]
    try:
        sets = [_dataset(data, root, train, download=False) for train in (True, False)]
    except (RuntimeError, OSError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{folder}: is damaged: {error}; delete it, and torchvision downloads it anew"
        ) from error
    train, test = (
        Labelled(
            str(folder),
            np.ascontiguousarray(found.data.transpose(0, 3, 1, 2)),
            np.asarray(found.targets, np.int64),
        )
        for found in sets
    )
    return RawImages(train, test, tuple(sets[0].classes))
