"""Files that a bundle is to predict: a table's rows by line, arrays' by row, or images by file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from hpo.data.unseen import Unseen, read_array, read_csv
from hpo.data.unseen_images import files_below, read_images, read_pixels
from hpo.errors import DataError

if TYPE_CHECKING:
    from hpo.results.bundle import Bundle

IMAGES = 256
"""Files that are decoded at a time."""


def predict_files(bundle: "Bundle", paths: Sequence[Path]) -> pd.DataFrame:
    """What `Bundle.predict` says of files. `line` is an array's row, from 1; an image has none.

    Raises:
        DataError: a file is missing, or cannot be read as a table or an array.
    """
    if not paths:
        raise DataError("there is no file to predict")
    arrays = [path for path in paths if path.suffix == ".npy"]
    others = [path for path in paths if path.suffix != ".npy"]
    read = [_array(bundle, path) for path in arrays]
    read += (
        _images(bundle, others)
        if bundle.normalization is not None
        else [_table(bundle, path) for path in others]
    )
    return pd.concat(read, ignore_index=True)


def _placed(bundle: "Bundle", unseen: Unseen, files: Iterable[Path], lines: Any) -> pd.DataFrame:
    said = bundle.predict_unseen(unseen)
    said.insert(0, "file", [_printable(path) for path in files])
    said.insert(1, "line", pd.array(lines, dtype="Int64"))
    return said


def _printable(path: Path) -> str:
    """File names are bytes, and need not be UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _table(bundle: "Bundle", path: Path) -> pd.DataFrame:
    if len(bundle.input_shape) != 1:
        raise DataError(
            f"{path}: the network takes arrays of shape {list(bundle.input_shape)}: a .npy file of [N, "
            f"{', '.join(map(str, bundle.input_shape))}]"
        )
    if path.is_dir():
        raise DataError(f"{path}: is a folder; the model takes CSV files")
    width = bundle.input_shape[0]
    unseen, lines = read_csv(str(path), _content(path), bundle.config, bundle.columns, width)
    return _placed(bundle, unseen, [path] * len(lines), lines)


def _array(bundle: "Bundle", path: Path) -> pd.DataFrame:
    if bundle.columns is not None:
        raise DataError(f"{path}: an array has no column names; the model takes CSV files")
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise DataError(f"{path}: holds no array of examples")
    if bundle.normalization is not None:
        unseen = read_pixels(str(path), array, bundle.config, bundle.input_shape)
    else:
        unseen = read_array(str(path), array, bundle.input_shape)
    return _placed(bundle, unseen, [path] * len(array), np.arange(1, len(array) + 1))


def _images(bundle: "Bundle", paths: Sequence[Path]) -> list[pd.DataFrame]:
    files = [file for path in paths for file in files_below(path)]
    return [
        _placed(bundle, read_images(chunk, bundle.config, bundle.input_shape), chunk, [None] * len(chunk))
        for chunk in _chunks(files)
    ]


def _chunks(files: list[Path]) -> Iterator[list[Path]]:
    for start in range(0, len(files), IMAGES):
        yield files[start : start + IMAGES]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
