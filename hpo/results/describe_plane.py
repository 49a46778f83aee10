"""Plotly figures of a table's columns against each other: correlations, pairs, principal components."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hpo.results.describe_columns import is_numeric
from hpo.results.describe_figures import cut, series
from hpo.results.describe_groups import View
from hpo.results.describe_projection import Projection, drawn_in
from hpo.results.describe_relations import Matrix
from hpo.results.theme import BLUE, LIGHT, NothingToDraw, figure

PAIRED = 4
"""Columns of the pair plot."""
PAIR_POINTS = 200
"""Rows of the pair plot: with 500 it took the browser a third of all the time that the page takes to open."""
NUMBERED = 10
"""Columns up to which each coefficient is written into its cell."""
DIVERGING = [[0, "#b04a00"], [0.25, "#e9a56c"], [0.5, "#f4f7fb"], [0.75, "#7fb5dc"], [1, BLUE]]
"""From vermillion over almost white to blue: told apart with any colour vision, and by lightness from 0."""


def correlation(matrix: Matrix | None, what: str, signed: bool = True) -> go.Figure:
    """Coefficients of all pairs of columns.

    Raises:
        NothingToDraw: there are not two columns.
    """
    if matrix is None:
        raise NothingToDraw("There are no two columns of this kind.")
    places = list(range(len(matrix.columns)))
    names = [cut(name, 14) for name in matrix.columns]
    few = len(names) <= NUMBERED
    shown = [[None if value is None else round(value, 2) for value in row] for row in matrix.values]
    hover = [[f"{row} and {column}" for column in names] for row in names]
    heatmap = go.Heatmap(
        z=shown,
        x=places,
        y=places,
        zmin=-1 if signed else 0,
        zmax=1,
        colorscale=DIVERGING if signed else [[0, "#f4f7fb"], [0.5, "#7fb5dc"], [1, BLUE]],
        texttemplate="%{z:.2f}" if few else None,
        textfont={"size": 11},
        hovertext=hover,
        hovertemplate="%{hovertext}: %{z:.2f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": what, "side": "right"}, "thickness": 12, "tickformat": ".1f"},
    )
    drawn = figure(heatmap, x="column", y="column", height=min(720, 240 + 26 * len(names)))
    ticks = {"tickmode": "array", "tickvals": places, "ticktext": names, "showgrid": False, "zeroline": False}
    drawn.update_xaxes(**ticks, tickangle=-45)
    return drawn.update_yaxes(**ticks, autorange="reversed")


def width(matrix: Matrix | None) -> int:
    """CSS pixels that the coefficients need, as they are written into their cells or not."""
    if matrix is None:
        return 0
    size = len(matrix.columns)
    return 220 + 44 * size if size <= NUMBERED else min(700, 130 + 18 * size)


def pairs(view: View, leading: Sequence[str]) -> go.Figure:
    """The leading columns of numbers against each other.

    Raises:
        NothingToDraw: there are fewer than two.
    """
    sample = view.sample(PAIR_POINTS)
    names = [name for name in leading if is_numeric(sample.frame[name])][:PAIRED]
    if len(names) < 2:
        raise NothingToDraw("There are no two columns of numbers.")
    size = len(names) - 1
    drawn = make_subplots(
        size, size, shared_xaxes=True, shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.03
    )
    drawn.update_layout(template=LIGHT, height=150 + 150 * size)
    for row in range(1, size + 1):
        for column in range(1, row + 1):
            for found in series(sample.groups):
                drawn.add_trace(
                    go.Scatter(
                        x=_rounded(sample, names[column - 1], found.rows),
                        y=_rounded(sample, names[row], found.rows),
                        mode="markers",
                        name=found.name,
                        legendgroup=found.name,
                        showlegend=row == 1,
                        marker={"color": found.color, "symbol": found.symbol, "size": 5, "opacity": 0.6},
                        hovertemplate="%{x:.4~g}, %{y:.4~g}<extra></extra>",
                    ),
                    row=row,
                    col=column,
                )
        drawn.update_yaxes(title_text=cut(names[row], 22), nticks=5, row=row, col=1)
        drawn.update_xaxes(title_text=cut(names[row - 1], 22), nticks=5, row=size, col=row)
    return drawn


def _rounded(view: View, name: str, rows: "np.typing.NDArray[np.bool_]") -> list[float | None]:
    values = drawn_in(view.frame[name]).to_numpy(np.float64)[rows]
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def components(found: Projection | None) -> go.Figure:
    """Rows on their first two principal components.

    Raises:
        NothingToDraw: there are fewer than two columns.
    """
    if found is None:
        raise NothingToDraw("There are no two columns that differ from row to row.")
    points = [
        go.Scatter(
            x=found.points[kind.rows, 0].round(2).tolist(),
            y=found.points[kind.rows, 1].round(2).tolist(),
            mode="markers",
            name=kind.name,
            marker={"color": kind.color, "symbol": kind.symbol, "size": 6, "opacity": 0.55},
            hovertemplate="%{x:.2f}, %{y:.2f}<extra></extra>",
        )
        for kind in series(found.groups)
    ]
    first, second = (
        f"component {place} ({share:.0%} of the variance)"
        for place, share in enumerate(found.explained[:2], 1)
    )
    return figure(*points, x=first, y=second, height=460)


def explained(found: Projection | None) -> go.Figure:
    """How much of the variance the first components have.

    Raises:
        NothingToDraw: there are fewer than two columns.
    """
    if found is None:
        raise NothingToDraw("There are no two columns that differ from row to row.")
    places = list(range(1, len(found.explained) + 1))
    bars = go.Bar(
        x=places,
        y=[round(share, 4) for share in found.explained],
        name="of this component",
        marker={"color": BLUE},
        hovertemplate="component %{x}: %{y:.1%}<extra></extra>",
    )
    together = go.Scatter(
        x=places,
        y=np.cumsum(found.explained).round(4).tolist(),
        name="together with those before",
        mode="lines+markers",
        line={"color": "#E69F00", "width": 2},
        hovertemplate="the first %{x}: %{y:.1%}<extra></extra>",
    )
    drawn = figure(bars, together, x="principal component", y="share of the variance", height=460)
    drawn.update_xaxes(dtick=1, showgrid=False)
    return drawn.update_yaxes(tickformat=".0%", range=[0, 1.04])
