"""A self-contained HTML page: nothing in it comes from elsewhere, and only its own scripts can run."""

import base64
import hashlib
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from hpo.results import summary
from hpo.results.machine import version_of
from hpo.results.theme import DARK, LIGHT, ON_DARK, PAGE_DARK, PAGE_LIGHT, NothingToDraw, short

HEIGHT = 450
"""Of a figure that does not say its own, as plotly has it."""
PACKAGES = ("hpo", "torch", "optuna", "scikit-learn", "numpy", "plotly")


@dataclass(frozen=True)
class Panel:
    """A figure with its words, or the reason why it is not there."""

    id: str
    title: str
    caption: str
    drawn: go.Figure | None
    why_not: str = ""
    min_width: int = 0
    """In CSS pixels; a narrower screen scrolls it sideways."""

    @property
    def height(self) -> int:
        """In CSS pixels. Stated: a plot that is redrawn while its window changes would fall to nothing."""
        return int((self.drawn and self.drawn.layout.height) or HEIGHT)


def drawn_panel(
    name: str, title: str, caption: str, draw: Callable[[], go.Figure], min_width: int = 0
) -> Panel:
    """The panel of what `draw` draws, or of why it cannot."""
    try:
        return Panel(name, title, caption, draw(), min_width=min_width)
    except NothingToDraw as reason:
        return Panel(name, title, caption, None, str(reason))


def page(template: str, panels: Iterable[Panel], **content: Any) -> str:
    """The HTML of `template`, an extension of page.html, with what its figures need.

    panels: all on the page. content: what the template itself names.
    """
    drawn = {panel.id: panel.drawn for panel in panels if panel.drawn is not None}
    return (
        _environment()
        .get_template(template)
        .render(
            **content,
            versions={"Python": platform.python_version()} | {name: version_of(name) for name in PACKAGES},
            pages={"light": PAGE_LIGHT, "dark": PAGE_DARK},
            plotly_js=Markup(get_plotlyjs()),
            figures=_json({name: _bare(figure) for name, figure in drawn.items()}),
            themes=_json(
                {
                    "light": {"template": LIGHT.to_plotly_json(), "colors": {}},
                    "dark": {"template": DARK.to_plotly_json(), "colors": ON_DARK},
                }
            ),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hpo", "results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": summary.number,
        "interval": summary.interval_text,
        "csp_hash": _csp_hash,
        "short": short,
    }
    return environment


def _csp_hash(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()}"


def _json(content: Any) -> Markup:
    """JSON for a script element: no `<` that could end it."""
    return Markup(to_json_plotly(content, engine="json").replace("<", "\\u003c"))


def _bare(figure: go.Figure) -> dict[str, Any]:
    """The figure without its template: the page puts in its own, light or dark."""
    content: dict[str, Any] = _rounded(figure.to_plotly_json())
    content["layout"].pop("template", None)
    return content


def _rounded(content: Any) -> Any:
    """Numbers to six digits: more than a screen has pixels, and half as many characters."""
    if isinstance(content, float):
        return float(f"{content:.6g}")
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return content
