"""Explanations of whole models: what they find, and how they say it."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import explain_example as example
import numpy as np
import pytest
from commands import Desk
from conftest import study_of
from explain_example import (
    HOSTILE,
    PLANTED,
    Blocked,
    convolutional,
    perceptron,
    picture_subject,
    table_subject,
    trained,
)
from markupsafe import escape
from searching import search

from hpo.data import parts
from hpo.data.prepare import prepare
from hpo.results import columns
from hpo.results.conclude import conclude, recorded
from hpo.results.explain import Explanation, explain
from hpo.results.explain_json import as_json
from hpo.results.explain_page import render_explanation
from hpo.results.explain_text import impossible, matters, verdict
from hpo.results.study_subject import study_subject
from hpo.search.database import Database
from hpo.search.studies import Studies

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "PREDICTIONS", 0)
        yield


@pytest.fixture(scope="module")
def table() -> Explanation:
    return example.explained("table")


@pytest.fixture(scope="module")
def pictures() -> Explanation:
    return example.explained("pictures")


# --- tables


def test_two_of_ten_columns_that_matter_are_found(table: Explanation) -> None:
    assert table.importances is not None
    first, second, *others = table.importances.columns
    assert {first.column, second.column} == PLANTED and first.column == HOSTILE
    assert second.interval[0] > 0.05 > max(one.cost for one in others)
    assert all(one.interval[0] <= one.cost <= one.interval[1] for one in table.importances.columns)
    assert {curve.column for curve in table.dependences[:2]} == PLANTED
    assert all(curve.means[0, -1] - curve.means[0, 0] > 0.4 for curve in table.dependences[:2])
    attributions = as_json(table)["attributions"]
    for of_class in attributions.values():
        assert set(sorted(of_class, key=of_class.__getitem__)[-2:]) == PLANTED


def test_the_sentences_name_what_matters_and_in_which_direction(table: Explanation) -> None:
    text = " ".join(matters(table))
    assert re.search(
        rf"leans most on {re.escape(HOSTILE)}: shuffling it costs 0\.\d+ accuracy \(95 %: 0\.", text
    )
    assert f"For class no speak above all low {HOSTILE} and low g." in text
    assert f"For class {HOSTILE} speak above all high {HOSTILE} and high g." in text
    assert "Integrated gradients passes that check" in verdict(table)


def test_a_regressor_is_explained_in_the_targets_unit() -> None:
    found = example.explained("numbers")
    assert found.importances is not None and not found.pairs
    assert {one.column for one in found.importances.columns[:2]} == PLANTED
    assert "RMSE (95 %" in matters(found)[0]
    (examples,) = found.shown.values()
    errors = [abs(float((found.subject.predicted - found.subject.truth)[shown.row])) for shown in examples]
    assert errors[:3] == sorted(errors)[:3] and max(errors) == errors[3]
    assert "Predicted " in render_explanation(found)


def test_without_targets_the_models_own_answers_are_what_shuffling_changes(few_resamples: None) -> None:
    found = explain(table_subject(known=False))
    assert found.importances is not None
    assert {one.column for one in found.importances.columns[:2]} == PLANTED
    assert "agreement with its own predictions" in matters(found)[0]
    assert "Right and wrong examples, confused classes: the targets are not known." in impossible(found)
    assert as_json(found)["score"] is None and "not known" in render_explanation(found)


# --- pictures


def test_right_and_wrong_examples_and_confused_pairs_are_shown(pictures: Explanation) -> None:
    subject = pictures.subject
    for kind, shown in pictures.shown.items():
        assert [one.right for one in shown] == [True, False]
        right, wrong = shown
        assert right.maps.keys() == wrong.maps.keys() == {"Integrated gradients", "Grad-CAM", "Occlusion"}
        assert right.explained == kind != wrong.explained
        assert right.for_truth is None and wrong.for_truth is not None
        assert all(example.in_patch(int(found.argmax()), kind) for found in right.maps.values())
        # It was labelled wrongly: what speaks for the prediction is the patch that is really there.
        assert example.in_patch(int(wrong.maps["Occlusion"].argmax()), wrong.explained)
    assert pictures.pairs and all(pair.true != pair.predicted for pair in pictures.pairs)
    assert sum(pair.count for pair in pictures.pairs) == int((subject.predicted != subject.targets).sum())


def test_the_ninth_of_the_picture_that_decides_is_named(pictures: Explanation) -> None:
    text = " ".join(matters(pictures))
    assert "For class upper left the upper left ninth of the picture counts most" in text
    assert f"For class {HOSTILE} the upper right ninth" in text
    first = pictures.pairs[0]
    names = f"{example.CLASSES[first.true]} for {example.CLASSES[first.predicted]}"
    assert f"It most often takes {names} ({first.count} of {first.of})" in text


def test_what_a_model_does_not_allow_is_said_on_the_page() -> None:
    page = render_explanation(explain(picture_subject(trained(perceptron))))
    assert "Grad-CAM: the model has no two-dimensional convolution" in page
    found = explain(picture_subject(Blocked(trained(convolutional))))
    page = render_explanation(found)
    assert "Integrated gradients: the model is not differentiable" in page
    assert "An input that maximises a class: it needs gradients." in page
    assert "Occlusion passes that check" in verdict(found)


def test_the_page_is_one_small_file_that_loads_nothing_and_escapes_names(
    table: Explanation, pictures: Explanation
) -> None:
    for found in (table, pictures):
        page = render_explanation(found)
        assert page.count("* plotly.js v") == 1 and len(page) < 6e6
        assert "default-src 'none'" in page and HOSTILE not in page
        assert not re.search(r'(src|href)="(?!#|data:image/png)', page.partition("<script")[0])
        for text in (*matters(found), verdict(found)):
            assert escape(text) in page
    assert page.count("<img") == page.count('alt="')


def test_equal_arguments_give_equal_explanations(table: Explanation) -> None:
    again, once = as_json(explain(table_subject())), as_json(table)
    assert again.pop("seconds") >= 0 and once.pop("seconds") >= 0
    assert again == once


# --- studies and bundles

HEAD = (
    "search: {learning_rate: {low: 5.0e-3, high: 2.0e-2, log: true}}\nsampler: random\ntrials: 1\n"
    "training: {epochs: 12, batch_size: 32}\nfinal: {top: 1, seeds: 2}\noptions: {width: 16, depth: 1}\n"
)
TABLE = "data: {source: csv, path: table.csv, target: answer}\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Desk:
    """With `table.csv`, a finalized study of it, and one that only waits."""
    folder = tmp_path_factory.mktemp("explained")
    shutil.copy(empty_database, folder / "hpo.db")
    subject = table_subject()
    assert subject.table is not None and subject.targets is not None
    frame = subject.table.frame.rename(columns={HOSTILE: "c"})
    frame["answer"] = np.where(subject.targets.numpy() == 1, "yes", "no")
    frame.to_csv(folder / "table.csv", index=False)
    desk = Desk(folder)
    with pytest.MonkeyPatch.context() as patch, Database(desk.storage) as database:
        patch.setenv("HPO_CACHE", str(folder / "cache"))
        config = study_of(f"name: planted\n{HEAD}{TABLE}", folder)
        search(database, config)
        conclude(database, Studies(database).study("planted"), folder / "results" / "planted")
    desk.study(f"name: open\n{HEAD}{TABLE}")
    return desk


def test_a_study_is_explained_by_examples_that_its_model_has_not_seen_and_the_test_part_stays_sealed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CACHE", str(desk.folder / "cache"))
    opened = []
    really = parts.load_rows

    def watched(prepared: object, name: str) -> object:
        opened.append(name)
        return really(prepared, name)  # type: ignore[arg-type]

    monkeypatch.setattr(parts, "load_rows", watched)
    with Database(desk.storage) as database:
        known = recorded(Studies(database).study("planted"))
    assert known is not None
    config = study_of(f"name: planted\n{HEAD}{TABLE}", desk.folder)
    prepared = prepare(config)
    subject = study_subject(config, prepared, known.result)
    assert set(opened) == {"rows.safetensors"}
    assert len(subject.features) == prepared.sizes["validation"]
    assert f"on {prepared.sizes['train']} examples of train + validation" in subject.about[0]
    assert subject.table is not None
    np.testing.assert_allclose(subject.table.encode(subject.table.frame), subject.features, atol=1e-5)
    split = parts.held_out(config, prepared, known.result.seed)
    assert len(split.raw.targets) + len(split.fold.train) == prepared.sizes["train"] + len(subject.features)
    accuracy = float((subject.predicted == subject.targets).float().mean())
    assert accuracy > 0.7


@pytest.mark.browser
def test_the_command_finds_the_planted_columns_of_a_study_and_of_its_bundle(desk: Desk) -> None:
    of_study = desk.json("explain", "planted", "--out", "pages/study.html")
    assert of_study["importances"][0]["column"] == "c" and of_study["sanity"][0]["passed"]
    assert of_study["out"] == "pages/study.html" and (desk.folder / "pages" / "study.html").is_file()
    bundle = ("results/planted", "--data", "table.csv", "--out", "bundle.html", "--svg", "pictures")
    of_bundle = desk.json("explain", *bundle)
    assert {one["column"] for one in of_bundle["importances"][:2]} == {"c", "g"}
    assert of_bundle["examples"] == 150 and of_bundle["score"]["value"] > 0.8
    assert [path.name for path in desk.folder.glob("*.html")] == ["bundle.html"]
    pictures = {path.name for path in (desk.folder / "pictures").iterdir()}
    assert {Path(path).name for path in of_bundle["pictures"]} == pictures
    assert {"importance.svg", "by-class.svg", "dependence-0.svg", "example-0.svg", "sanity.svg"} <= pictures


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["planted", "--data", "table.csv"], 2, "--data: is for a bundle"),
        (["results/planted"], 2, "--data: is needed"),
        (["results/planted", "--data", "gone.csv"], 2, "gone.csv: cannot be read: No such file"),
        (["results/planted", "--data", "table.csv", "--targets", "y.npy"], 2, "--targets: is for an array"),
        (["planted", "--out", "results"], 2, "--out: results is a folder"),
        (["planted", "--png", "table.csv"], 2, "--png: table.csv is a file; must be a folder"),
        (["nobody"], 2, "nobody"),
    ],
)
def test_wrong_usage_is_said_in_one_line(desk: Desk, arguments: list[str], code: int, said: str) -> None:
    error = desk.hpo("explain", *arguments, code=code).stderr
    assert said in error and len(error.strip().splitlines()) == 1


def test_a_study_without_a_winner_says_what_to_do(desk: Desk) -> None:
    desk.hpo("submit", "study.yaml")
    assert "`hpo finalize open`" in desk.hpo("explain", "open", code=1).stderr
