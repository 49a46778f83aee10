"""Plotly figure of what each parameter changed."""

import plotly.graph_objects as go

from hpo.config import StudyConfig
from hpo.results.effects import Effects
from hpo.results.theme import BLUE, GREY, NothingToDraw, figure, text
from hpo.results.values import LABELS

CUT = 34
"""Characters of a parameter and its group, on two lines."""


def effects_figure(found: Effects, config: StudyConfig) -> go.Figure:
    """Each parameter's best group against its others: the difference with its interval.

    Raises:
        NothingToDraw: no effect can be told.
    """
    if not found.found:
        raise NothingToDraw("The trials do not tell the parameters' effects apart.")
    traces = []
    for clear, name, color, symbol in (
        (True, "stands out from chance", BLUE, "circle"),
        (False, "does not", GREY, "circle-open"),
    ):
        rows = [effect for effect in reversed(found.found) if effect.clear is clear]
        if rows:
            traces.append(
                go.Scatter(
                    x=[effect.gain for effect in rows],
                    y=[_row(effect.name, effect.group) for effect in rows],
                    error_x={
                        "array": [effect.interval[1] - effect.gain for effect in rows],
                        "arrayminus": [effect.gain - effect.interval[0] for effect in rows],
                        "color": color,
                        "thickness": 2,
                    },
                    mode="markers",
                    name=name,
                    marker={"color": color, "size": 10, "symbol": symbol, "line": {"width": 2}},
                    hovertemplate="%{x:+.4f}<extra></extra>",
                )
            )
    drawn = figure(
        *traces,
        x=f"gain in {LABELS[config.metric]}",
        y="",
        height=150 + 48 * len(found.found),
    )
    order = [_row(effect.name, effect.group) for effect in reversed(found.found)]
    drawn.update_yaxes(type="category", categoryorder="array", categoryarray=order, showgrid=False)
    return drawn.add_vline(x=0, line={"color": GREY, "dash": "dash", "width": 1.5})


def _row(name: str, group: str) -> str:
    return f"{text(_cut(name))}<br>{text(_cut(group))}"


def _cut(label: str) -> str:
    return label if len(label) <= CUT else label[: CUT - 1] + "…"
