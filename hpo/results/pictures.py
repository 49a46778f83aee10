"""Figures as picture files, drawn by kaleido (extra `images`) in the Chrome or Chromium that is installed."""

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from hpo.errors import HpoError, UsageError
from hpo.results.page import Panel
from hpo.results.theme import PAGE_LIGHT, text

Kind = Literal["png", "svg"]
WIDTH, HEIGHT = 900, 400
"""Pixels of a figure that does not say its own."""
TITLE = 44
"""Pixels for a title above the legend."""
SCALE = 2
"""PNG pixels for each pixel of a screen: sharp on paper."""


def check_pictures() -> None:
    """Whether pictures can be drawn here: ask before the work that they are to show.

    Raises:
        UsageError: kaleido is not installed.
        HpoError: there is no Chrome that it could use.
    """
    kaleido = _kaleido()
    try:
        kaleido.Kaleido(mathjax=False)  # looks for Chrome, but does not start it
    except kaleido.errors.ChromeNotFoundError as error:
        raise HpoError(_no_chrome()) from error


def write_panels(panels: Iterable[Panel], folder: Path, kind: Kind) -> list[Path]:
    """Each panel's figure under its title, as `folder`/ID.png or .svg.

    Raises:
        HpoError: see `write_pictures`.
    """
    figures = {panel.id: titled(panel) for panel in panels if panel.drawn is not None}
    return write_pictures(figures, folder, kind)


def titled(panel: Panel) -> go.Figure:
    """A copy of the panel's figure that has its title in it, above the legend."""
    drawn = go.Figure(panel.drawn)
    height = drawn.layout.height or HEIGHT
    above = max(drawn.layout.margin.t or 0, 40) + TITLE
    title = {"text": text(panel.title), "x": 0.02, "y": 1 - 12 / (height + TITLE), "yanchor": "top"}
    return drawn.update_layout(title=title, height=height + TITLE, margin_t=above)


def write_pictures(figures: Mapping[str, go.Figure], folder: Path, kind: Kind) -> list[Path]:
    """Each figure as `folder`/NAME.png or .svg, on white; all of them or none.

    figures: by name, which has no `/`. Nothing is loaded from elsewhere to draw them.

    Raises:
        UsageError: kaleido is not installed, or `folder` is a file.
        HpoError: there is no Chrome, it failed, or the folder cannot be written.
    """
    kaleido = _kaleido()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; pictures need a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pictures-", dir=folder) as beside:
            paths = [Path(beside) / f"{name}.{kind}" for name in figures]
            orders = [_order(drawn, path, kind) for drawn, path in zip(figures.values(), paths, strict=True)]
            _draw(kaleido, orders)
            return [path.replace(folder / path.name) for path in paths]
    except OSError as error:
        raise HpoError(f"{folder}: pictures cannot be written: {error.strerror or error}") from error


def _order(drawn: go.Figure, path: Path, kind: Kind) -> dict[str, Any]:
    """What kaleido is asked for."""
    opaque = go.Figure(drawn).update_layout(paper_bgcolor=PAGE_LIGHT, plot_bgcolor=PAGE_LIGHT)
    size = {"width": drawn.layout.width or WIDTH, "height": drawn.layout.height or HEIGHT}
    scale = SCALE if kind == "png" else 1
    return {"fig": opaque.to_dict(), "path": path, "opts": {"format": kind, "scale": scale, **size}}


def _draw(kaleido: Any, orders: Sequence[dict[str, Any]]) -> None:
    if not orders:
        return
    try:
        # MathJax would be fetched by default.
        kaleido.write_fig_from_object_sync(orders, kopts={"mathjax": False})
    except kaleido.errors.ChromeNotFoundError as error:
        raise HpoError(_no_chrome()) from error
    except OSError:
        raise
    except Exception as error:  # of kaleido, choreographer or asyncio: a browser fails in many ways
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise HpoError(f"Chrome could not draw the pictures: {reason}") from error


def _no_chrome() -> str:
    named = os.environ.get("BROWSER_PATH")
    found = f"BROWSER_PATH is {named!r}, which is none" if named else "none was found"
    return f"pictures need Chrome or Chromium, and {found}; install one, or set BROWSER_PATH to its program"


def _kaleido() -> Any:
    try:
        import kaleido
        import kaleido.errors
    except ImportError as error:
        raise UsageError(
            "pictures need kaleido, which is not installed: pip install 'hpo[images]'"
        ) from error
    return kaleido
