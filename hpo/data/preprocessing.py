"""Raw columns → network inputs: imputation, scaling and encoding as fitted scikit-learn objects."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from hpo.data.normalization import per_feature
from hpo.data.prepared import Normalization
from hpo.data.table import Features

TRUSTED = ["numpy.dtype"]
"""For `skops.io.load(file, trusted=TRUSTED)`: scikit-learn's SimpleImputer keeps the dtype it was fitted on,
and skops 0.16 does not list NumPy's dtypes, which run no code, among the types it trusts by itself."""


def fit(features: Features, missing: str) -> Any:
    """A fitted transformer of `features`.

    For named columns it takes a DataFrame with these columns (in any order, others are ignored), for
    [N, F] such an array, and for [N, ...] the array flattened to [N, F], scaled by one mean and one
    deviation for all. Under `missing: drop` it still fills cells in (median), for rows to be predicted.
    """
    strategy = "median" if missing == "drop" else missing
    if isinstance(features, pd.DataFrame):
        return _columns(features, strategy).fit(features)
    if features.ndim == 2:
        return _numeric(strategy).fit(features)
    return _pooled_scaler(features.astype(np.float32, copy=False))


def transform(fitted: Any, features: Features, reference: Any = None) -> Tensor:
    """[N, *input_shape] float32.

    Args:
        fitted: from `fit`.
        reference: another fitted transformer of the same columns, whose one-hot layout the result takes
            over: a category that `fitted` has not seen is 0 everywhere, as an unknown one always is. So
            every fold is as wide as the final training part, and still knows only its own training part.
    """
    if isinstance(features, np.ndarray) and features.ndim > 2:
        flat = fitted.transform(features.reshape(len(features), -1))
        return torch.from_numpy(flat.reshape(features.shape))
    values = np.asarray(fitted.transform(features), dtype=np.float32)
    if reference is None or not _categories(fitted):
        return torch.from_numpy(values)
    source, target, width = _placement(fitted, reference, values.shape[1])
    placed = np.zeros((len(values), width), dtype=np.float32)
    placed[:, target] = values[:, source]
    return torch.from_numpy(placed)


def image_scaler(normalization: Normalization, shape: tuple[int, ...]) -> StandardScaler:
    """The transformer of images [N, *shape] of 0 to 255, flattened to [N, F].

    shape: channels, height, width.
    """
    pixels = int(np.prod(shape[1:]))
    means, deviations = (
        per_feature(values, pixels) for values in (normalization.means, normalization.deviations)
    )
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = means, deviations, deviations**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(means), 1
    return scaler


def normalized(images: NDArray[np.uint8], normalization: Normalization) -> Tensor:
    """What `image_scaler` makes of them, not flattened: [N, channels, height, width] float32."""
    means, deviations = (
        torch.tensor(values).view(-1, 1, 1) for values in (normalization.means, normalization.deviations)
    )
    return torch.from_numpy(images).float().sub_(means).div_(deviations)


def _numeric(strategy: str) -> Pipeline:
    return make_pipeline(SimpleImputer(strategy=strategy, keep_empty_features=True), StandardScaler())


def _categorical() -> Pipeline:
    return make_pipeline(
        SimpleImputer(strategy="most_frequent", keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32),
    )


def _columns(features: pd.DataFrame, strategy: str) -> ColumnTransformer:
    numeric = [name for name in features if pd.api.types.is_numeric_dtype(features[name])]
    categorical = [name for name in features if name not in numeric]
    parts = [("numeric", _numeric(strategy), numeric), ("categorical", _categorical(), categorical)]
    return ColumnTransformer([part for part in parts if part[2]])


def _pooled_scaler(features: NDArray[np.floating]) -> StandardScaler:
    scaler = StandardScaler().fit(features.reshape(-1, 1))
    width = int(np.prod(features.shape[1:]))
    for statistic in ("mean_", "scale_", "var_"):
        setattr(scaler, statistic, np.repeat(getattr(scaler, statistic), width))
    scaler.n_features_in_ = width
    return scaler


def _categories(fitted: Any) -> list[NDArray[np.object_]]:
    if not isinstance(fitted, ColumnTransformer) or "categorical" not in fitted.named_transformers_:
        return []
    categories: list[NDArray[np.object_]] = fitted.named_transformers_["categorical"][-1].categories_
    return categories


def _placement(fitted: Any, reference: Any, width: int) -> tuple[list[int], list[int], int]:
    """Columns of `fitted`'s output, the columns of `reference`'s where they go, and its width."""
    numeric = width - sum(map(len, _categories(fitted)))
    source, target = list(range(numeric)), list(range(numeric))
    at, start = numeric, numeric
    for own, every in zip(_categories(fitted), _categories(reference), strict=True):
        place = {category: start + index for index, category in enumerate(every)}
        for category in own:
            if category in place:  # one that stood in for a column without any value is not
                source.append(at)
                target.append(place[category])
            at += 1
        start += len(every)
    return source, target, start
