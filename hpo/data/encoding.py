"""Cleaned rows as tensors, and back: safetensors holds nothing else."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from hpo.data.table import Rows


def encode(rows: Rows) -> tuple[dict[str, Tensor], list[Any] | None]:
    """Tensors, and the columns in their order: (name, categories or None if numeric); None without names.

    numeric: [N, F] float64, nan where missing. codes: [N, C] int64, -1 where missing. array: [N, ...].
    """
    targets = torch.from_numpy(rows.targets)
    if not isinstance(rows.features, pd.DataFrame):
        return {"array": torch.from_numpy(np.ascontiguousarray(rows.features)), "targets": targets}, None
    numeric, codes = [], []
    columns: list[tuple[Hashable, list[str] | None]] = []
    for name, column in rows.features.items():
        if pd.api.types.is_numeric_dtype(column):
            numeric.append(column.to_numpy(np.float64))
            columns.append((name, None))
        else:
            own_codes, categories = pd.factorize(column, sort=True)
            codes.append(own_codes.astype(np.int64))
            columns.append((name, list(categories)))
    tensors = {"targets": targets}
    for key, arrays in (("numeric", numeric), ("codes", codes)):
        if arrays:
            tensors[key] = torch.from_numpy(np.stack(arrays, axis=1))
    return tensors, columns


def decode(tensors: dict[str, Tensor], columns: list[Any] | None) -> Rows:
    """What `encode` was given."""
    targets = tensors["targets"].numpy()
    if columns is None:
        return Rows(tensors["array"].numpy(), targets)
    numeric = iter(tensors["numeric"].numpy().T) if "numeric" in tensors else iter(())
    codes = iter(tensors["codes"].numpy().T) if "codes" in tensors else iter(())
    features = {
        name: next(numeric)
        if categories is None
        else np.array([*categories, np.nan], dtype=object)[next(codes)]  # -1 is the last
        for name, categories in columns
    }
    return Rows(pd.DataFrame(features), targets)
