"""Plotly figures of single parameters: the value over each."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial
from plotly.subplots import make_subplots

from hpo.config import StudyConfig
from hpo.results.theme import BLUE, GREY, LIGHT, VERMILLION, figure, text
from hpo.results.values import drawable, evenly, focus, ranked, value_label, value_of
from hpo.space import Choices, Range, ordered

MAX_POINTS, FEWEST_POINTS, ALL_POINTS = 1000, 200, 5000
"""Of one slice, at most and where there are many, and of all: each is an element that a browser draws."""
ACROSS = 3
"""Slices side by side in `slices_together`."""


def slices(trials: Sequence[FrozenTrial], config: StudyConfig) -> dict[str, go.Figure]:
    """The value over each parameter; a star marks the best trial. Of many trials an even sample is drawn.

    Raises:
        NothingToDraw: no trial is complete.
    """
    complete = drawable(trials)
    best = ranked(complete, config)[0]
    most = points_of_a_slice(config)
    drawn = {}
    for name in ordered(config.search):
        having = [trial for trial in complete if name in trial.params]
        if having:
            star = [best] if name in best.params else []
            shown = [having[index] for index in evenly(len(having), most)]
            drawn[name] = _slice(name, config.search[name], shown, star, config)
    return drawn


def points_of_a_slice(config: StudyConfig) -> int:
    """Trials that one slice shows, at most."""
    return max(FEWEST_POINTS, min(MAX_POINTS, ALL_POINTS // len(config.search)))


def slices_together(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """All slices in one figure, for notebooks.

    Raises:
        NothingToDraw: no trial is complete.
    """
    single = slices(trials, config)
    rows = -(-len(single) // ACROSS)
    drawn = make_subplots(rows, min(ACROSS, len(single)), shared_yaxes=True, vertical_spacing=0.24 / rows)
    for place, (name, one) in enumerate(single.items()):
        row, column = place // ACROSS + 1, place % ACROSS + 1
        for trace in one.data:
            drawn.add_trace(trace, row, column)
        axis = one.layout.xaxis.to_plotly_json() | {"title": {"text": text(name)}}
        drawn.update_xaxes(axis, row=row, col=column)
        drawn.update_yaxes(range=one.layout.yaxis.range, row=row, col=column)
    drawn.update_yaxes(title_text=value_label(config), col=1)
    return drawn.update_layout(template=LIGHT, height=60 + 280 * rows, showlegend=False)


def _slice(
    name: str,
    parameter: Range | Choices,
    trials: Sequence[FrozenTrial],
    best: Sequence[FrozenTrial],
    config: StudyConfig,
) -> go.Figure:
    categorical = isinstance(parameter, Choices)
    points: dict[str, Any] = {
        "x": [text(trial.params[name]) if categorical else trial.params[name] for trial in trials],
        "y": [value_of(trial) for trial in trials],
        "marker": {"color": BLUE, "size": 6, "opacity": 0.5},
        "customdata": [trial.number for trial in trials],
        "hovertemplate": "trial %{customdata}: %{y:.4f} at %{x}<extra></extra>",
        "name": "trial",
    }
    if categorical:
        trace = go.Box(**points, boxpoints="all", jitter=0.5, pointpos=0, line={"color": GREY, "width": 1.2})
    else:
        trace = go.Scatter(**points, mode="markers")
    star = go.Scatter(
        x=[text(trial.params[name]) if categorical else trial.params[name] for trial in best],
        y=[value_of(trial) for trial in best],
        mode="markers",
        marker={"color": VERMILLION, "symbol": "star", "size": 14},
        hovertemplate="best trial: %{y:.4f} at %{x}<extra></extra>",
    )
    drawn = figure(trace, star, x=name, y=value_label(config), height=290, showlegend=False, margin_t=12)
    drawn.update_yaxes(range=focus(points["y"], config))
    if isinstance(parameter, Choices):
        order = [text(choice) for choice in parameter.choices]
        return drawn.update_xaxes(type="category", categoryorder="array", categoryarray=order)
    if parameter.log:
        # Labels at 1, 2 and 5 collide where the range spans more than two decades.
        decades = math.log10(parameter.high / parameter.low)
        return drawn.update_xaxes(type="log", dtick=1 if decades > 2 else None, exponentformat="power")
    return drawn
