"""Finalized studies side by side."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Desk
from conftest import study_of
from safetensors import safe_open
from safetensors.numpy import load_file
from searching import search, submitted

from hpo.errors import HpoError, UsageError
from hpo.results import latency as latency_module
from hpo.results.compare import Comparison, compare
from hpo.results.compare_page import render_comparison
from hpo.results.compare_text import about_tests, notes, rows, sentence
from hpo.results.conclude import OPENINGS, conclude, recorded
from hpo.search.database import Database
from hpo.search.records import StudyRecord
from hpo.search.status import RESULT
from hpo.search.studies import Studies

pytestmark = pytest.mark.slow

HEAD = (
    "search: {learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}}\nsampler: random\ntrials: 1\n"
    "training: {epochs: 2, batch_size: 32}\nfinal: {top: 1, seeds: 2}\n"
)
WINE = "data: {source: sklearn, name: wine}\n"
DIABETES = "data: {source: sklearn, name: diabetes}\nmetric: rmse\n"
DIGITS = "data: {source: sklearn, name: digits, images: true}\n"
STUDIES = {
    "wine": f"{HEAD}{WINE}options: {{width: 32, depth: 1}}",
    "twin": f"{HEAD}{WINE}options: {{width: 32, depth: 1}}",
    "untrained": HEAD.replace("1.0e-2", "1.0e-9").replace("1.0e-3", "1.0e-10") + WINE + "options: {width: 2}",
    "cancer": f"{HEAD}options: {{width: 8}}",
    "small": f"{HEAD}{DIABETES}options: {{width: 4}}",
    "large": f"{HEAD}{DIABETES}options: {{width: 64}}",
    "cnn": f"{HEAD}{DIGITS}architecture: cnn\noptions: {{width: 4, depth: 1}}",
    "pixels": f"{HEAD}{DIGITS}options: {{width: 32}}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """With finalized studies in its `hpo.db`, and one that is only submitted."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copy(empty_database, folder / "hpo.db")
    with pytest.MonkeyPatch.context() as patch, Database(f"sqlite:///{folder}/hpo.db") as database:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        for name, text in STUDIES.items():
            config = study_of(f"name: {name}\n{text}")
            search(database, config)
            conclude(database, Studies(database).study(name), folder / "results" / name)
        submitted(database, study_of(f"name: open\n{HEAD}{WINE}"))
    yield folder


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    with Database(f"sqlite:///{folder}/hpo.db") as opened:
        yield opened


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_module, "BUDGET", 0.0)


def named(database: Database, *names: str) -> list[StudyRecord]:
    return [Studies(database).study(name) for name in names]


def told(comparison: Comparison) -> list[str]:
    return [sentence(comparison, pair) for pair in comparison.pairs]


def cells(comparison: Comparison) -> dict[str, list[str]]:
    return {row.label: [f"{cell.text} {cell.note}".strip() for cell in row.cells] for row in rows(comparison)}


# --- what is compared


def test_a_trained_and_an_untrained_network_differ_by_more_than_noise(database: Database) -> None:
    comparison = compare(named(database, "untrained", "wine"))
    (words,) = told(comparison)
    assert words.startswith("wine is better than untrained, by more than noise: of 27 examples wine alone is")
    assert "p < 0.001" in words and "corrected" not in words
    assert comparison.pairs[0].test.difference < 0
    assert all(study.flops > 0 and study.training_seconds > 0 for study in comparison.studies)


def test_models_with_identical_predictions_are_not_told_apart(database: Database) -> None:
    comparison = compare(named(database, "wine", "twin"))
    assert told(comparison) == ["wine and twin: no difference, they are right on the very same examples."]
    assert comparison.pairs[0].test.p == comparison.pairs[0].corrected == 1


def test_p_values_are_corrected_for_the_number_of_pairs(database: Database) -> None:
    comparison = compare(named(database, "wine", "untrained", "twin"))
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [
        ("wine", "untrained"),
        ("wine", "twin"),
        ("untrained", "twin"),
    ]
    first, _, last = comparison.pairs
    assert first.corrected == last.corrected == pytest.approx(3 * first.test.p)
    assert "corrected for 3 pairs" in told(comparison)[0]
    assert "Holm's correction for 3 pairs" in " ".join(about_tests(comparison))


def test_regressors_are_compared_by_their_squared_errors(database: Database) -> None:
    comparison = compare(named(database, "small", "large"))
    assert {"test RMSE (target's unit)", "test MAE (target's unit)", "test R²"} <= cells(comparison).keys()
    assert "accuracy" not in " ".join([*cells(comparison), *notes(comparison), *told(comparison)])
    assert re.search(r"RMSE \d+.* against \d+", told(comparison)[0])
    assert "paired t-test of the squared errors" in about_tests(comparison)[0]


def test_networks_for_images_come_with_examples_of_what_they_confuse(
    database: Database,
) -> None:
    comparison = compare(named(database, "cnn", "pixels"))
    table = cells(comparison)
    assert table["architecture"] == ["cnn", "mlp"]
    assert all(" to " in cell for cell in table["test accuracy"])
    assert comparison.studies[0].result.confusions[0].images
    page = render_comparison(comparison)
    assert page.count("data:image/png;base64,") > 10


