"""The dashboard in a real browser: logging in, a study's page, what is live, and what must not run."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from conftest import study_of
from dashboards import PASSWORD, USER, Served, served
from searching import search, submitted
from test_dashboard import made
from test_dashboard_hostile import HOSTILE, hostile  # noqa: F401  (a fixture)

from hpo.results.conclude import conclude
from hpo.search.database import Database
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [pytest.mark.browser, pytest.mark.slow]

HEAD = """\
search: {learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}, dropout: {low: 0.0, high: 0.5}}
data: {source: sklearn, name: wine}
sampler: random
training: {epochs: 3}
final: {top: 1, seeds: 2}
"""
CUT = """() => [...document.querySelectorAll(".gtitle, .xtitle, .ytitle")].filter((text) => {
    const plot = text.closest(".js-plotly-plot").getBoundingClientRect();
    const { left, right } = text.getBoundingClientRect();
    return left < plot.left - 1 || right > plot.right + 1;
}).map((text) => text.textContent)"""
"""The headings of figures, and of their axes, that leave their figure."""
POINT = """([x, y]) => {
    const plot = document.getElementById("plot-history");
    const { left, top } = plot.getBoundingClientRect();
    const { xaxis, yaxis } = plot._fullLayout;
    return [left + xaxis._offset + xaxis.l2p(x), top + yaxis._offset + yaxis.l2p(y)];
}"""
"""Where a trial's number and value lie on the screen."""
PATIENCE = 60_000
"""Milliseconds: the machine may be busy."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """With two finalized studies and an open one in its `hpo.db`."""
    folder = tmp_path_factory.mktemp("dashboard")
    shutil.copy(empty_database, folder / "hpo.db")
    with pytest.MonkeyPatch.context() as patch, Database(f"sqlite:///{folder}/hpo.db") as database:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        for name, width in (("wine", 16), ("wine-wide", 32)):
            search(database, study_of(f"name: {name}\ntrials: 6\noptions: {{width: {width}}}\n{HEAD}"))
            conclude(database, Studies(database).study(name), folder / "results" / name)
        submitted(database, study_of(f"name: open\ntrials: 6\noptions: {{width: 8}}\n{HEAD}"))
    yield folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Served]:
    with served(f"sqlite:///{folder}/hpo.db") as running:
        yield running


class Visit:
    """A browser of its own, and what its pages said and asked others for."""

    def __init__(self, browser: "playwright.Browser", site: Served, width: int = 1280) -> None:
        self.site = site
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.said: list[str] = []
        self.elsewhere: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", self._note)

    def _note(self, request: "playwright.Request") -> None:
        if not request.url.startswith((self.site.address, "data:", "blob:")):
            self.elsewhere.append(request.url)

    def open(self, path: str) -> None:
        self.page.goto(f"{self.site.address}{path}")

    def log_in(self, password: str = PASSWORD) -> None:
        self.page.get_by_label("User name").fill(USER)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def scrolled_to(self, title: str) -> "playwright.Locator":
        """The figure with this title; ours are drawn when they come near the screen."""
        plot = self.page.locator(".js-plotly-plot", has=self.page.locator(".gtitle", has_text=title))
        places = self.page.locator("[id^='user-defined-plot']")
        places.first.wait_for(state="attached")
        for place in places.all():
            place.scroll_into_view_if_needed()
            place.locator(".main-svg").first.wait_for(state="attached")
            if plot.count():
                break
        plot.first.wait_for()
        return plot.first

    def sees(self, text: str) -> None:
        playwright.expect(self.page.get_by_text(text).first).to_be_visible(timeout=PATIENCE)


@pytest.fixture
def visit(browser: "playwright.Browser", site: Served) -> Iterator[Visit]:
    """Logged in."""
    visit = Visit(browser, site)
    visit.open("/login")
    visit.log_in()
    visit.page.wait_for_url("**/dashboard")
    yield visit
    visit.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_logging_in_leads_to_the_page_that_was_asked_for(
    browser: "playwright.Browser", site: Served, width: int
) -> None:
    visit = Visit(browser, site, width)
    visit.open("/dashboard/studies/1/note")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    visit.log_in()
    visit.sees("The study now")
    assert visit.page.url == f"{site.address}/dashboard/studies/1/note"
    visit.page.get_by_role("button", name="Log out").click()
    playwright.expect(visit.page.get_by_label("Password")).to_be_visible(timeout=PATIENCE)
    visit.open("/dashboard/studies/1")
    playwright.expect(visit.page.get_by_label("Password")).to_be_visible(timeout=PATIENCE)
    assert visit.said == [] and visit.elsewhere == []
    visit.context.close()


def test_a_wrong_password_is_refused(browser: "playwright.Browser", folder: Path) -> None:
    with served(f"sqlite:///{folder}/hpo.db") as site:
        visit = Visit(browser, site)
        visit.open("/dashboard")
        visit.log_in("wrong password")
        visit.sees("Wrong user name or password.")
        assert [cookie["name"] for cookie in visit.context.cookies()] == []
        visit.log_in()
        visit.sees("Too many tries")
        visit.context.close()


def test_studies_are_listed_and_a_study_shows_its_plots_and_ours(visit: Visit) -> None:
    for name in ("wine", "wine-wide", "open"):
        visit.sees(name)
    visit.open("/dashboard/studies/1")
    page = visit.page
    page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for(state="attached")
    for title in ("History", "Hyperparameter Importance", "Intermediate values", "Best Trial"):
        page.get_by_role("heading", name=title).first.wait_for()
    for title in (
        "Learning curves of the 10 best trials",
        "Accuracy against time",
        "Lanes in use",
        "ROC curves on the test set",
        "Confusion matrix on the test set",
        "Studies on this test set",
    ):
        plot = visit.scrolled_to(title)
        marks = plot.locator(".point, .js-line, .hm image, path.js-fill")
        marks.first.wait_for(state="attached")
    page.locator("#graph-intermediate-values .js-line").nth(5).wait_for(state="attached")
    assert visit.said == [] and visit.elsewhere == []


def test_what_is_printed_has_the_figures_that_were_never_near_the_screen(visit: Visit) -> None:
    visit.open("/dashboard/studies/1")
    places = visit.page.locator("[id^='user-defined-plot']")
    places.first.wait_for(state="attached")
    waiting = visit.page.locator("[id^='user-defined-plot']:not(:has(.main-svg))")
    assert waiting.count()
    visit.page.pdf()
    assert waiting.count() == 0
    assert visit.said == []


# A scheme changes colours, not widths.
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark"), (1920, "light")])
def test_pages_are_as_wide_as_the_screen(visit: Visit, width: int, scheme: Literal["light", "dark"]) -> None:
    page = visit.page
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for path, shown in (
        ("", "wine-wide"),
        ("/studies/1", "Best Trial"),
        ("/studies/1/analytics", "Param dropout"),
        ("/studies/1/trials", "Trial 0"),
        ("/studies/1/note", "The study now"),
    ):
        visit.open(f"/dashboard{path}")
        visit.sees(shown)
        if path == "/studies/1":
            visit.scrolled_to("Confusion matrix on the test set")
            visit.scrolled_to("Studies on this test set")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        cut = page.evaluate(CUT)
        assert cut == [], path
    assert visit.said == [] and visit.elsewhere == []


def test_a_click_on_one_of_many_points_leads_to_its_trial(
    browser: "playwright.Browser", sqlite: Database
) -> None:
    made(sqlite, 1100, sign=-1)  # the line of the best value is above all points but the first
    with served(sqlite.url.render_as_string(hide_password=False), login=False) as site:
        visit = Visit(browser, site)
        visit.open("/dashboard/studies/1")
        visit.page.locator("#plot-history canvas").first.wait_for(state="attached")
        left, top = visit.page.evaluate(POINT, [700, -0.7])
        visit.page.mouse.move(left, top)
        visit.page.locator("#plot-history .hoverlayer .hovertext").first.wait_for()
        visit.page.mouse.click(left, top)
        visit.page.wait_for_url("**/trials?numbers=*")
        number = int(visit.page.url.rpartition("=")[2])
        assert abs(number - 700) <= 3, "of its neighbours it may be the one that the pixel is nearer to"
        visit.sees(f"Trial {number}")
        assert not any("reading 'id'" in said for said in visit.said), "as with optuna-dashboard's own script"
        visit.context.close()


def test_parameters_trials_and_the_note_are_there(visit: Visit) -> None:
    visit.open("/dashboard/studies/1/analytics")
    visit.page.locator(".js-plotly-plot .scatterlayer .point").first.wait_for(state="attached")
    visit.sees("Param dropout")
    visit.open("/dashboard/studies/1/trials?numbers=2")
    for fact in ("Trial 2", "worker", "seconds", "epochs"):
        visit.sees(fact)
    visit.open("/dashboard/studies/1/note")
    for fact in ("Goal:", "Best so far:", "Tested once:", "learning_rate", "report.html"):
        visit.sees(fact)
    assert visit.said == [] and visit.elsewhere == []


def test_a_page_that_is_open_follows_the_search(visit: Visit, folder: Path) -> None:
    visit.open("/dashboard/studies/3/note")
    visit.sees("waiting. 0 of 6 trials finished")
    with Database(f"sqlite:///{folder}/hpo.db") as database:
        study = Studies(database).study("open")
        serve(database, study, WorkerOptions(4, 1, poll=0.05), threading.Event())
    visit.sees("searched. 6 of 6 trials finished")  # without a reload
    visit.open("/dashboard/studies/3")
    visit.page.locator(".js-plotly-plot .scatterlayer .point").nth(5).wait_for(state="attached")
    assert visit.said == []


def test_scripts_in_names_notes_and_parameters_are_text(
    browser: "playwright.Browser",
    hostile: Database,  # noqa: F811
) -> None:
    with served(hostile.url.render_as_string(hide_password=False), login=False) as site:
        visit = Visit(browser, site)
        visit.open("/dashboard")
        visit.sees(HOSTILE.splitlines()[0])
        for part in ("", "/analytics", "/trials?numbers=0", "/note"):
            visit.open(f"/dashboard/studies/1{part}")
            visit.page.wait_for_load_state("networkidle")
            visit.sees("onerror")
            ran = "[...document.querySelectorAll('img[src=x], [onerror], body script')].length"
            assert visit.page.evaluate(ran) == 0, part
        assert [said for said in visit.said if said in "12" or "alert" in said] == []
        assert visit.elsewhere == []
        visit.context.close()
