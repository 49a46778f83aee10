"""How figures look: colours, letters, axes; the same on every page and in notebooks."""

import html
from typing import Any

import plotly.graph_objects as go

from hpo.errors import HpoError

# Okabe and Ito (2008): told apart with any colour vision; without its black and its yellow, which vanish on
# a dark or a white page. What differs in meaning differs in shape or dash too.
BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
)
PALETTE = [BLUE, ORANGE, GREEN, VERMILLION, SKY, PURPLE]
DASHES = ["solid", "dash", "dot", "dashdot"]
GREY = "#8A8F98"
ON_DARK = {BLUE: "#3D9BD9", SKY: "#9BD6F7"}
"""What takes a colour's place on a dark page, where the blue would sink in."""
PAGE_LIGHT, PAGE_DARK = "#ffffff", "#16181c"


class NothingToDraw(HpoError):
    """A figure cannot be drawn from these results; the text says what is missing."""


def text(value: object) -> str:
    """`value` as plotly shows it literally: plotly reads tags in any label."""
    return html.escape(str(value), quote=False)


def template(ink: str, grid: str, page: str) -> go.layout.Template:
    """Axes, margins and letters in these colours, on a page that shows through."""
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "automargin": True,
        "title": {"standoff": 12},
        "showline": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": ink},
            "colorway": PALETTE,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 56, "r": 16, "t": 40, "b": 48},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": ink},
            "xaxis": axis,
            "yaxis": axis,
            "annotationdefaults": {"bgcolor": page, "borderpad": 1, "showarrow": False},
        }
    )


LIGHT = template("#1f2328", "#d8dce2", PAGE_LIGHT)
DARK = template("#e6e8eb", "#3a4049", PAGE_DARK)


def figure(*traces: Any, x: str, y: str, height: int = 400, **layout: Any) -> go.Figure:
    """`traces` on axes with these titles, on a light page."""
    drawn = go.Figure(list(traces))
    return drawn.update_layout(
        template=LIGHT, height=height, xaxis_title_text=text(x), yaxis_title_text=text(y), **layout
    )


def short(value: object) -> str:
    """A number to four significant digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cut(name: str, most: int) -> str:
    """`name` in at most `most` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"
