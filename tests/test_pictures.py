"""Figures as picture files."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
from PIL import Image

from hpo.errors import HpoError, UsageError
from hpo.results.page import Panel
from hpo.results.pictures import check_pictures, write_panels, write_pictures
from hpo.results.theme import figure

HOSTILE = "<b>f1</b> & $x$"


def panel(name: str = "lines", title: str = HOSTILE) -> Panel:
    traces = [go.Scatter(x=[1, 2], y=[2, 3], name=series) for series in (HOSTILE, "second")]
    return Panel(name, title, "", figure(*traces, x="step", y="value", height=300))


@pytest.mark.browser
def test_pictures_are_drawn_with_their_titles_and_names_as_text(tmp_path: Path) -> None:
    check_pictures()
    panels = [panel(), Panel("none", "", "", None, "nothing to draw")]
    written = write_panels(panels, tmp_path / "new" / "folder", "svg")
    assert written == list((tmp_path / "new" / "folder").iterdir()) and written[0].name == "lines.svg"
    root = ElementTree.parse(written[0]).getroot()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {HOSTILE, "second", "step", "value"} <= texts


@pytest.mark.browser
def test_a_png_is_twice_as_wide_as_the_figure_and_white(tmp_path: Path) -> None:
    (written,) = write_pictures({"lines": panel().drawn}, tmp_path, "png")
    with Image.open(written) as image:
        assert image.size == (1800, 600)
        assert image.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_without_chrome_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "nowhere"))
    for ask in (check_pictures, lambda: write_panels([panel()], tmp_path, "png")):
        with pytest.raises(
            HpoError, match=r"need Chrome or Chromium, and BROWSER_PATH is '.*nowhere', which"
        ):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_without_kaleido_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(UsageError, match=r"pip install 'hpo\[images\]'"):
        check_pictures()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="taken: is a file; pictures need a folder"):
        write_panels([panel()], tmp_path / "taken", "png")
