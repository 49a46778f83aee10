"""Fitted preprocessing as a file, and back: read without running code that came with it."""

import io
import json
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import skops.io
from sklearn.exceptions import InconsistentVersionWarning

from hpo.data.preprocessing import TRUSTED

TYPES = frozenset(
    {
        *(f"builtins.{name}" for name in ("dict", "list", "slice", "str", "tuple")),
        *(f"numpy.{name}" for name in ("bool", "dtype", "float32", "float64", "int64", "ndarray")),
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
    }
)
"""All that `hpo.data.preprocessing` fits is made of. skops by itself trusts hundreds of types."""
LOADERS = frozenset(
    f"{kind}Node" for kind in ("Dict", "DType", "Json", "List", "NdArray", "Object", "Slice", "Tuple", "Type")
)
"""The ways in which skops makes them; it also has some that call functions and methods."""
LARGEST = 2**30
"""Bytes of such a file, unpacked."""


def load_fitted(content: bytes) -> Any:
    """The transformer that skops wrote as `content`.

    Raises:
        ValueError: it is none, or holds a type that is not among `TYPES`; the text is for the user.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise ValueError(f"unpacks to more than {LARGEST:,} bytes")
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, RecursionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"is no skops file: {error}") from error
    if foreign := sorted(set(_types(schema)) - TYPES - LOADERS):
        raise ValueError(f"holds {foreign[0]}, which is no part of any preprocessing that hpo fits")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InconsistentVersionWarning)  # the caller compares versions
            return skops.io.loads(content, trusted=TRUSTED)
    except Exception as error:  # (whatever skops stumbles over: it does not check what it reads)
        raise ValueError(f"is no skops file that can be read: {type(error).__name__}: {error}") from error


def _types(node: Any) -> Iterator[str]:
    """The types and ways to make them that a skops schema names, wherever they stand in it."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            waiting.extend(node.values())
            if "__loader__" in node:
                yield str(node["__loader__"])
                yield f"{node.get('__module__')}.{node.get('__class__')}"
