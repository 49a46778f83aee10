"""Explanations in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import Visit
from explain_example import HOSTILE, explained

from hpo.results.explain_page import render_explanation

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name in ("table", "numbers", "pictures"):
        (folder / f"{name}.html").write_text(render_explanation(explained(name)), encoding="utf-8")
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture(
    scope="module",
    params=[
        (page, *screen)
        for page in ("table", "pictures")
        for screen in ((390, "light"), (1280, "dark"), (1920, "light"))
    ]
    + [("numbers", 390, "dark")],
    ids=lambda found: "-".join(map(str, found)),
)
def visit(browser: "Browser", pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Visit]:
    page, width, scheme = request.param
    visit = Visit(browser, pages[page], width, scheme)
    yield visit
    visit.page.close()


def test_page_opens_with_all_its_plots_and_pictures_and_without_a_word_or_a_request(visit: Visit) -> None:
    assert visit.said == [] and visit.requested == []
    plots = visit.page.locator(".js-plotly-plot svg.main-svg:first-child")
    assert plots.count() == {"pictures": 1, "table": 1 + 2 + 4 + 4, "numbers": 1 + 2 + 4 + 6}[visit.name]
    for index in range(plots.count()):
        assert plots.nth(index).locator(".point, .js-line, .hm image, .heatmaplayer image").count() > 0
    drawn = visit.page.evaluate("[...document.images].map((image) => [image.naturalWidth, image.alt])")
    assert len(drawn) == (
        0
        if visit.name != "pictures"
        else 3 * (3 + 4 + 5) + 5 * visit.page.locator("#pairs ~ .cards .card").count()
    )
    assert all(width and len(words) > 10 for width, words in drawn)


def test_nothing_is_wider_than_the_screen_cut_off_or_covered(visit: Visit) -> None:
    assert visit.wider_than_the_screen() == []
    assert visit.cut_off() == []
    assert visit.overlapping("h1, h2, h3, h4, p, li, .shots img, .shots figcaption, .plot, dd, dt") == []


def test_hostile_names_are_shown_as_text(visit: Visit) -> None:
    assert visit.page.get_by_text(HOSTILE).count() > 1
    assert "alert(1)" not in visit.page.evaluate("[...document.scripts].map((script) => script.text)")
    assert visit.said == [], "no dialog was opened"
