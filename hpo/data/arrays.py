"""Data that come as arrays: scikit-learn's own data sets, and what a function of the user's returns."""

import hashlib
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from hpo.config import SklearnData, UserData
from hpo.data.images import Labelled, RawImages
from hpo.data.table import Features, RawTable
from hpo.errors import DataError

RETURNS = (
    "load must return (features, targets): NumPy arrays, torch tensors or pandas objects, "
    "features [N, F] or [N, ...], targets [N]"
)


def load_sklearn(data: SklearnData) -> RawTable | RawImages:
    """A data set of scikit-learn; diabetes in its own units.

    Its default is scaled by the statistics of all rows, the test part's among them.
    """
    import sklearn.datasets  # here: a worker reads the prepared data, and this takes a second

    if data.images:
        digits = sklearn.datasets.load_digits()
        pixels = digits.images.astype(np.uint8)[:, None]  # whole numbers from 0 to 16
        return RawImages(
            Labelled("scikit-learn's digits", pixels, digits.target.astype(np.int64)), None, None
        )
    options = {"scaled": False} if data.name == "diabetes" else {}
    bunch = getattr(sklearn.datasets, f"load_{data.name}")(as_frame=True, **options)
    labels = bunch.target.to_numpy(object)
    if data.name in {"breast_cancer", "wine", "iris"}:
        labels = np.asarray(bunch.target_names, dtype=object)[bunch.target]
    return _table(f"scikit-learn's {data.name}", bunch.data.astype(np.float64), labels)


def call_load(load: Any, data: UserData) -> RawTable:
    """What the user's `load` returns, as a table.

    Raises:
        DataError: `load` raised, or returned something else than features and targets of equal length.
    """
    try:
        returned = load(**data.options)
    except Exception as error:
        raise DataError(f"{data.source}: raised {type(error).__name__}: {error}") from error
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        size = f" of {len(returned)}" if isinstance(returned, tuple | list) else ""
        raise DataError(f"{data.source}: returned {_article(returned)}{size}; {RETURNS}")
    features, labels = _features(data.source, returned[0]), _labels(data.source, returned[1])
    if len(features) != len(labels):
        raise DataError(
            f"{data.source}: returned {len(features)} rows of features, but {len(labels)} targets"
        )
    if len(labels) == 0:
        raise DataError(f"{data.source}: returned no rows")
    return _table(data.source, features, labels)


def digest(raw: RawTable) -> str:
    """SHA-256 of the rows, labels and column names."""
    sha = hashlib.sha256(str(raw.features.shape).encode())
    if isinstance(raw.features, pd.DataFrame):
        for name, column in raw.features.items():
            sha.update(repr(str(name)).encode())
            sha.update(_bytes(column.to_numpy()))
    else:
        sha.update(np.ascontiguousarray(raw.features).data)
    sha.update(_bytes(raw.labels))
    return sha.hexdigest()


def _bytes(values: NDArray[Any]) -> bytes:
    return values.tobytes() if values.dtype == np.float64 else repr(values.tolist()).encode()


def _table(where: str, features: Features, labels: NDArray[np.object_]) -> RawTable:
    return RawTable(where, features, labels, np.arange(1, len(labels) + 1), "row")


def _article(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _to_numpy(where: str, what: str, value: object) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    elif isinstance(value, pd.Series | pd.DataFrame):
        value = value.to_numpy()
    if not isinstance(value, np.ndarray):
        raise DataError(f"{where}: its {what} are {_article(value)}; {RETURNS}")
    return value


def _features(where: str, value: object) -> Features:
    if isinstance(value, pd.DataFrame):
        return _frame(where, value)
    array = _to_numpy(where, "features", value)
    if array.ndim < 2:
        raise DataError(f"{where}: its features have the shape {array.shape}; need [N, F] or [N, ...]")
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: its features are an array of {array.dtype}, which are no real numbers; "
            "categories belong in a pandas DataFrame"
        )
    if array.ndim == 2:
        _refuse_infinite(where, array)
        return array.astype(np.float64)
    with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
        images = array.astype(np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        place = tuple(int(index) for index in np.argwhere(bad)[0])
        raise DataError(
            f"{where}: {bad.sum()} of its features are nan or infinite, the first at {list(place)}"
        )
    return images


def _frame(where: str, frame: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in frame]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{where}: more than one column is called {', '.join(map(repr, repeated))}")
    columns = {
        name: _frame_column(where, name, frame.iloc[:, index].infer_objects())
        for index, name in enumerate(names)
    }
    return pd.DataFrame(columns, index=pd.RangeIndex(len(frame)))


def _frame_column(where: str, name: str, column: pd.Series) -> NDArray[Any]:
    types = pd.api.types
    if types.is_numeric_dtype(column) and not types.is_complex_dtype(column):
        values = column.to_numpy(np.float64, na_value=np.nan)
        _refuse_infinite(f"{where}: column {name!r}", values)
        return values
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        raise DataError(f"{where}: column {name!r} holds {column.dtype}; turn times into numbers")
    return np.array([np.nan if pd.isna(cell) else str(cell) for cell in column], dtype=object)


def _refuse_infinite(where: str, values: NDArray[Any]) -> None:
    bad = np.abs(values) > np.finfo(np.float32).max if values.dtype.kind == "f" else np.zeros(0, bool)
    if bad.any():
        row = int(np.argwhere(bad)[0][0]) + 1
        raise DataError(
            f"{where}: {bad.sum()} features are infinite or beyond float32, the first in row {row}"
        )


def _labels(where: str, value: object) -> NDArray[np.object_]:
    array = _to_numpy(where, "targets", value)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"{where}: its targets have the shape {array.shape}; need one class or number a row, [N]"
        )
    return cast("NDArray[np.object_]", array.astype(object))