def test_what_is_compared_is_what_was_recorded_with_the_studies(database: Database, folder: Path) -> None:
    comparison = compare(named(database, "cnn", "pixels"))
    for study in comparison.studies:
        out = folder / "results" / study.name
        known = json.loads((out / "metrics.json").read_text())["test"]
        assert study.result.test.scalars() == {name: known[name] for name in study.result.test.scalars()}
        with safe_open(out / "predictions.safetensors", framework="np") as file:
            right = file.get_tensor("predicted") == file.get_tensor("targets")
            assert file.metadata()["test"] == study.result.predictions.test  # type: ignore[union-attr]
        assert right.mean() == pytest.approx(known["accuracy"])
        counts = known["confusion_matrix"]
        names = [found["name"] for found in known["classes"]]
        for pair in study.result.confusions:
            assert counts[names.index(pair.true)][names.index(pair.predicted)] == pair.count


def test_comparing_neither_opens_the_test_part_nor_needs_the_data_or_a_results_folder(
    database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(*arguments: Any, **_: Any) -> None:
        pytest.fail(f"the data are read: {arguments}")

    for module in ("parts", "cache"):
        monkeypatch.setattr(f"hpo.data.{module}.load_rows", reads)
    for opener in ("hpo.data.cache.safe_open", "hpo.data.cache.load", "hpo.data.prepare.open_source"):
        monkeypatch.setattr(opener, reads)
    (folder / "results").rename(folder / "results away")
    try:
        compare(named(database, "wine", "twin", "untrained"))
    finally:
        (folder / "results away").rename(folder / "results")
    assert [len(study.attrs[OPENINGS]) for study in named(database, "wine", "twin")] == [1, 1]


def test_a_folder_that_is_written_again_holds_the_tested_models_predictions(
    folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(folder / "cache"))
    out = folder / "results" / "wine"
    before = load_file(out / "predictions.safetensors")
    shutil.rmtree(out)
    conclude(database, *named(database, "wine"), out)
    again = load_file(out / "predictions.safetensors")
    assert all(again[name].tolist() == before[name].tolist() for name in ("predicted", "targets"))
    assert len(Studies(database).study("wine").attrs[OPENINGS]) == 1


# --- what cannot be compared


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["wine"], UsageError, "STUDY…: must name two or more studies, each once"),
        (["wine", "wine"], UsageError, "must name two or more studies, each once"),
        (["wine", "open"], HpoError, "study 'open' is not finalized: `hpo finalize open`"),
        (["wine", "none"], UsageError, "no study 'none'; there are wine, twin"),
        (
            ["wine", "twin", "cancer"],
            UsageError,
            "studies 'wine' and 'cancer' cannot be compared: the classes of the first: class_0, class_1, "
            "class_2; of the second: benign, malignant",
        ),
        (["small", "wine"], UsageError, "the task of the first: regression; of the second: classification"),
    ],
)
def test_what_cannot_be_compared_is_named(
    database: Database, names: list[str], kind: type[HpoError], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        compare(named(database, *names))


def changed(record: StudyRecord, **changes: Any) -> StudyRecord:
    stored = record.attrs[RESULT]
    attrs = record.attrs | {RESULT: stored | {"result": stored["result"] | changes}}
    return StudyRecord(record.study_id, record.name, record.direction, attrs)


def test_studies_of_other_test_examples_are_refused(database: Database) -> None:
    wine, twin = named(database, "wine", "twin")
    predictions = twin.attrs[RESULT]["result"]["predictions"] | {"test": "f" * 64}
    with pytest.raises(
        UsageError, match=r"the test set of the first: 27 examples .*; of the second: .* ffff"
    ):
        compare([wine, changed(twin, predictions=predictions)])


def test_a_result_without_predictions_says_how_to_get_them(database: Database, folder: Path) -> None:
    wine, twin = named(database, "wine", "twin")
    old = changed(twin, predictions=None)
    with pytest.raises(
        HpoError, match=r"study 'twin' was finalized by an earlier .*`hpo finalize twin --again`"
    ):
        compare([wine, old])
    assert recorded(old) is not None


# --- the command


def test_the_command_prints_a_table_json_and_a_page(folder: Path) -> None:
    desk = Desk(folder)
    out = desk.hpo("compare", "wine", "untrained", "--out", "pages/compare.html").stdout
    assert "test accuracy" in out and "latency, batch 256" in out
    assert "wine is better than untrained, by more than noise" in " ".join(out.split())
    assert out.splitlines()[-1] == "Page: pages/compare.html"
    assert "<title>Comparison of wine, untrained" in (folder / "pages" / "compare.html").read_text()
    answer = desk.json("compare", "wine", "untrained", "--threads", "2")
    assert answer["hardware"]["threads"] == 2 and answer["out"] is None
    assert answer["pairs"][0]["more_than_noise"] is True


def test_wrong_uses_of_the_command_are_told_in_one_message(folder: Path) -> None:
    desk = Desk(folder)
    assert (
        "--out: results is a folder" in desk.hpo("compare", "wine", "twin", "--out", "results", code=2).stderr
    )
    assert "`hpo finalize open`" in desk.hpo("compare", "wine", "open", code=1).stderr
    (folder / "file").write_text("")
    message = desk.hpo("compare", "wine", "twin", "--out", "file/page.html", code=1).stderr
    assert "file/page.html: cannot be written" in message
