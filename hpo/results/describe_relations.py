"""How a table's columns relate: to the target, to each other, and between training and validation part."""

from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

from hpo.results.describe_columns import is_numeric
from hpo.results.describe_groups import View
from hpo.results.metrics import Record
from hpo.results.paired import holm

MUTUAL_ROWS = 3000
"""That mutual information is estimated on: it takes 10 ms a column."""
SHUFFLES = 2
LEVEL = 0.01
"""Corrected p value below which a column drifts."""


class Information(Record):
    """What a column tells about the target, on its own."""

    column: str
    bits: float


class MutualInformation(Record):
    """By column, the most telling one first."""

    rows: int
    columns: tuple[Information, ...]
    noise: float
    """Bits that a column seems to have where the target is shuffled: the most of all columns."""


def mutual_information(view: View) -> MutualInformation:
    """Of each column and the target, by nearest neighbours (Kraskov et al., 2004; Ross, 2014)."""
    sample = view.sample(MUTUAL_ROWS)
    discrete = np.array([not is_numeric(sample.frame[name]) for name in sample.frame])
    features = np.column_stack([_filled(sample.frame[name]) for name in sample.frame])
    estimate = mutual_info_classif if view.classes else mutual_info_regression

    def bits(targets: Any) -> NDArray[np.float64]:
        found = estimate(features, targets, discrete_features=discrete, random_state=0)
        return cast("NDArray[np.float64]", found / np.log(2))

    random = np.random.default_rng(0)
    noise = max(float(bits(random.permutation(sample.targets)).max()) for _ in range(SHUFFLES))
    found = bits(sample.targets)
    return MutualInformation(
        rows=len(sample.frame),
        columns=tuple(
            Information(column=str(sample.frame.columns[index]), bits=float(found[index]))
            for index in np.argsort(-found, kind="stable")
        ),
        noise=noise,
    )


def _filled(column: pd.Series) -> NDArray[np.float64]:
    """Numbers with the median for missing ones; categories as codes."""
    if not is_numeric(column):
        return pd.factorize(column)[0].astype(np.float64)
    return column.fillna(column.median()).to_numpy(np.float64)


class Matrix(Record):
    """Coefficients between all pairs of these columns."""

    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    """None where a column is constant."""


class Correlations(Record):
    """What there are columns for: Pearson and Spearman of numbers, Cramér's V of categories."""

    pearson: Matrix | None
    spearman: Matrix | None
    cramer: Matrix | None


def correlations(view: View, most: int, first: list[str]) -> Correlations:
    """Between at most `most` columns of each kind, `first` ones first; the target is among them.

    Cells that are missing are left out pair by pair.
    """
    sample = view.sample(20_000)
    numbers = [name for name in first if is_numeric(sample.frame[name])][:most]
    categories = [name for name in first if name not in numbers and not is_numeric(sample.frame[name])]
    frame = sample.frame[numbers].copy()
    discrete = sample.frame[[name for name in categories if sample.frame[name].nunique() <= 50][:most]].copy()
    if view.classes:
        discrete["the target"] = [view.classes[int(code)] for code in sample.targets]
    else:
        frame["the target"] = sample.targets
    pair = frame.shape[1] > 1
    return Correlations(
        pearson=_matrix(frame.corr(method="pearson")) if pair else None,
        spearman=_matrix(frame.corr(method="spearman")) if pair else None,
        cramer=_matrix(_cramer(discrete)) if discrete.shape[1] > 1 else None,
    )


def _matrix(found: pd.DataFrame) -> Matrix:
    return Matrix(
        columns=tuple(map(str, found.columns)),
        values=tuple(
            tuple(None if np.isnan(value) else round(float(value), 4) for value in row)
            for row in found.to_numpy()
        ),
    )


def _cramer(frame: pd.DataFrame) -> pd.DataFrame:
    """Cramér's V of all pairs of columns."""
    size = frame.shape[1]
    found = np.eye(size)
    for row in range(size):
        for column in range(row):
            table = pd.crosstab(frame.iloc[:, row], frame.iloc[:, column]).to_numpy()
            found[row, column] = found[column, row] = association(table)
    return pd.DataFrame(found, columns=frame.columns)


def association(table: NDArray[np.int64]) -> float:
    """Cramér's V of a table of counts; nan where a side has one value only."""
    if min(table.shape, default=0) < 2:
        return float("nan")
    return float(stats.contingency.association(table, method="cramer"))


class Drift(Record):
    """Whether a column differs between the training and the validation part by more than chance."""

    column: str
    test: Literal["Kolmogorov-Smirnov", "chi-squared"]
    distance: float
    """The largest difference of the distribution functions; of categories Cramér's V."""
    p: float
    p_corrected: float
    """Holm's, for so many columns."""

    @property
    def drifts(self) -> bool:
        """By more than chance."""
        return self.p_corrected < LEVEL


def part_drifts(view: View) -> list[Drift]:
    """Each column's, the surest first; those without values in a part are left out."""
    tested = [found for name in view.frame if (found := _drift(view, str(name))) is not None]
    corrected = holm([p for _, _, _, p in tested])
    drifts = [
        Drift(column=name, test=test, distance=distance, p=p, p_corrected=after)
        for (name, test, distance, p), after in zip(tested, corrected, strict=True)
    ]
    return sorted(drifts, key=lambda drift: drift.p)


_Tested = tuple[str, Literal["Kolmogorov-Smirnov", "chi-squared"], float, float]


def _drift(view: View, name: str) -> _Tested | None:
    train, validation = (
        view.frame[name][~view.validation].dropna(),
        view.frame[name][view.validation].dropna(),
    )
    if not len(train) or not len(validation):
        return None
    if is_numeric(view.frame[name]):
        found = stats.ks_2samp(train, validation, method="asymp")
        return name, "Kolmogorov-Smirnov", float(found.statistic), float(found.pvalue)
    table = _common(pd.crosstab(view.frame[name], view.validation).to_numpy())
    if len(table) < 2:
        return None
    p = float(stats.chi2_contingency(table).pvalue)
    return name, "chi-squared", association(table), p


def _common(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts of categories by part, those expected fewer than 5 times in a part together as one."""
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    rare = expected.min(axis=1) < 5
    if not rare.any():
        return table
    rest = table[rare].sum(axis=0, keepdims=True)
    return np.concatenate([table[~rare], rest]) if rest.min() else table[~rare]
