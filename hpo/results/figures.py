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

MAX_CURVES = 300
MAX_POINTS, FEWEST_POINTS = 2000, 500
ALL_PARAMS = 10_000
"""Parameters of all points of the history: each point tells its own."""


def params_text(params: Mapping[str, Any]) -> str:
    """Parameters on a line each, escaped."""
    return "<br>".join(f"{text(name)}: {text(short(value))}" for name, value in params.items())


def history(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """Each complete trial's value, and the best one so far.

    Of many trials an even sample and all that improved on the best are drawn.

    Raises:
        NothingToDraw: no trial is complete.
    """
    every = drawable(trials)
    values = [value_of(trial) for trial in every]
    best = _running_best(values, config)
    improved = [place for place in range(1, len(best)) if best[place] != best[place - 1]]
    shown = sorted({*evenly(len(every), points_of_history(config)), *improved})
    complete = [every[place] for place in shown]
    numbers = [trial.number for trial in complete]
    drawn = figure(
        go.Scatter(
            x=numbers,
            y=[value_of(trial) for trial in complete],
            mode="markers",
            name="trial",
            marker={"color": BLUE, "size": 7, "opacity": 0.6},
            text=[params_text(trial.params) for trial in complete],
            hovertemplate="trial %{x}: %{y:.4f}<br>%{text}<extra></extra>",
        ),
        go.Scatter(
            x=numbers,
            y=[best[place] for place in shown],
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


def points_of_history(config: StudyConfig) -> int:
    """Trials that the history shows, at most, besides those that improved on the best."""
    return max(FEWEST_POINTS, min(MAX_POINTS, ALL_PARAMS // len(config.search)))


def _running_best(values: Sequence[float], config: StudyConfig) -> list[float]:
    return list(itertools.accumulate(values, max if config.direction == "maximize" else min))


def anytime(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """The best value over the time since the first trial began, as the clock on the wall went.

    Raises:
        NothingToDraw: no trial is complete, or their times were not recorded.
    """
    ended = [trial for trial in drawable(trials) if trial.datetime_complete]
    starts = [trial.datetime_start for trial in trials if trial.datetime_start]
    if not ended or not starts:
        raise NothingToDraw("It was not recorded when trials began and ended.")
    ended.sort(key=lambda trial: (str(trial.datetime_complete), trial.number))
    best = _running_best([value_of(trial) for trial in ended], config)
    improved = [place for place in range(len(best)) if place == 0 or best[place] != best[place - 1]]
    first = min(starts)
    seconds = [
        (trial.datetime_complete - first).total_seconds() for trial in ended if trial.datetime_complete
    ]
    unit, length = next((unit for unit in _UNITS if seconds[-1] < 2 * 60 * unit[1]), _UNITS[-1])
    line = go.Scatter(
        x=[seconds[place] / length for place in [*improved, -1]],
        y=[best[place] for place in [*improved, -1]],
        customdata=[ended[place].number for place in [*improved, improved[-1]]],
        mode="lines+markers",
        name="best so far",
        line={"color": VERMILLION, "shape": "hv", "width": 2.5},
        marker={"size": [7] * len(improved) + [0.1]},
        hovertemplate="%{y:.4f} after %{x:.3g} " + unit + ", trial %{customdata}<extra></extra>",
    )
    drawn = figure(line, x=f"wall-clock time ({unit})", y=f"best {value_label(config)}", height=340)
    drawn.update_yaxes(range=focus([best[place] for place in improved], config))
    drawn.update_xaxes(rangemode="tozero")
    return drawn.update_layout(showlegend=False, margin_t=12)


_UNITS = [("s", 1.0), ("min", 60.0), ("h", 3600.0)]


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
