"""What `hpo describe` says of data: planted dirt is found, and clean data are not accused."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dirty_data as dirt
import numpy as np
import pandas as pd
import pytest
from commands import Desk
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.preprocessing import StandardScaler

from hpo.config import StudyConfig
from hpo.data.cache import MANIFEST
from hpo.data.prepare import prepare
from hpo.data.unsealed import UnsealedTable, unsealed
from hpo.results.describe import describe
from hpo.results.describe_columns import outliers, suspicious_zeros
from hpo.results.describe_labels import suspect_labels
from hpo.results.describe_near import near_duplicates
from hpo.results.describe_page import render_description
from hpo.results.describe_text import matters

NOTHING = "Nothing stands out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dirt")


@pytest.fixture
def table(folder: Path) -> StudyConfig:
    return dirt.table(folder)


def seen(config: StudyConfig, lines: tuple[int, ...]) -> set[int]:
    """Those of the lines that are not sealed."""
    rows = unsealed(config, prepare(config))
    assert isinstance(rows, UnsealedTable)
    return set(lines) & set(rows.places.tolist())


@pytest.mark.slow
def test_planted_dirt_of_a_table_is_found_and_named(table: StudyConfig) -> None:
    facts = describe(table).facts
    found = facts.table
    assert found is not None
    columns = {column.name: column for column in found.columns}
    assert [(cell.place, cell.column, cell.value) for cell in found.unparsable] == [(40, "dose", "12O")]
    assert columns[dirt.HOSTILE].missing == 1
    assert columns["dose"].suspicious_zeros and columns["dose"].zeros == len(seen(table, dirt.ZEROS))
    assert [cell.place for cell in columns["tells"].outlier_cells] == [dirt.OUTLIER]
    assert sum(column.outliers for column in found.columns) == 1
    assert [name for name, column in columns.items() if column.kind in {"constant", "empty"}] == [
        "always",
        "never",
    ]
    equal = {place for group in found.duplicates.groups for place in group}
    assert seen(table, dirt.TWINS) <= equal <= set(dirt.TWINS) | set(dirt.CONTRADICTING)
    assert {place for place, _ in found.duplicates.contradictions[0]} == seen(table, dirt.CONTRADICTING)
    suspects = {suspect.place for suspect in found.suspects.examples}
    assert seen(table, dirt.MISLABELLED) <= suspects
    assert suspects <= {*dirt.MISLABELLED, *dirt.CONTRADICTING, dirt.OUTLIER}
    assert f"{len(suspects)} targets look wrong to two models that had not seen them." in matters(facts)


def test_a_planted_target_far_off_is_found(folder: Path) -> None:
    facts = describe(dirt.table(folder, "regression")).facts
    assert facts.table is not None and facts.classes == ()
    assert [suspect.place for suspect in facts.table.suspects.examples] == [dirt.FAR_TARGET]


@pytest.mark.slow
def test_planted_copies_and_mislabels_of_images_are_found(tmp_path: Path) -> None:
    description = describe(dirt.images(tmp_path))
    found = description.facts.images
    assert found is not None and description.images is not None
    assert found.near.count >= 2 and found.near.contradicting == 0
    assert len(found.blank) == 1
    pixels, _ = dirt.pictures()
    suspects = [description.images.pixels[suspect.place - 1, 0] for suspect in found.suspects.examples]
    unsealed_ones = {image.tobytes() for image in description.images.pixels[:, 0]}
    planted = {image.tobytes() for image in pixels[dirt.MISLABELLED_IMAGES]} & unsealed_ones
    named = {image.tobytes() for image in suspects}
    assert len(planted) >= 8 and len(planted & named) >= len(planted) - 1
    assert named <= planted | {pixels[dirt.BLANK].tobytes()}
    apart = {description.images.pixels[number - 1, 0].tobytes() for number in found.apart}
    assert apart <= planted  # bars among rings are too bright
    assert f"{len(named)} labels look wrong to two models that had not seen their images." in matters(
        description.facts
    )


@pytest.mark.slow
@pytest.mark.parametrize("data", ["breast_cancer", "wine", "diabetes"])
def test_clean_data_are_not_accused(data: str) -> None:
    task = "regression" if data == "diabetes" else "classification"
    facts = describe(dirt.study(Path(), {"source": "sklearn", "name": data}, task)).facts
    assert matters(facts) == [
        "Nothing stands out: no cell, row or label looks wrong by the rules that this page states."
    ]


@pytest.mark.slow
def test_the_courses_table_is_described_as_it_is(shared_data: Path) -> None:
    data = {"source": "csv", "path": f"{shared_data}/dataset.csv", "target": "target", "missing": "drop"}
    first, *others = matters(describe(dirt.study(Path(), data)).facts)
    assert first == (
        "6 cells do not parse as numbers and count as missing (lines 762, 763, 764, 765, 766, 767)."
    )
    assert any(
        sentence.startswith("5 columns have zeros that look like missing values: f2 (") for sentence in others
    )


@pytest.mark.slow
def test_the_sealed_file_is_never_opened(table: StudyConfig) -> None:
    prepared = prepare(table)
    sealed = prepared.cache / "test.safetensors"
    sealed.write_bytes(bytes(sealed.stat().st_size))  # who read it would find it damaged
    facts = describe(table).facts
    assert facts.parts[2].name == "test" and sum(facts.parts[2].counts) == facts.parts[2].rows == 20


@pytest.mark.slow
def test_a_part_that_was_sealed_before_classes_were_counted_says_so(table: StudyConfig) -> None:
    manifest = prepare(table).cache / MANIFEST
    content = json.loads(manifest.read_text())
    del content["test_counts"]
    manifest.write_text(json.dumps(content))
    description = describe(table)
    assert description.facts.parts[2].counts == () and description.facts.parts[2].rows == 20
    assert "was sealed before hpo recorded its classes" in render_description(description)


@pytest.mark.slow
def test_more_rows_than_the_limit_are_sampled_and_that_is_said(table: StudyConfig) -> None:
    facts = describe(table, most_rows=200).facts
    assert facts.table is not None and facts.table.rows == facts.sampled == 200
    assert "All of this is of a sample of 200: there are more than that." in matters(facts)


def test_the_page_is_one_small_file_that_loads_nothing(table: StudyConfig) -> None:
    page = render_description(describe(table))
    assert page.count("* plotly.js v") == 1 and len(page) < 6e6
    assert "default-src 'none'" in page and dirt.HOSTILE not in page
    assert not re.search(r'(src|href)="(?!#|data:image/)', page.partition("<script")[0])


def test_heavy_tails_and_second_groups_are_no_outliers_and_counts_no_missing_values() -> None:
    random = np.random.default_rng(0)
    for clean in (
        random.normal(size=5000),
        random.lognormal(size=5000),
        random.exponential(size=5000),
        np.concatenate([random.normal(size=600), random.normal(100, 1, 400)]),
    ):
        assert len(outliers(clean)) == 0
    assert list(outliers(np.append(random.normal(size=500), -40))) == [500]
    assert not suspicious_zeros(random.poisson(3, 1000).astype(float))
    assert suspicious_zeros(np.concatenate([np.zeros(5), random.normal(120, 20, 500).round()]))


def test_many_absurd_values_are_told_in_one_sentence_and_heavy_tails_are_not(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(50, 5, 1000)
    values[100:130] = random.choice([-999.0, 99999.0], 30)
    assert set(outliers(values)) == set(range(100, 130))
    assert len(outliers(random.standard_cauchy(1000))) <= 5
    rows = "".join(f"{value:.3f},{number % 2}\n" for number, value in enumerate(values))
    (tmp_path / "data.csv").write_text("age,target\n" + rows)
    data = {"source": "csv", "path": "data.csv", "target": "target", "test_fraction": 0.05}
    facts = describe(dirt.study(tmp_path, data)).facts
    assert facts.table is not None
    count = facts.table.columns[0].outliers
    assert 25 <= count <= 30
    farthest = facts.table.columns[0].outlier_cells[0].place
    assert [found for found in matters(facts) if "outlier" in found] == [
        f"{count} cells are outliers, such as: age 99999 on line {farthest}."
    ]


def standardized(data: Callable[..., Any]) -> tuple[Any, Any, Any, tuple[str, ...]]:
    features, codes = data(return_X_y=True)
    classes = tuple(map(str, range(codes.max() + 1)))
    return StandardScaler().fit_transform(features), codes, np.arange(len(codes)), classes


@pytest.mark.parametrize("data", [load_breast_cancer, load_digits, load_iris, load_wine])
def test_sound_labels_are_not_accused(data: Callable[..., Any]) -> None:
    assert not suspect_labels(*standardized(data)).surprising


@pytest.mark.slow
@pytest.mark.parametrize("data", [load_breast_cancer, load_digits, load_wine])
def test_planted_mislabels_are_found_and_few_others(data: Callable[..., Any]) -> None:
    features, codes, places, classes = standardized(data)
    planted = np.random.default_rng(0).choice(len(codes), len(codes) // 20, replace=False)
    wrong = codes.copy()
    wrong[planted] = (codes[planted] + 1) % len(classes)
    found = suspect_labels(features, wrong, places, classes)
    named = {suspect.place for suspect in found.examples}
    assert found.surprising and len(named & set(planted)) >= 0.9 * len(named)
    assert found.count >= 0.6 * len(planted)


@pytest.mark.slow
def test_labels_of_groups_that_overlap_are_not_accused() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        codes = random.integers(0, 2, 400)
        features = random.normal(size=(400, 3)) + 2.2 * codes[:, None] * [1, 0, 0]
        assert not suspect_labels(features, codes, np.arange(400), ("a", "b")).surprising


def test_copies_are_found_in_other_brightness_but_other_images_are_not() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 1, 8, 8)).repeat(3, 2).repeat(3, 3).astype(np.uint8)
    pixels[30] = pixels[3] // 2
    validation = np.arange(40) >= 30
    names = np.array(["a"] * 30 + ["b"] * 10, object)
    found = near_duplicates(pixels, validation, names, np.arange(1, 41))
    assert [(pair.train, pair.validation) for pair in found.pairs] == [(4, 31)]
    assert found.contradicting == 1


@pytest.mark.slow
def test_100_000_rows_are_described_in_less_than_30_seconds_of_work(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(100_000, 6)).round(3)).add_prefix("column ")
    frame["target"] = random.choice(["a", "b", "c"], 100_000)
    frame.to_csv(tmp_path / "data.csv", index=False)
    study = dirt.study(tmp_path, {"source": "csv", "path": "data.csv", "target": "target"})
    started = time.process_time()
    page = render_description(describe(study))
    assert time.process_time() - started < 30 and len(page) < 6e6


@pytest.mark.browser
def test_the_command_writes_each_figure_as_a_picture(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    study = desk.study(
        "name: iris\ndata: {source: sklearn, name: iris}\nsearch: {dropout: {low: 0, high: 0.5}}"
    )
    told = desk.json("describe", study, "--svg", "pictures")
    names = {Path(path).name for path in told["pictures"]}
    assert {"balance.svg", "column-0.svg", "pairs.svg", "pearson.svg", "pca.svg"} <= names
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == names
    assert "Class balance" in (tmp_path / "pictures" / "balance.svg").read_text()


@pytest.mark.slow
def test_the_command_says_what_matters_and_writes_the_page(tmp_path: Path, folder: Path) -> None:
    desk = Desk(tmp_path)
    study = desk.study(
        "name: wine\ndata: {source: sklearn, name: wine}\nsearch: {dropout: {low: 0, high: 0.5}}"
    )
    told = desk.json("describe", study, "--out", "new/data.html")
    assert told["matters"][0].startswith(NOTHING) and told["parts"][2]["rows"] == 27
    assert (tmp_path / told["out"]).read_text().startswith("<!doctype html>")
    assert f"--out: {tmp_path} is a folder" in desk.hpo("describe", study, "--out", tmp_path, code=2).stderr
