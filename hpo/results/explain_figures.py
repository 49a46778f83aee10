"""Plotly figures of an explanation."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from hpo.results.columns import Dependence, Importances
from hpo.results.explain import Explanation
from hpo.results.explain_text import by_column, curve_names
from hpo.results.sanity import LIMIT, SanityCheck
from hpo.results.shown import Shown
from hpo.results.theme import BLUE, DASHES, GREY, PALETTE, VERMILLION, NothingToDraw, cut, figure, short, text

MAX_COLUMNS = 20
MAX_BARS = 8
MAX_LINES = 6
WIDEST = 22
"""Characters of a column's name beside an axis."""
DIVERGING = [[0, BLUE], [0.5, "#f4f7fb"], [1, VERMILLION]]


def importance_bars(found: Importances, title: str, unit: str = "") -> go.Figure:
    """What shuffling costs, the `MAX_COLUMNS` costliest columns, with 95 % intervals."""
    shown = found.columns[:MAX_COLUMNS][::-1]
    bars = go.Bar(
        x=[one.cost for one in shown],
        y=list(range(len(shown))),
        orientation="h",
        marker={"color": [BLUE if one.beyond_noise else GREY for one in shown]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [one.interval[1] - one.cost for one in shown],
            "arrayminus": [one.cost - one.interval[0] for one in shown],
            "color": GREY,
        },
        customdata=[(text(one.column), *one.interval) for one in shown],
        hovertemplate="%{customdata[0]}: %{x:.4g} (95 %: %{customdata[1]:.4g} to %{customdata[2]:.4g})"
        "<extra></extra>",
    )
    drawn = figure(bars, x=title, y="column", height=150 + 26 * len(shown))
    return _named_rows(_with_unit(drawn, title, unit), [one.column for one in shown])


def _with_unit(drawn: go.Figure, title: str, unit: str) -> go.Figure:
    """The unit below the title: beside it they would be wider than what long names leave on a phone."""
    return drawn.update_xaxes(title_text=f"{title}<br>({unit})" if unit else title)


def _named_rows(drawn: go.Figure, names: Sequence[str]) -> go.Figure:
    labels = [text(cut(name, WIDEST)) for name in names]
    return drawn.update_yaxes(tickmode="array", tickvals=list(range(len(names))), ticktext=labels)


def class_heatmap(found: Explanation) -> go.Figure:
    """Mean attributions of the leading columns towards each class."""
    table, subject = found.subject.table, found.subject
    assert table is not None
    groups = [index for index, mean in enumerate(found.by_class.means) if mean is not None]
    means = [found.by_class.means[index] for index in groups]
    values = np.array([by_column(mean, table).numpy() for mean in means if mean is not None])
    leading = np.argsort(-np.abs(values).max(axis=0), kind="stable")[:MAX_COLUMNS][::-1]
    values = values[:, leading].T
    names = [table.columns[index].name for index in leading]
    outputs = [text(cut(subject.outputs_named[index], 16)) for index in groups]
    most = float(np.abs(values).max()) or 1.0
    heat = go.Heatmap(
        z=values,
        x=list(range(len(outputs))),
        y=list(range(len(names))),
        zmin=-most,
        zmax=most,
        colorscale=DIVERGING,
        xgap=1,
        ygap=1,
        hovertext=[[f"{text(name)}, towards {output}" for output in outputs] for name in names],
        hovertemplate="%{hovertext}: %{z:.4g}<extra></extra>",
        colorbar={"title": {"text": _unit(found)}, "thickness": 12},
    )
    drawn = figure(heat, x="towards", y="column", height=200 + 26 * len(names))
    drawn.update_xaxes(tickmode="array", tickvals=list(range(len(outputs))), ticktext=outputs, showgrid=False)
    return _named_rows(drawn.update_yaxes(showgrid=False), names)


def _unit(found: Explanation) -> str:
    return "logit" if found.subject.classification else "target's<br>unit"


