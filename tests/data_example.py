"""Studies on data that a test makes up: a table in a file, or what a user's function returns."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpo.config import StudyConfig

LOAD = """
import numpy as np, pandas as pd, torch
def load(kind="table", rows=60):
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    table = rng.normal(size=(rows, 4))
    images = rng.integers(0, 256, size=(rows, 1, 5, 6), dtype=np.uint8)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.choice(["u", "v", None], rows)})
    frame["c"] = labels > 1
    bad = images.astype(float)
    bad[7, 0, 1, 2] = np.nan
    return {
        "table": (table, labels),
        "holes": (np.where(table > 2, np.nan, table), labels),
        "tensors": (torch.tensor(table).bfloat16().requires_grad_(), torch.tensor(labels)[:, None]),
        "images": (images, labels.astype(str)),
        "frame": (frame, pd.Series(labels).map({0: "x", 1: "y", 2: "z"})),
        "bad image": (bad, labels),
        "infinite": (np.where(table > 2, np.inf, table), labels),
        "short": (table, labels[:-1]),
        "one": table,
        "list": (table.tolist(), labels),
        "flat": (labels, labels),
        "one-hot": (table, np.eye(3)[labels]),
        "text": (table.astype(str), labels),
        "nothing": (table[:0], labels[:0]),
        "dates": (pd.DataFrame({"when": pd.date_range("2020", periods=rows)}), labels),
        "nan labels": (table, np.where(labels == 1, np.nan, labels)),
    }[kind]
"""


def study(folder: Path, data: dict[str, Any], **keys: Any) -> StudyConfig:
    content = {"name": "x", "data": data, "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}}} | keys
    return StudyConfig.model_validate(content).at(folder)


def csv_study(
    folder: Path, rows: pd.DataFrame, data: dict[str, Any] | None = None, **keys: Any
) -> StudyConfig:
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "table.csv", index=False)
    return study(folder, {"source": "csv", "path": "table.csv", "target": "y"} | (data or {}), **keys)


def user_study(folder: Path, kind: str, code: str = LOAD, **keys: Any) -> StudyConfig:
    (folder / "mine.py").write_text(code)
    return study(folder, {"source": "mine.py:load", "options": {"kind": kind}}, **keys)


def mixed(rows: int = 200) -> pd.DataFrame:
    """Numbers and categories, both with holes; `id` tells in which part a row went."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": rng.permutation(rows).astype(float),
            "a": rng.normal(5, 3, rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "y": rng.integers(0, 2, rows),
        }
    )
    table.loc[::17, "a"] = np.nan
    table.loc[::13, "colour"] = np.nan
    return table
