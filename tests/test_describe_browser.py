"""The description of data in a real browser: clean and dirty tables, numbers to predict, images."""

from pathlib import Path
from typing import Any

import dirty_data as dirt
import pytest
from browsing import draw_all

from hpo.config import StudyConfig
from hpo.results.describe import describe
from hpo.results.describe_page import panels, render_description

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

PAGES = ["course", "dirt", "numbers", "images", "mnist", "quickstart"]
SCREENS = [(390, "light"), (1280, "dark"), (1920, "light")]


def _study(name: str, folder: Path, shared: Path) -> StudyConfig:
    if name in {"course", "mnist"} and not shared.is_dir():
        pytest.skip(f"there is no folder {shared} with the course's data")
    match name:
        case "course":
            data = {"source": "csv", "path": f"{shared}/dataset.csv", "target": "target"}
            return dirt.study(folder, data)
        case "mnist":
            data = {"source": "idx", "path": f"{shared}/MNIST/raw", "examples": 600}
            return dirt.study(folder, data, architecture="cnn")
        case "images":
            return dirt.images(folder)
        case "quickstart":
            return dirt.study(folder, {"source": "sklearn", "name": "breast_cancer"})
    return dirt.table(folder, "regression" if name == "numbers" else "classification")


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The page, and how many plots it has."""
    folder = tmp_path_factory.mktemp(request.param)
    shared = Path(__file__).parent.parent.parent / "shared" / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        description = describe(_study(request.param, folder, shared))
    path = folder / f"{request.param}.html"
    path.write_text(render_description(description), encoding="utf-8")
    return path, sum(panel.drawn is not None for panel in panels(description))


def test_a_page_opens_whole_and_quiet_and_fits_every_screen(
    browser: "playwright.Browser", page: tuple[Path, int]
) -> None:
    path, plots = page
    said: list[str] = []
    requested: list[str] = []
    opened = browser.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: requested.append(request.url))
    opened.goto(path.as_uri())
    draw_all(opened)
    for width, scheme in SCREENS:
        opened.set_viewport_size({"width": width, "height": 900})
        opened.emulate_media(color_scheme=scheme)
        opened.wait_for_function(FITTED, arg=[width, plots])  # plots follow the window after a moment
        _looks_right(opened.evaluate(LOOK), plots, path.stem)
    opened.close()
    assert said == []
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []


def _looks_right(found: dict[str, Any], plots: int, name: str) -> None:
    assert found["plots"] == plots > 1
    assert found["empty"] == found["untitled"] == found["wide"] == found["cut"] == []
    assert found["broken"] == 0 and "alert(1)" not in found["scripts"]
    if name in {"dirt", "images"}:
        assert dirt.HOSTILE in found["text"]


FITTED = """([width, plots]) => innerWidth === width &&
    document.querySelectorAll(".js-plotly-plot .main-svg:first-child").length >= plots &&
    [...document.querySelectorAll(".js-plotly-plot")].every((plot) =>
        Math.abs(plot.querySelector(".main-svg").clientWidth - plot.clientWidth) <= 1)"""
LOOK = """() => {
    const plots = [...document.querySelectorAll(".js-plotly-plot")];
    const parts = ".legend .bg, .xtitle, .ytitle, .xtick text, .ytick text";
    const X = "[class^=x][class$=title]", Y = "[class^=y][class$=title]";
    const marks = ".point, .points path, .js-line, .hm image, .box, .bars path";
    return {
        plots: plots.length,
        empty: plots.filter((plot) => !plot.querySelector(marks)).map((plot) => plot.id),
        untitled: plots.filter((plot) => !plot.querySelector(X) || !plot.querySelector(Y)
            || !document.getElementById(plot.id + "-title").textContent.trim()).map((plot) => plot.id),
        wide: document.documentElement.scrollWidth > innerWidth ? [document.documentElement.scrollWidth]
            : [...document.querySelectorAll("body *")].filter((element) =>
                element.getBoundingClientRect().right > innerWidth + 1
                && !element.closest(".scroll, pre, script")
            ).map((element) => element.outerHTML.slice(0, 80)),
        cut: plots.flatMap((plot) => {
            const frame = plot.getBoundingClientRect();
            return [...plot.querySelectorAll(parts)].map((part) => [part, part.getBoundingClientRect()])
                .filter(([, box]) => box.width && (box.left < frame.left - 2 || box.right > frame.right + 2
                    || box.top < frame.top - 2 || box.bottom > frame.bottom + 2))
                .map(([part]) => `${plot.id}: ${part.textContent || "legend"}`);
        }),
        broken: [...document.images].filter((image) => !image.naturalWidth || !image.alt).length,
        scripts: [...document.scripts].filter((script) => script.type !== "application/json")
            .map((script) => script.text).join(),
        text: document.body.innerText,
    };
}"""
