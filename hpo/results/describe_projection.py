"""A table's rows as points: standardized columns, and their principal components."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from hpo.data.preprocessing import fit, transform
from hpo.results.describe_columns import is_numeric
from hpo.results.describe_groups import Groups, View

MOST_CATEGORIES = 50
"""Of a column that becomes a 0/1 column for each; one with more is left out."""
COMPONENTS = 10


def encoded(frame: pd.DataFrame) -> NDArray[np.float32]:
    """[N, F] standardized numbers, and a 0/1 column for each category; missing cells filled in."""
    used = [name for name in frame if is_numeric(frame[name]) or frame[name].nunique() <= MOST_CATEGORIES]
    if not used:
        return np.zeros((len(frame), 0), np.float32)
    cut = frame[used].apply(lambda column: drawn_in(column) if is_numeric(column) else column)
    return cast("NDArray[np.float32]", transform(fit(cut, "median"), cut).numpy())


def drawn_in(column: pd.Series) -> pd.Series:
    """Without what is twice as far out as the middle 98 %: one outlier would squeeze all others together."""
    low, high = float(column.quantile(0.01)), float(column.quantile(0.99))
    cut: pd.Series = column.clip(low - (high - low), high + (high - low))
    return cut


@dataclass(frozen=True)
class Projection:
    """Rows on their first two principal components."""

    points: NDArray[np.float64]
    """[N, 2]"""
    groups: Groups
    explained: tuple[float, ...]
    """Share of the variance of each component, the first ones."""


def project(view: View, rows: int) -> Projection | None:
    """At most so many rows; None where there are fewer than two columns or three rows."""
    sample = view.sample(rows)
    features = encoded(sample.frame)
    if features.shape[1] < 2 or len(features) < 3 or not features.std(axis=0).any():
        return None
    found = PCA(min(COMPONENTS, *features.shape), random_state=0)
    points = found.fit_transform(features)
    return Projection(points[:, :2].astype(np.float64), sample.groups, tuple(found.explained_variance_ratio_))
