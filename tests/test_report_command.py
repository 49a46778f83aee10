"""`hpo report` and `hpo.plot_…` of a study in its database: unfinished, finalized, and as Optuna opens it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import optuna
import plotly.graph_objects as go
import pytest
from commands import Desk
from conftest import study_of
from PIL import Image
from searching import search

import hpo
from hpo.data.prepare import prepare
from hpo.errors import HpoError, UsageError
from hpo.results.conclude import conclude
from hpo.results.theme import NothingToDraw
from hpo.search.database import Database
from hpo.search.studies import Studies
from hpo.search.submission import data_facts, submit

pytestmark = pytest.mark.slow
HEAD = (
    "data: {source: sklearn, name: wine}\nsampler: random\n"
    "training: {epochs: 2}\noptions: {width: 8, depth: 1}\n"
    "search: {learning_rate: {low: 1.0e-3, high: 1.0e-1, log: true}, optimizer: {choices: [adam, sgd]}}\n"
    "trials: 12\nfinal: {top: 1, seeds: 2}\n"
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Desk]:
    """With `wine`, finalized, and `open`, of which no trial was claimed."""
    folder = tmp_path_factory.mktemp("reported")
    shutil.copy(empty_database, folder / "hpo.db")
    with pytest.MonkeyPatch.context() as patch, Database(f"sqlite:///{folder}/hpo.db") as database:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        for name in ("wine", "open"):
            config = study_of(f"name: {name}\n{HEAD}")
            prepared = prepare(config)
            submit(Studies(database), config, prepared.fingerprint, data_facts(prepared))
        search(database, study_of(f"name: wine\n{HEAD}"))
        conclude(database, Studies(database).study("wine"), folder / "results" / "wine")
        yield Desk(folder)


def test_report_is_made_from_the_database_alone(desk: Desk) -> None:
    shutil.rmtree(desk.folder / "cache")
    answer = desk.json("report", "wine", "--out", "pages/wine.html")
    page = (desk.folder / "pages" / "wine.html").read_text()
    assert answer["out"] == "pages/wine.html" and answer["finalized"] is True
    assert answer["sentences"][0] in page
    assert "124 rows to train on, 27 rows to validate on, 27 rows to test on" in answer["sentences"][0]
    for heading in ("Winner and candidates", "What the parameters did", "What an audit found", "Environment"):
        assert heading in page
    assert "a report is made from the database alone" in page, "of what an audit needs the data for"
    assert not (desk.folder / "cache").exists(), "the data were not prepared"
    assert [path.name for path in (desk.folder / "pages").iterdir()] == ["wine.html"]


def test_report_in_the_results_folder_has_what_was_noticed_and_audited(desk: Desk) -> None:
    page = (desk.folder / "results" / "wine" / "report.html").read_text()
    assert "What an audit found" in page
    assert "a report is made from the database alone" not in page


def test_study_of_which_nothing_was_searched_is_reported_as_that(desk: Desk) -> None:
    assert desk.hpo("report", "open").stdout == "Page: report.html\n"
    page = (desk.folder / "report.html").read_text()
    assert "The search has not ended: 0 trials run and 12 wait." in page
    assert "has not been finalized" in page and 'id="winner"' not in page


@pytest.mark.browser
def test_pictures_of_every_figure_are_written_where_they_are_asked_for(desk: Desk) -> None:
    told = desk.json("report", "wine", "--out", "pages/drawn.html", "--png", "pictures")
    written = sorted((desk.folder / "pictures").iterdir())
    assert sorted(told["pictures"]) == [f"pictures/{path.name}" for path in written]
    assert {"roc.png", "history.png", "slice-0.png", "parallel.png"} <= {path.name for path in written}
    with Image.open(desk.folder / "pictures" / "history.png") as image:
        assert image.width == 1800 and len(image.convert("RGB").getcolors(1 << 24) or ()) > 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "no study 'nowhere'"),
        (
            ("wine", "--out", "results"),
            "--out: results is a folder; must be a file, such as results/report.html",
        ),
        (("wine", "--png", "hpo.db"), "--png: hpo.db is a file; must be a folder"),
    ],
)
def test_wrong_use_is_told_and_nothing_is_written(desk: Desk, arguments: tuple[str, ...], says: str) -> None:
    before = sorted(desk.folder.iterdir())
    assert says in desk.hpo("report", *arguments, code=2).stderr
    assert [path for path in sorted(desk.folder.iterdir()) if not path.name.startswith(".std")] == [
        path for path in before if not path.name.startswith(".std")
    ]


SEARCH = (
    "anytime",
    "effects",
    "history",
    "importances",
    "intermediate_values",
    "parallel",
    "slices",
    "contour",
)
TEST = ("roc", "precision_recall", "confusion", "calibration")


def test_every_plot_draws_a_study_by_name_and_as_optuna_opens_it(desk: Desk) -> None:
    plots = {f"plot_{name}" for name in (*SEARCH, *TEST, "predicted")}
    assert plots == {name for name in hpo.__all__ if name.startswith("plot_")}
    opened = optuna.load_study(study_name="wine", storage=desk.storage)
    for name in (*SEARCH, *TEST):
        if name == "effects":  # 12 trials are too few
            continue
        plot = getattr(hpo, f"plot_{name}")
        by_name, by_study = plot("wine", desk.storage), plot(opened)
        assert isinstance(by_name, go.Figure) and by_name.data, name
        assert by_name.to_json() == by_study.to_json(), name


def test_plots_say_what_is_missing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORAGE", desk.storage)
    with pytest.raises(NothingToDraw, match="too few to tell the effects"):
        hpo.plot_effects("wine")
    with pytest.raises(NothingToDraw, match="No trial is complete"):
        hpo.plot_history("open")
    with pytest.raises(HpoError, match="`hpo finalize open` tests its winner"):
        hpo.plot_roc("open")
    with pytest.raises(NothingToDraw, match="predicts classes"):
        hpo.plot_predicted("wine")
    with pytest.raises(UsageError, match="'depth' is not searched; must be two of learning_rate, optimizer"):
        hpo.plot_contour("wine", params=("depth", "optimizer"))
    with pytest.raises(UsageError, match="was not made by hpo"):
        hpo.plot_history(optuna.create_study())
    with pytest.raises(AttributeError, match="plot_nothing"):
        hpo.plot_nothing  # noqa: B018


def test_importing_hpo_imports_nothing_heavy() -> None:
    code = "import sys, hpo; print([m for m in ('torch', 'plotly', 'optuna', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
