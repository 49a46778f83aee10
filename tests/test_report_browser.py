"""The report, and the comparison of several studies, in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import report_example as example
from browsing import Visit

from hpo.results.compare_page import render_comparison
from hpo.results.report import render

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

CLASSES = ["healthy", example.HOSTILE, "a third class with a name too long for a legend on a telephone"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    study = example.config()
    trials = example.trials(study, 60)
    result = example.result(study, trials, CLASSES)
    path.write_text(render(example.reported(study, trials, result)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparison") / "compare.html"
    path.write_text(render_comparison(example.comparison(CLASSES)), encoding="utf-8")
    return path


@pytest.fixture(
    scope="module",
    params=[
        (page, *screen)
        for page in ("report", "comparison")
        for screen in ((390, "light"), (1280, "dark"), (1920, "light"))
    ],
    ids=lambda found: "-".join(map(str, found)),
)
def visit(browser: "playwright.Browser", request: pytest.FixtureRequest) -> Iterator[Visit]:
    page, width, scheme = request.param
    visit = Visit(browser, request.getfixturevalue(page), width, scheme)
    yield visit
    visit.page.close()


def test_page_opens_with_all_its_plots_and_without_a_word_or_a_request(visit: Visit) -> None:
    assert visit.said == []
    assert visit.requested == []
    plots = visit.page.locator(".js-plotly-plot svg.main-svg:first-child")
    assert plots.count() == (13 + len(example.config().search) if visit.name == "report" else 2 * 3)
    # Each has drawn something: bars, points, lines or cells.
    marks = ".point, .js-line, .hm image, .heatmaplayer image, path.js-line"
    for index in range(plots.count()):
        assert plots.nth(index).locator(marks).count() > 0, f"plot {index} is empty"


def test_nothing_is_wider_than_the_screen(visit: Visit) -> None:
    assert visit.wider_than_the_screen() == []


def test_legends_and_axis_titles_stay_inside_their_plots(visit: Visit) -> None:
    assert visit.cut_off() == []


def test_hostile_names_are_shown_as_text(visit: Visit) -> None:
    page = visit.page
    if visit.name == "report":
        assert page.locator("th", has_text=example.HOSTILE).count() == 1
    else:
        assert page.locator(".confused", has_text=example.HOSTILE).count() == 3
    legends = page.locator(".legendtext", has_text=example.HOSTILE)
    assert legends.count() == (2 if visit.name == "report" else 3)
    scripts = page.evaluate("[...document.scripts].map((script) => script.text)")
    assert "alert(1)" not in scripts
    assert visit.said == [], "no dialog was opened"


def test_examples_of_confused_classes_are_drawn_and_described(
    browser: "playwright.Browser", comparison: Path
) -> None:
    visit = Visit(browser, comparison, 1280)
    drawn = visit.page.evaluate(
        "[...document.querySelectorAll('.confused img')].map((image) => [image.naturalWidth, image.alt])"
    )
    assert len(drawn) > 3 * 4
    assert all(width == 8 and "taken for" in description for width, description in drawn)
    visit.page.close()


def test_colours_follow_the_system(browser: "playwright.Browser", report: Path) -> None:
    visit = Visit(browser, report, 1280, "light")
    visit.page.locator("#history").scroll_into_view_if_needed()
    title = visit.page.locator("#history .xtitle")
    playwright.expect(title).to_have_css("fill", "rgb(31, 35, 40)")
    visit.page.emulate_media(color_scheme="dark")
    playwright.expect(title).to_have_css("fill", "rgb(230, 232, 235)")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)"
    visit.page.close()


def test_a_figure_is_drawn_when_it_comes_near_the_screen_and_every_one_for_print(
    browser: "playwright.Browser", report: Path
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(report.as_uri())
    plots, drawn = page.locator(".plot"), page.locator(".plot svg.main-svg:first-child")
    plots.first.scroll_into_view_if_needed()
    drawn.first.wait_for(state="attached")
    assert 0 < drawn.count() < plots.count()
    assert page.locator("#parallel .main-svg").count() == 0
    widths = page.evaluate(PRINTED)
    assert len(widths) == plots.count() and set(widths) == {640}
    playwright.expect(drawn.first).not_to_have_attribute("width", "640")
    plots.last.scroll_into_view_if_needed()
    playwright.expect(drawn.last).not_to_have_attribute("width", "640")
    page.close()


PRINTED = """() => {
    dispatchEvent(new Event("beforeprint"));
    const widths = [...document.querySelectorAll(".plot")].map(
        (plot) => Number(plot.querySelector(".main-svg").getAttribute("width")));
    dispatchEvent(new Event("afterprint"));
    return widths;
}"""


def test_injected_script_is_stopped_by_the_pages_policy(browser: "playwright.Browser", report: Path) -> None:
    """If escaping ever failed, the page's Content-Security-Policy would still hold."""
    visit = Visit(browser, report, 1280)
    visit.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))"
    )
    assert visit.page.title() == "example · hpo report"
    assert "Content Security Policy" in visit.said[0]
    visit.page.close()
