"""Plotly figures of a search, for a report and for notebooks."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig
from hpo.results.theme import BLUE, GREY, SKY, VERMILLION, NothingToDraw, figure, short, text
from hpo.results.values import drawable, evenly, focus, ranked, value_label, value_of
from hpo.space import Choices, Range, ordered

MAX_CURVES = 300


def params_text(params: Mapping[str, Any]) -> str:
    """Parameters on a line each, escaped."""
    return "<br>".join(f"{text(name)}: {text(short(value))}" for name, value in params.items())


def history(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """Each complete trial's value, and the best one so far.

    Raises:
        NothingToDraw: no trial is complete.
    """
    complete = drawable(trials)
    numbers = [trial.number for trial in complete]
    values = [value_of(trial) for trial in complete]
    better = max if config.direction == "maximize" else min
    drawn = figure(
        go.Scatter(
            x=numbers,
            y=values,
            mode="markers",
            name="trial",
            marker={"color": BLUE, "size": 7, "opacity": 0.6},
            text=[params_text(trial.params) for trial in complete],
            hovertemplate="trial %{x}: %{y:.4f}<br>%{text}<extra></extra>",
        ),
        go.Scatter(
            x=numbers,
            y=list(itertools.accumulate(values, better)),
            mode="lines",
            name="best so far",
            line={"color": VERMILLION, "shape": "hv", "width": 2.5},
            hovertemplate="best up to trial %{x}: %{y:.4f}<extra></extra>",
        ),
        x="trial number",
        y=value_label(config),
    )
    low, high = focus(values, config)
    return drawn.update_yaxes(range=[low, high])


def intermediate_values(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """Learning curves; those of pruned trials faded, the best trial's in front.

    Above `MAX_CURVES` trials an even sample of them is drawn.

    Raises:
        NothingToDraw: no trial reported a value.
    """
    reported = [trial for trial in trials if any(map(math.isfinite, trial.intermediate_values.values()))]
    pruned = [trial for trial in reported if trial.state == TrialState.PRUNED]
    complete = [trial for trial in reported if trial.state == TrialState.COMPLETE]
    if not pruned and not complete:
        raise NothingToDraw("No finished trial reported a value of an epoch.")
    share = min(1.0, MAX_CURVES / (len(pruned) + len(complete)))
    traces = [
        _curves(_sample(pruned, share), "pruned", GREY, 0.7, "dot"),
        _curves(_sample(complete, share), "complete", SKY, 0.6, "solid"),
    ]
    if complete:
        best = ranked(complete, config)[0]
        traces.append(_curves([best], f"best (trial {best.number})", VERMILLION, 1, "solid", 3))
    values = [value for trace in traces for value in trace.y if value is not None]
    drawn = figure(*(trace for trace in traces if len(trace.x)), x="epoch", y=value_label(config))
    return drawn.update_yaxes(range=focus(values, config))


def _sample(trials: Sequence[FrozenTrial], share: float) -> list[FrozenTrial]:
    return [trials[index] for index in evenly(len(trials), math.ceil(len(trials) * share))]


def _curves(
    trials: Sequence[FrozenTrial], name: str, color: str, opacity: float, dash: str, width: float = 1.2
) -> go.Scatter:
    """One trace of many lines: a trace for each of 1,000 trials takes a browser seconds to draw."""
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for trial in trials:
        steps = [(s, v) for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
        x += [step for step, _ in steps] + [None]
        y += [float(f"{value:.5g}") for _, value in steps] + [None]
        numbers += [trial.number] * len(steps) + [None]
    return go.Scatter(
        x=x,
        y=y,
        customdata=numbers,
        name=name,
        opacity=opacity,
        mode="lines+markers" if all(len(trial.intermediate_values) == 1 for trial in trials) else "lines",
        line={"color": color, "dash": dash, "width": width},
        hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4f}<extra></extra>",
    )


def slices(trials: Sequence[FrozenTrial], config: StudyConfig) -> dict[str, go.Figure]:
    """The value over each parameter; a star marks the best trial.

    Raises:
        NothingToDraw: no trial is complete.
    """
    complete = drawable(trials)
    best = ranked(complete, config)[0]
    drawn = {}
    for name in ordered(config.search):
        having = [trial for trial in complete if name in trial.params]
        if having:
            star = [best] if name in best.params else []
            drawn[name] = _slice(name, config.search[name], having, star, config)
    return drawn


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
