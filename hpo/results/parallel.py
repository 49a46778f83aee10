"""Parallel coordinates: each trial as a line through its parameters to its value."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.results.theme import GREY, SKY, VERMILLION, figure, short, text
from hpo.results.values import LABELS, drawable, evenly, focus, ranked, value_of
from hpo.space import Choices, Range, Value, ordered

ABSENT = -0.14
"""Where trials pass that lack a conditional parameter."""
JITTER = 0.05
MAX_LINES, FEWEST_LINES = 1000, 200
ALL_PLACES = 8000
"""Of all lines on all axes."""


@dataclass(frozen=True)
class Axis:
    """One vertical axis; positions on it go from 0 (bottom) to 1 (top)."""

    title: str
    labels: tuple[tuple[float, str], ...]
    """(position, escaped text)"""
    position: Callable[[FrozenTrial], float]


def parameter_axis(name: str, parameter: Range | Choices, trials: Sequence[FrozenTrial]) -> Axis:
    """The axis of the parameter `name`."""
    absent = () if all(name in trial.params for trial in trials) else ((ABSENT, "not set"),)
    if isinstance(parameter, Choices):
        return _choices(name, parameter.choices, absent)
    scale: Callable[[float], float] = math.log if parameter.log else float
    low, high = scale(parameter.low), scale(parameter.high)

    def position(trial: FrozenTrial) -> float:
        return (scale(trial.params[name]) - low) / (high - low) if name in trial.params else ABSENT

    ends = ((0.0, short(parameter.low)), (1.0, short(parameter.high)))
    return Axis(text(name), ends + absent, position)


def _choices(name: str, choices: Sequence[Value], absent: tuple[tuple[float, str], ...]) -> Axis:
    places = [(index + 0.5) / len(choices) for index in range(len(choices))]
    by_choice = dict(zip(choices, places, strict=True))

    def position(trial: FrozenTrial) -> float:
        if name not in trial.params:
            return ABSENT
        # Multiples of the golden ratio spread evenly, so lines of one choice do not hide each other.
        spread = (trial.number * 0.618034) % 1 - 0.5
        return by_choice[trial.params[name]] + JITTER * spread

    labels = tuple((place, text(choice)) for choice, place in zip(choices, places, strict=True))
    return Axis(text(name), labels + absent, position)


def value_axis(title: str, limits: tuple[float, float]) -> Axis:
    """The axis of the trials' values; those outside `limits` pass at its end."""
    low, high = limits
    width = (high - low) or 1.0

    def position(trial: FrozenTrial) -> float:
        return min(1.0, max(0.0, (value_of(trial) - low) / width))

    return Axis(text(title), ((0.0, short(low)), (1.0, short(high))), position)


def parallel_coordinates(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """Each complete trial as a line through its parameters to its value, the best tenth in front.

    Drawn as ordinary lines rather than `go.Parcoords`, which needs WebGL and skips trials that lack a
    conditional parameter: here they pass below its axis. Of many trials a sample is drawn, evenly spread
    over their ranks.

    Raises:
        NothingToDraw: no trial is complete.
    """
    complete = drawable(trials)
    names = [name for name in ordered(config.search) if any(name in trial.params for trial in complete)]
    axes = [parameter_axis(name, config.search[name], complete) for name in names]
    limits = focus([value_of(trial) for trial in complete], config)
    axes.append(value_axis(LABELS[config.metric], limits))
    by_rank = ranked(complete, config)
    order = [by_rank[place] for place in evenly(len(by_rank), lines_of(config))]
    tenth, half = math.ceil(len(order) / 10), math.ceil(len(order) / 2)
    drawn = figure(
        _lines(order[half:], axes, "worse half", GREY, 0.4, 1),
        _lines(order[tenth:half], axes, "better half", SKY, 0.6, 1.2),
        _lines(order[:tenth], axes, "best tenth", VERMILLION, 0.9, 2),
        x="",
        y="",
        height=460,
    )
    drawn.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[axis.title for axis in axes],
        showgrid=True,
        gridwidth=2,
        range=[-0.45, len(axes) - 0.6],
        zeroline=False,
        showline=False,
        tickangle=0,
    )
    drawn.update_yaxes(visible=False, range=[-0.22, 1.1])
    for position, axis in enumerate(axes):
        for height, label in axis.labels:
            drawn.add_annotation(
                x=position,
                y=height,
                text=label,
                showarrow=False,
                xanchor="right",
                xshift=-4,
                font={"size": 11},
            )
    return drawn


def lines_of(config: StudyConfig) -> int:
    """Trials that are drawn, at most."""
    return max(FEWEST_LINES, min(MAX_LINES, ALL_PLACES // (len(config.search) + 1)))


def _lines(
    trials: Sequence[FrozenTrial], axes: Sequence[Axis], name: str, color: str, opacity: float, width: float
) -> go.Scatter:
    gap = len(axes) + 1
    numbers: list[int | None] = []
    y: list[float | None] = []
    for trial in trials:
        y += [round(axis.position(trial), 4) for axis in axes] + [None]
        numbers += [trial.number] * gap
    return go.Scatter(
        x=[*range(len(axes)), None] * len(trials),
        y=y,
        customdata=numbers,
        mode="lines",
        name=name,
        opacity=opacity,
        line={"color": color, "width": width},
        hovertemplate="trial %{customdata}<extra></extra>",
    )
