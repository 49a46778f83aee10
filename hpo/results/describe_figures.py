"""Plotly figures of a study's data: balance, missing cells, distributions, what a column tells."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from hpo.results.describe import PartFacts
from hpo.results.describe_columns import Column, is_numeric
from hpo.results.describe_groups import Groups, View
from hpo.results.describe_images import Brightness
from hpo.results.describe_relations import MutualInformation
from hpo.results.theme import (
    BLUE,
    DASHES,
    GREY,
    ORANGE,
    PALETTE,
    SKY,
    VERMILLION,
    NothingToDraw,
    figure,
    text,
)

SERIES = 5
"""Groups that have a colour of their own; the others share one."""
BINS = 30
CATEGORIES = 12
BARS = 30
LABELLED = 40
"""Classes that have a label at the axis, at most."""
SYMBOLS = ["circle", "diamond", "square", "cross", "triangle-up", "x"]


@dataclass(frozen=True)
class Series:
    """A group of examples, as it is drawn."""

    name: str
    """Escaped."""
    rows: NDArray[np.bool_]
    color: str
    dash: str
    symbol: str


def cut(name: object, most: int) -> str:
    """`name` as plotly shows it literally, shortened."""
    whole = str(name)
    return text(whole if len(whole) <= most else whole[: most - 1] + "…")


def series(groups: Groups, most: int = 22) -> Iterator[Series]:
    """The largest groups, and the others together.

    most: characters of a name.
    """
    counts = np.bincount(groups.codes, minlength=len(groups.names))
    present = np.flatnonzero(counts)
    own = present if len(present) <= SERIES + 1 else np.argsort(-counts, kind="stable")[:SERIES]
    for place, code in enumerate(np.sort(own)):
        yield Series(
            cut(groups.names[code], most),
            groups.codes == code,
            PALETTE[place % len(PALETTE)],
            DASHES[place % len(DASHES)],
            SYMBOLS[place],
        )
    if len(own) < len(present):
        others = f"{len(present) - len(own)} other classes"
        yield Series(others, ~np.isin(groups.codes, own), GREY, "longdash", SYMBOLS[-1])


def balance(parts: Sequence[PartFacts], classes: Sequence[str], things: str) -> go.Figure:
    """Examples of each class, by part, one on top of the other.

    Raises:
        NothingToDraw: there are no classes.
    """
    if not classes:
        raise NothingToDraw("There are no classes to count.")
    places = list(range(len(classes)))
    names = [cut(name, 16) for name in classes]
    bars = [
        go.Bar(
            x=places,
            y=part.counts,
            name=part.name,
            marker={"color": color, "pattern": {"shape": pattern, "fillmode": "overlay"}},
            customdata=names,
            hovertemplate=f"%{{customdata}}: %{{y:,}} {things}, {part.name}<extra></extra>",
        )
        for part, color, pattern in zip(parts, (BLUE, ORANGE, GREY), ("", "/", "."), strict=True)
        if part.counts
    ]
    drawn = figure(*bars, x="class", y=things, height=380, barmode="stack", bargap=0.25)
    drawn.update_layout(legend_traceorder="normal")
    return _class_axis(drawn, names)


def _class_axis(drawn: go.Figure, names: Sequence[str]) -> go.Figure:
    """Names below the places 0, 1 and so on; of very many, some."""
    step = -(-len(names) // LABELLED)
    slanted = max(map(len, names)) * len(names) > 30
    ticks = {"tickmode": "array", "tickvals": list(range(len(names)))[::step], "ticktext": names[::step]}
    return drawn.update_xaxes(**ticks, tickangle=-45 if slanted else 0, showgrid=False)


def targets_by_part(view: View) -> go.Figure:
    """The numbers to predict, as shares of each part."""
    values = view.targets.astype(np.float64)
    edges = np.histogram_bin_edges(values, BINS, range=_middle(values))
    lines = [
        _steps(values[rows], edges, name, color, dash)
        for name, rows, color, dash in (
            ("training", ~view.validation, BLUE, "solid"),
            ("validation", view.validation, ORANGE, "dash"),
        )
    ]
    drawn = figure(*lines, x="target (its own unit)", y="share of the part's rows", height=380)
    return drawn.update_yaxes(tickformat=".0%", rangemode="tozero")


def missing(columns: Sequence[Column], rows: int) -> go.Figure:
    """Cells that are missing, unparsable, or suspiciously zero, as shares of each column's.

    Raises:
        NothingToDraw: no column has any.
    """

    def lacking(column: Column) -> int:
        return column.missing + column.unparsable + column.zeros * column.suspicious_zeros

    found = sorted((column for column in columns if lacking(column)), key=lacking)[-BARS:]
    if not found:
        raise NothingToDraw("No cell is missing, and no zero looks as if it stood for a missing value.")
    names = [cut(column.name, 20) for column in found]
    kinds = (
        ("missing", [column.missing for column in found], BLUE, ""),
        ("does not parse", [column.unparsable for column in found], VERMILLION, "x"),
        ("suspicious zero", [column.zeros * column.suspicious_zeros for column in found], SKY, "/"),
    )
    bars = [
        go.Bar(
            y=list(range(len(found))),
            x=[count / rows for count in counts],
            orientation="h",
            name=name,
            marker={"color": color, "pattern": {"shape": pattern, "fillmode": "overlay"}},
            customdata=counts,
            hovertemplate=f"%{{customdata:,}} cells: {name} (%{{x:.2%}})<extra></extra>",
        )
        for name, counts, color, pattern in kinds
        if any(counts)
    ]
    height = 170 + 24 * len(found)
    drawn = figure(*bars, x="share of cells", y="column", height=height, barmode="stack")
    drawn.update_layout(legend_traceorder="normal")
    drawn.update_xaxes(tickformat=".1~%", rangemode="tozero")
    return drawn.update_yaxes(tickmode="array", tickvals=list(range(len(found))), ticktext=names)


def distribution(view: View, name: str) -> go.Figure:
    """A column's values by group: shares of each group's rows."""
    column = view.frame[name]
    kinds = list(series(view.groups, most=20))
    if is_numeric(column):
        drawn = _numbers(column.to_numpy(np.float64), kinds, name)
    else:
        drawn = _categories(column, kinds, name)
    wraps = sum(len(found.name) + 9 for found in kinds) // 42
    return drawn.update_layout(height=300 + 20 * wraps)


def _numbers(values: NDArray[np.float64], kinds: Sequence[Series], name: str) -> go.Figure:
    present = values[np.isfinite(values)]
    low, high = _middle(present)
    distinct = np.unique(present[(present >= low) & (present <= high)])
    if len(distinct) <= BINS and bool((distinct == np.round(distinct)).all()):
        edges = np.arange(distinct[0] - 0.5, distinct[-1] + 1) if np.ptp(distinct) <= BINS else None
    else:
        edges = None
    edges = np.histogram_bin_edges(present, BINS, range=(low, high)) if edges is None else edges
    lines = [_steps(values[found.rows], edges, found.name, found.color, found.dash) for found in kinds]
    drawn = figure(*lines, x=str(cut(name, 40)), y="share of its rows")
    drawn.update_xaxes(title_text=cut(name, 40), nticks=6)
    return drawn.update_yaxes(tickformat=".0%", rangemode="tozero", nticks=6)


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of the middle 99 %: one absurd value would squeeze all others into one bin."""
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(high)


