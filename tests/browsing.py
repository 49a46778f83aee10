"""Pages in a real browser: what they say and ask for, and whether everything has its place."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def draw_all(page: "Page") -> None:
    """Scrolls through the page, which draws a figure when it comes near the screen."""
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for(state="attached")


class Visit:
    """A page, opened; what it said and asked for on the way."""

    def __init__(self, browser: "Browser", page: Path, width: int, scheme: str = "light") -> None:
        self.name = page.stem
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.route("**/*", self._route)
        self.page.goto(page.as_uri())
        draw_all(self.page)

    def _route(self, route: "Route") -> None:
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            self.requested.append(route.request.url)
            route.abort()

    def wider_than_the_screen(self) -> list[str]:
        """What sticks out on the right, but for what scrolls by itself."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll("body, body *")].filter((element) =>
                (element.getBoundingClientRect().right > innerWidth + 1
                    || element === document.body && document.documentElement.scrollWidth > innerWidth)
                && !element.closest(".scroll, pre, script")
            ).map((element) => element.outerHTML.slice(0, 80))"""
        )
        return found

    def cut_off(self) -> list[str]:
        """Legends, axis titles and labels that leave their plot."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll(".js-plotly-plot")].flatMap((plot) => {
                const frame = plot.getBoundingClientRect();
                return [...plot.querySelectorAll(".legend .bg, .xtitle, .ytitle, .xtick text, .ytick text")]
                    .map((part) => [part, part.getBoundingClientRect()])
                    .filter(([, box]) => box.width && (box.left < frame.left - 2
                        || box.right > frame.right + 2 || box.top < frame.top - 2
                        || box.bottom > frame.bottom + 2))
                    .map(([part]) => `${plot.id}: ${part.textContent || "legend"}`);
            })"""
        )
        return found

    def overlapping(self, what: str) -> list[str]:
        """Pairs of elements matching `what` that cover each other."""
        found: list[str] = self.page.evaluate(
            """(what) => {
                const boxes = [...document.querySelectorAll(what)].map((e) => [e, e.getBoundingClientRect()])
                    .filter(([, box]) => box.width && box.height);
                return boxes.flatMap(([one, a], place) => boxes.slice(place + 1)
                    .filter(([other, b]) => !one.contains(other) && a.left < b.right - 1
                        && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
                    .map(([other]) => `${one.outerHTML.slice(0, 60)} and ${other.outerHTML.slice(0, 60)}`));
            }""",
            what,
        )
        return found