def dependence_lines(curve: Dependence, found: Explanation) -> go.Figure:
    """The mean prediction over one column, with the middle half of the rows."""
    names = curve_names(curve, found.subject)
    widest = np.argsort(-np.ptp(curve.means, axis=1), kind="stable")[:MAX_LINES]
    grid = [text(value) for value in curve.grid] if curve.categorical else list(curve.grid)
    drawn = figure(
        x=cut(curve.column, WIDEST) if curve.categorical else f"{cut(curve.column, WIDEST)} (its own unit)",
        y="mean probability" if found.subject.classification else "mean prediction (target's unit)",
        height=340,
    )
    for place, output in enumerate(sorted(int(index) for index in widest)):
        colour = PALETTE[place % len(PALETTE)]
        if len(widest) == 1 and not curve.categorical:
            drawn.add_trace(_band(grid, curve.quartiles[0, output], curve.quartiles[1, output]))
        drawn.add_trace(
            go.Scatter(
                x=grid,
                y=curve.means[output],
                name=text(cut(names[output], 24)),
                mode="markers" if curve.categorical else "lines",
                marker={"size": 10, "color": colour},
                line={"color": colour, "dash": DASHES[place % len(DASHES)], "width": 2.4},
                hovertemplate="%{x}: %{y:.4g}<extra></extra>",
            )
        )
    return drawn.update_layout(showlegend=len(drawn.data) > 1)


def _band(grid: Sequence[object], low: np.ndarray, high: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=[*grid, *grid[::-1]],
        y=[*low, *high[::-1]],
        fill="toself",
        fillcolor="rgba(138, 143, 152, 0.25)",
        line={"width": 0},
        mode="lines",
        name="middle half of the rows",
        hoverinfo="skip",
    )


def example_bars(shown: Shown, found: Explanation) -> go.Figure:
    """What speaks for and against one example's prediction, with the raw values.

    Raises:
        NothingToDraw: no method works on the model.
    """
    table = found.subject.table
    assert table is not None
    if not shown.maps:
        raise NothingToDraw("No method of attribution works on this model.")
    values = by_column(next(iter(shown.maps.values())), table).numpy()
    leading = np.argsort(-np.abs(values), kind="stable")[:MAX_BARS][::-1]
    row = table.frame.iloc[shown.row]
    names = [
        f"{cut(table.columns[index].name, WIDEST)} = {cut(short(row.iloc[index]), 12)}" for index in leading
    ]
    bars = go.Bar(
        x=values[leading],
        y=list(range(len(leading))),
        orientation="h",
        marker={"color": [VERMILLION if value > 0 else BLUE for value in values[leading]]},
        customdata=[text(name) for name in names],
        hovertemplate="%{customdata}: %{x:+.4g}<extra></extra>",
    )
    unit = "logit" if found.subject.classification else "target's unit"
    drawn = figure(bars, x="attribution", y="column", height=130 + 26 * len(leading), margin_t=12)
    return _with_unit(drawn, "attribution", unit).update_yaxes(
        tickmode="array", tickvals=list(range(len(leading))), ticktext=[text(name) for name in names]
    )


def sanity_lines(checks: Sequence[SanityCheck]) -> go.Figure:
    """Rank correlations as more layers are random.

    Raises:
        NothingToDraw: there are none.
    """
    if not checks:
        raise NothingToDraw("The model has no weights that could be random.")
    lines = [
        go.Scatter(
            x=[0, *check.layers],
            y=[1, *check.correlations],
            name=check.method,
            mode="lines+markers",
            marker={"symbol": place, "size": 8},
            line={"color": PALETTE[place], "dash": DASHES[place], "width": 2.2},
            hovertemplate="%{x} layers random: %{y:.2f}<extra></extra>",
        )
        for place, check in enumerate(checks)
    ]
    last = checks[0].layers[-1]
    limit = go.Scatter(
        x=[0, last],
        y=[LIMIT, LIMIT],
        name="fails from here on",
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1.2},
        hoverinfo="skip",
    )
    drawn = figure(*lines, limit, x="random layers, from the output down", y="rank correlation")
    return drawn.update_xaxes(dtick=max(1, -(-last // 8)))