def _steps(
    values: NDArray[np.float64], edges: NDArray[np.float64], name: str, color: str, dash: str
) -> go.Scatter:
    """A histogram as a line; what lies beyond the edges counts in the last bins."""
    inside = np.clip(values[np.isfinite(values)], edges[0], edges[-1])
    shares = np.histogram(inside, edges)[0] / max(1, len(inside))
    return go.Scatter(
        x=_rounded(np.repeat(edges, 2)),
        y=_rounded(np.concatenate([[0], np.repeat(shares, 2), [0]])),
        mode="lines",
        name=name,
        line={"color": color, "dash": dash, "width": 2},
        hovertemplate="%{x:.4~g}: %{y:.1%}<extra></extra>",
    )


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _categories(column: pd.Series, kinds: Sequence[Series], name: str) -> go.Figure:
    """Shares of the most frequent categories."""
    names = list(column.value_counts().index[:CATEGORIES])
    places = list(range(len(names)))
    bars = []
    for found in kinds:
        own = column[found.rows].dropna()
        shares = own.value_counts().reindex(names, fill_value=0).to_numpy() / max(1, len(own))
        bars.append(
            go.Bar(
                x=places,
                y=_rounded(shares),
                name=found.name,
                marker={"color": found.color},
                customdata=[cut(category, 40) for category in names],
                hovertemplate="%{customdata}: %{y:.1%}<extra></extra>",
            )
        )
    labels = [cut(category, 14) for category in names]
    drawn = figure(*bars, x="", y="share of its rows", barmode="group")
    angle = -45 if max(map(len, labels)) * len(labels) > 24 else 0
    drawn.update_xaxes(
        title_text=cut(name, 40),
        tickmode="array",
        tickvals=places,
        ticktext=labels,
        tickangle=angle,
        showgrid=False,
    )
    return drawn.update_yaxes(tickformat=".0%", rangemode="tozero", nticks=6)


def information(found: MutualInformation) -> go.Figure:
    """Bits that each column tells about the target, the most telling one on top."""
    leading = found.columns[:BARS][::-1]
    places = list(range(len(leading)))
    names = [cut(column.column, 20) for column in leading]
    bars = go.Bar(
        y=places,
        x=[round(column.bits, 4) for column in leading],
        orientation="h",
        name="column",
        marker={"color": BLUE},
        customdata=names,
        hovertemplate="%{customdata}: %{x:.3f} bits<extra></extra>",
    )
    chance = go.Scatter(
        x=[found.noise, found.noise],
        y=[-0.6, len(leading) - 0.4],
        mode="lines",
        name="the most that a shuffled target seems to have",
        line={"color": VERMILLION, "dash": "dash", "width": 2},
        hovertemplate="noise: %{x:.3f} bits<extra></extra>",
    )
    height = 170 + 22 * len(leading)
    drawn = figure(bars, chance, x="information (bits)", y="column", height=height)
    drawn.update_xaxes(rangemode="tozero")
    return drawn.update_yaxes(
        tickmode="array", tickvals=places, ticktext=names, range=[-0.6, len(leading) - 0.4], showgrid=False
    )


def brightness(found: Sequence[Brightness]) -> go.Figure:
    """Quantiles of the images' mean pixels, by class."""
    places = list(range(len(found)))
    names = [cut(one.name or "all", 16) for one in found]
    low, first, middle, third, high = (
        [round(one.quantiles[place], 2) for one in found] for place in range(5)
    )
    boxes = go.Box(
        x=places,
        lowerfence=low,
        q1=first,
        median=middle,
        q3=third,
        upperfence=high,
        name="images",
        marker={"color": BLUE},
        showlegend=False,
    )
    drawn = figure(boxes, x="class", y="mean pixel (0 to 255)", height=380)
    return _class_axis(drawn, names).update_yaxes(rangemode="tozero")
