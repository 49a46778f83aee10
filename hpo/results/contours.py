"""Plotly figures of two parameters together: the value over both."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.results.theme import BLUE, SKY, NothingToDraw, figure, short, text
from hpo.results.values import drawable, evenly, focus, ranked, value_label, value_of
from hpo.space import Choices

Array = npt.NDArray[np.float64]

STEPS = 40
"""Of the surface, along a number."""
WIDTH = 0.08
"""Of the Gaussian that averages neighbours, as a share of the range."""
NEAR = 0.6
"""Trials, by their weights, below which a place of the surface stays empty."""
MAX_POINTS = 500
MAX_AVERAGED = 4000
MIN_TRIALS = 10
SCALE = [[0, "#fbf3e4"], [0.35, "#c5dcea"], [0.7, SKY], [1, BLUE]]
"""By lightness, so that it reads without colours."""


@dataclass(frozen=True)
class _Axis:
    """A parameter's values as places from 0 to 1, or the indices of its choices."""

    name: str
    choices: tuple[str, ...]
    """As text; none for a number."""
    log: bool
    places: Array
    """[N] of the trials."""
    low: float
    high: float

    @property
    def grid(self) -> Array:
        count = len(self.choices)
        return np.linspace(0, count - 1, count) if count else np.linspace(0, 1, STEPS)

    def shown(self, places: Array) -> list[float]:
        """Places as the figure's axis has them."""
        if self.choices:
            return list(places)
        values = self.low + places * (self.high - self.low)
        return list(np.exp(values) if self.log else values)

    def near(self) -> Array:
        """[grid, N] weights."""
        apart = self.grid[:, None] - self.places
        near = apart == 0 if self.choices else np.exp(-0.5 * (apart / WIDTH) ** 2)
        return near.astype(np.float64)


def contour(trials: Sequence[FrozenTrial], config: StudyConfig, names: tuple[str, str]) -> go.Figure:
    """The value over two parameters: a local average of the complete trials, and these.

    Places with no trial near are empty. Of many trials an even sample is drawn.

    Raises:
        NothingToDraw: too few complete trials have both.
    """
    having = [trial for trial in drawable(trials) if all(name in trial.params for name in names)]
    if len(having) < MIN_TRIALS:
        raise NothingToDraw(
            f"{len(having)} complete trials have both {names[0]} and {names[1]}; "
            f"their surface needs {MIN_TRIALS}."
        )
    low, high = focus([value_of(trial) for trial in having], config)
    averaged = [having[place] for place in evenly(len(having), MAX_AVERAGED)]
    values = np.clip([value_of(trial) for trial in averaged], low, high)
    across, up = (_axis(name, averaged, config) for name in names)
    weights = up.near()[:, None, :] * across.near()[None, :, :]  # [up, across, N]
    total = weights.sum(axis=2)
    surface = np.where(total >= NEAR, (weights @ values) / np.maximum(total, 1e-12), np.nan)
    drawn = figure(
        _surface(surface, across, up, config),
        _points(having, names, config),
        x=names[0],
        y=names[1],
        height=420,
        showlegend=False,
        margin_t=12,
    )
    drawn.update_xaxes(_ticks(across))
    return drawn.update_yaxes(_ticks(up))


def _axis(name: str, trials: Sequence[FrozenTrial], config: StudyConfig) -> _Axis:
    parameter = config.search[name]
    if isinstance(parameter, Choices):
        index = {choice: place for place, choice in enumerate(parameter.choices)}
        places = np.array([index[trial.params[name]] for trial in trials], dtype=np.float64)
        return _Axis(name, tuple(text(choice) for choice in parameter.choices), False, places, 0, 1)
    scale = math.log if parameter.log else float
    low, high = scale(parameter.low), scale(parameter.high)
    places = np.array([(scale(trial.params[name]) - low) / (high - low) for trial in trials])
    return _Axis(name, (), parameter.log, places, low, high)


def _surface(surface: Array, across: _Axis, up: _Axis, config: StudyConfig) -> go.Contour | go.Heatmap:
    content = {
        "x": across.shown(across.grid),
        "y": up.shown(up.grid),
        "z": np.round(surface, 5),
        "colorscale": SCALE,
        "reversescale": config.direction == "minimize",
        "colorbar": {"title": {"text": text(value_label(config)), "side": "right"}, "thickness": 12},
        "hovertemplate": "mean nearby %{z:.4f}<extra></extra>",
    }
    if across.choices or up.choices:  # nothing lies between two choices
        return go.Heatmap(**content, ygap=2 if up.choices else 0, xgap=2 if across.choices else 0)
    return go.Contour(**content, ncontours=12, line={"width": 0.5}, connectgaps=False)


def _points(trials: Sequence[FrozenTrial], names: tuple[str, str], config: StudyConfig) -> go.Scatter:
    shown = [trials[place] for place in evenly(len(trials), MAX_POINTS)]
    best = ranked(trials, config)[0]
    shown = [*(trial for trial in shown if trial.number != best.number), best]
    # Multiples of two numbers far from ratios: what stands beside its choice on both axes fills a square.
    x, y = (
        [_place(name, trial, config, step) for trial in shown]
        for name, step in zip(names, (0.754878, 0.569840), strict=True)
    )
    return go.Scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "size": [5] * (len(shown) - 1) + [15],
            "symbol": ["circle"] * (len(shown) - 1) + ["star"],
            "color": ["#1f2328"] * (len(shown) - 1) + ["#D55E00"],
            "opacity": [0.45] * (len(shown) - 1) + [1],
            "line": {"color": "#ffffff", "width": 0.8},
        },
        text=[f"trial {trial.number}: {short(value_of(trial))}" for trial in shown],
        hovertemplate="%{text}<extra></extra>",
    )


def _place(name: str, trial: FrozenTrial, config: StudyConfig, step: float) -> float:
    """Where a trial stands on an axis; of one choice, beside the others."""
    parameter = config.search[name]
    if not isinstance(parameter, Choices):
        return float(trial.params[name])
    return parameter.choices.index(trial.params[name]) + 0.5 * ((trial.number * step) % 1 - 0.5)


def _ticks(axis: _Axis) -> dict[str, object]:
    if axis.choices:
        return {"tickvals": list(range(len(axis.choices))), "ticktext": list(axis.choices), "showgrid": False}
    if axis.log:
        decades = (axis.high - axis.low) / math.log(10)
        return {"type": "log", "dtick": 1 if decades > 2 else None, "exponentformat": "power"}
    return {}
