"""Prepared data: what the search sees, what stays sealed, and what the cache promises."""

import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch

from hpo.config import StudyConfig
from hpo.data.prepare import final_training, fingerprint, fresh_folds, open_sealed, prepare
from hpo.data.prepared import PreparedData
from hpo.data.preprocessing import TRUSTED
from hpo.data.splits import seal, validation_splits
from hpo.errors import DataError, UserCodeError

DATASET = Path(__file__).parent.parent.parent / "shared" / "data" / "dataset.csv"

LOAD = """
import numpy as np, pandas as pd, torch
def load(kind="table", rows=60):
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    table = rng.normal(size=(rows, 4))
    images = rng.integers(0, 256, size=(rows, 1, 5, 6), dtype=np.uint8)
    frame = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.choice(["u", "v", None], rows)})
    frame["c"] = labels > 1
    bad = images.astype(float)
    bad[7, 0, 1, 2] = np.nan
    return {
        "table": (table, labels),
        "holes": (np.where(table > 2, np.nan, table), labels),
        "tensors": (torch.tensor(table).bfloat16().requires_grad_(), torch.tensor(labels)[:, None]),
        "images": (images, labels.astype(str)),
        "frame": (frame, pd.Series(labels).map({0: "x", 1: "y", 2: "z"})),
        "bad image": (bad, labels),
        "infinite": (np.where(table > 2, np.inf, table), labels),
        "short": (table, labels[:-1]),
        "one": table,
        "list": (table.tolist(), labels),
        "flat": (labels, labels),
        "one-hot": (table, np.eye(3)[labels]),
        "text": (table.astype(str), labels),
        "nothing": (table[:0], labels[:0]),
        "dates": (pd.DataFrame({"when": pd.date_range("2020", periods=rows)}), labels),
        "nan labels": (table, np.where(labels == 1, np.nan, labels)),
    }[kind]
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def study(folder: Path, data: dict[str, Any], **keys: Any) -> StudyConfig:
    content = {"name": "x", "data": data, "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}}} | keys
    return StudyConfig.model_validate(content).at(folder)


def csv_study(
    folder: Path, rows: pd.DataFrame, data: dict[str, Any] | None = None, **keys: Any
) -> StudyConfig:
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "table.csv", index=False)
    return study(folder, {"source": "csv", "path": "table.csv", "target": "y"} | (data or {}), **keys)


def user_study(folder: Path, kind: str, code: str = LOAD, **keys: Any) -> StudyConfig:
    (folder / "mine.py").write_text(code)
    return study(folder, {"source": "mine.py:load", "options": {"kind": kind}}, **keys)


def mixed(rows: int = 200) -> pd.DataFrame:
    """Numbers and categories, both with holes; `id` tells in which part a row went."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": rng.permutation(rows).astype(float),
            "a": rng.normal(5, 3, rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
            "y": rng.integers(0, 2, rows),
        }
    )
    table.loc[::17, "a"] = np.nan
    table.loc[::13, "colour"] = np.nan
    return table


def training_rows(config: StudyConfig, table: pd.DataFrame) -> pd.Series:
    targets = table["y"].to_numpy(np.int64)
    kept, _ = seal("table.csv", targets, ("0", "1"), config)
    (split,) = validation_splits(targets[kept], len(targets), config)
    return pd.Series(table.index.isin(kept[split.train]))


def same(one: PreparedData, two: PreparedData) -> bool:
    parts = [
        (left, right)
        for a, b in zip(one.folds, two.folds, strict=True)
        for left, right in ((a.train, b.train), (a.validation, b.validation))
    ]
    equal = all(torch.equal(a.features, b.features) and torch.equal(a.targets, b.targets) for a, b in parts)
    return equal and (one.classes, one.sizes, one.findings, one.input_shape, one.cache) == (
        two.classes,
        two.sizes,
        two.findings,
        two.input_shape,
        two.cache,
    )


# --- the parts


def test_training_part_is_standardized_by_its_own_statistics(tmp_path: Path) -> None:
    prepared = prepare(csv_study(tmp_path, mixed().drop(columns="colour")), tmp_path / "cache")
    train, validation = prepared.folds[0].train, prepared.folds[0].validation
    assert (train.features.dtype, train.targets.dtype) == (torch.float32, torch.int64)
    assert train.features.mean(0).abs().max() < 1e-6
    assert (train.features.std(0, correction=0) - 1).abs().max() < 1e-6
    assert validation.features.mean(0).abs().max() > 1e-3
    assert prepared.sizes == {"raw": 200, "train": 140, "validation": 30, "test": 30}


@pytest.mark.parametrize("missing", ["median", "mean", "most_frequent"])
def test_a_cell_of_the_validation_or_test_part_leaves_the_training_tensors_bit_identical(
    tmp_path: Path, missing: str
) -> None:
    table = mixed()
    config = csv_study(tmp_path, table, {"missing": missing})
    before = prepare(config, tmp_path / "cache")
    trained = training_rows(config, table)
    assert trained.sum() == 140

    def edited(rows: pd.Series) -> torch.Tensor:
        changed = table.copy()
        changed.loc[rows, ["id", "a"]] = 1e4, -1e4
        changed.loc[rows, "colour"] = np.where(table.loc[rows, "colour"] == "red", "blue", "red")
        config = csv_study(tmp_path, changed, {"missing": missing})
        return prepare(config, tmp_path / "cache").folds[0].train.features

    assert torch.equal(edited(~trained), before.folds[0].train.features)
    assert not torch.equal(edited(trained & (trained.cumsum() == 1)), before.folds[0].train.features)


def test_every_fold_has_statistics_of_its_own(tmp_path: Path) -> None:
    prepared = prepare(csv_study(tmp_path, mixed(), validation={"folds": 4}), tmp_path / "cache")
    assert len(prepared.folds) == 4
    for fold in prepared.folds:
        assert fold.train.features[:, :2].mean(0).abs().max() < 1e-6
        assert len(fold.train) + len(fold.validation) == 170


def test_categories_are_one_hot_and_the_width_is_the_same_in_every_part(tmp_path: Path) -> None:
    table = mixed()
    table.loc[3, "colour"] = "only once"
    config = csv_study(tmp_path, table, validation={"folds": 5})
    prepared = prepare(config, tmp_path / "cache")
    training = final_training(config, prepared)
    folds = (*prepared.folds, *fresh_folds(config, prepared, range(8)))
    parts = [training.train, open_sealed(prepared, training)]
    parts += [part for fold in folds for part in (fold.train, fold.validation)]
    assert {part.features.shape[1:] for part in parts} == {prepared.input_shape}
    for fold in folds:
        known = fold.train.features[:, 2:].sum(0) > 0
        assert fold.train.features[:, 2:].sum(1).eq(1).all()
        assert fold.validation.features[:, 2:][:, ~known].eq(0).all()  # unknown there: ignored
    assert prepared.input_shape == (6,)  # two numbers, three colours, and the one that some parts never see
    assert any(fold.validation.features[:, 2:].sum(1).eq(0).any() for fold in folds)


def test_a_column_that_is_empty_in_a_training_part_does_not_break_it(tmp_path: Path) -> None:
    table = mixed(60).assign(rare=np.nan, tag=None)
    table.loc[0, ["rare", "tag"]] = 1.0, "t"
    config = csv_study(tmp_path, table.astype({"tag": object}), validation={"folds": 5})
    prepared = prepare(config, tmp_path / "cache")
    training = final_training(config, prepared)
    folds = (*prepared.folds, *fresh_folds(config, prepared, range(4)))
    assert {fold.train.features.shape[1:] for fold in folds} == {prepared.input_shape}
    assert all(fold.train.features.isfinite().all() for fold in folds)
    assert open_sealed(prepared, training).features.shape[1:] == prepared.input_shape


def test_sealed_rows_are_the_ones_that_nothing_else_contains(tmp_path: Path) -> None:
    table = mixed().drop(columns="colour").assign(a=1.0)
    config = csv_study(tmp_path, table)
    prepared = prepare(config, tmp_path / "cache")
    training = final_training(config, prepared)
    scaler = training.preprocessing.named_transformers_["numeric"][-1]

    def ids(features: torch.Tensor) -> set[int]:
        return set((features[:, 0].double() * scaler.scale_[0] + scaler.mean_[0]).round().int().tolist())

    kept, sealed = ids(training.train.features), ids(open_sealed(prepared, training).features)
    assert (len(kept), len(sealed)) == (170, 30)
    assert kept | sealed == set(range(200))


def test_fresh_folds_have_the_first_folds_sizes_and_depend_on_their_seed_alone(tmp_path: Path) -> None:
    config = csv_study(tmp_path, mixed(), validation={"folds": 3})
    prepared = prepare(config, tmp_path / "cache")
    one, two = fresh_folds(config, prepared, [5, 6])
    (again,) = fresh_folds(config, prepared, [6])
    assert len(one.validation) == len(two.validation) == prepared.sizes["validation"]
    assert len(one.train) == prepared.sizes["train"]
    assert torch.equal(two.train.features, again.train.features)
    assert not torch.equal(one.train.targets, two.train.targets)


def test_regression_targets_keep_their_unit_beside_the_training_parts_statistics(tmp_path: Path) -> None:
    config = study(tmp_path, {"source": "sklearn", "name": "diabetes"}, metric="rmse")
    prepared = prepare(config, tmp_path / "cache")
    fold, training = prepared.folds[0], final_training(config, prepared)
    assert (prepared.task, prepared.classes, prepared.outputs) == ("regression", (), 1)
    assert fold.train.targets.dtype == torch.float32
    assert fold.target_mean == pytest.approx(fold.train.targets.mean().item(), rel=1e-5)
    assert fold.target_scale == pytest.approx(fold.train.targets.std(correction=0).item(), rel=1e-5)
    assert training.target_mean != fold.target_mean
    assert open_sealed(prepared, training).targets.max() > 100


@pytest.mark.parametrize(
    ("name", "classes", "width"),
    [
        ("breast_cancer", ("benign", "malignant"), 30),
        ("wine", ("class_0", "class_1", "class_2"), 13),
        ("digits", tuple("0123456789"), 64),
        ("iris", ("setosa", "versicolor", "virginica"), 4),
    ],
)
def test_data_sets_of_scikit_learn(tmp_path: Path, name: str, classes: tuple[str, ...], width: int) -> None:
    prepared = prepare(study(tmp_path, {"source": "sklearn", "name": name}), tmp_path)
    assert (prepared.classes, prepared.input_shape) == (classes, (width,))
    assert len(prepared.feature_names) == width


def test_a_class_that_a_part_has_no_row_of_is_reported(tmp_path: Path) -> None:
    labels = ["rare"] * 4 + ["a"] * 98 + ["b"] * 98
    prepared = prepare(csv_study(tmp_path, mixed().assign(y=labels)), tmp_path / "cache")
    found = [finding.text for finding in prepared.findings if finding.kind == "rare"]
    shares = [part.targets.eq(2).sum() for part in (prepared.folds[0].train, prepared.folds[0].validation)]
    assert len(found) == 2 - int(shares[1] > 0) - int(4 - sum(shares) > 0)


def test_dataset_csv_is_split_as_in_the_course(tmp_path: Path) -> None:
    if not DATASET.is_file():
        pytest.skip(f"{DATASET} is not there")
    data = {"source": "csv", "path": DATASET.name, "target": "target", "missing": "drop"}
    prepared = prepare(study(DATASET.parent, data), tmp_path)
    assert prepared.sizes == {"raw": 766, "train": 532, "validation": 114, "test": 114}
    assert prepared.feature_names == ("f1", "f2", "f3", "f4", "f5", "f6", "f7")


# --- preprocessing


def test_skops_loads_the_preprocessing_which_takes_raw_columns_in_any_order(tmp_path: Path) -> None:
    config = csv_study(tmp_path, mixed())
    prepared = prepare(config, tmp_path / "cache")
    training = final_training(config, prepared)
    dumped = skops.io.dumps(training.preprocessing)
    assert set(skops.io.get_untrusted_types(data=dumped)) <= set(TRUSTED)
    loaded = skops.io.loads(dumped, trusted=TRUSTED)
    raw = pd.read_csv(tmp_path / "table.csv")[["y", "colour", "a", "id"]]
    raw.loc[0, "colour"] = "never seen"
    features = loaded.transform(raw)
    assert features.shape == (200, *prepared.input_shape)
    assert features[0, 2:].sum() == 0
    np.testing.assert_array_equal(features, training.preprocessing.transform(raw))


@pytest.mark.parametrize("kind", ["table", "images"])
def test_skops_loads_the_preprocessing_of_arrays(tmp_path: Path, kind: str) -> None:
    config = user_study(tmp_path, kind)
    training = final_training(config, prepare(config, tmp_path / "cache"))
    loaded = skops.io.loads(skops.io.dumps(training.preprocessing), trusted=TRUSTED)
    raw = np.random.default_rng(1).normal(size=(3, training.train.features[0].numel()))
    np.testing.assert_array_equal(loaded.transform(raw), training.preprocessing.transform(raw))


# --- the user's own arrays


def test_arrays_tensors_and_frames_are_taken(tmp_path: Path) -> None:
    table, holes, tensors, frame = (
        prepare(user_study(tmp_path, kind), tmp_path / "cache")
        for kind in ("table", "holes", "tensors", "frame")
    )
    assert table.input_shape == holes.input_shape == tensors.input_shape == (4,)
    assert (table.classes, table.feature_names) == (("0", "1", "2"), ())
    assert (frame.classes, frame.feature_names, frame.input_shape) == (("x", "y", "z"), ("a", "b", "c"), (4,))
    assert holes.folds[0].train.features.isfinite().all()
    torch.testing.assert_close(
        table.folds[0].train.features, tensors.folds[0].train.features, atol=0.05, rtol=0
    )


def test_images_keep_their_shape_and_are_scaled_by_one_mean_and_deviation(tmp_path: Path) -> None:
    config = user_study(tmp_path, "images")
    prepared = prepare(config, tmp_path / "cache")
    train = prepared.folds[0].train.features
    assert prepared.input_shape == (1, 5, 6)
    assert train.mean().abs() < 1e-6
    assert train.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert train.mean(0).abs().max() > 0.05  # not each pixel by itself
    training = final_training(config, prepared)
    assert open_sealed(prepared, training).features.shape == (9, 1, 5, 6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bad image", "1 of its features are nan or infinite, the first at [7, 0, 1, 2]"),
        ("infinite", "features are infinite or beyond float32, the first in row"),
        ("short", "returned 60 rows of features, but 59 targets"),
        ("one", "returned a ndarray; load must return (features, targets)"),
        ("list", "its features are a list; load must return"),
        ("flat", "its features have the shape (60,); need [N, F]"),
        ("one-hot", "its targets have the shape (60, 3); need one class or number a row"),
        ("text", "categories belong in a pandas DataFrame"),
        ("nothing", "returned no rows"),
        ("dates", "column 'when' holds datetime64"),
        ("nan labels", "20 labels are missing, on rows 2, 5, 8"),
        ("no such kind", "raised KeyError: 'no such kind'"),
    ],
)
def test_wrong_returns_of_a_function_are_refused_by_name(tmp_path: Path, kind: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        prepare(user_study(tmp_path, kind), tmp_path / "cache")
    assert str(caught.value).startswith("mine.py:load: ")
    assert expected in str(caught.value)


def test_a_function_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match="has no function 'load'"):
        prepare(user_study(tmp_path, "x", code="def laod(): pass"), tmp_path)


# --- files that are not there


def test_missing_files_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tabel.csv").write_text("a,y\n1,0\n")
    data = {"source": "csv", "path": "table.csv", "target": "y"}
    with pytest.raises(
        DataError, match=r"table\.csv: cannot be read .*No such file.*did you mean 'tabel\.csv'"
    ):
        prepare(study(tmp_path, data), tmp_path / "cache")
    with pytest.raises(DataError, match="is a folder"):
        prepare(study(tmp_path, data | {"path": "."}), tmp_path / "cache")


# --- the cache


def test_the_fingerprint_follows_content_and_shaping_configuration_and_nothing_else(tmp_path: Path) -> None:
    table = mixed()
    base = fingerprint(csv_study(tmp_path / "one", table))
    elsewhere = csv_study(tmp_path / "two", table, trials=7, architecture="mlp", training={"epochs": 3})
    shutil.move(tmp_path / "two" / "table.csv", tmp_path / "two" / "moved.csv")
    moved = elsewhere.model_copy(update={"data": elsewhere.data.model_copy(update={"path": "moved.csv"})})
    assert fingerprint(moved.at(tmp_path / "two")) == base
    others = [
        csv_study(tmp_path / "3", table.assign(a=table["a"] + 1)),
        csv_study(tmp_path / "4", table, training={"seed": 1}),
        csv_study(tmp_path / "5", table, validation={"folds": 5}),
        csv_study(tmp_path / "6", table, {"missing": "mean"}),
        csv_study(tmp_path / "7", table, {"test_fraction": 0.2}),
        csv_study(tmp_path / "8", table, metric="rmse"),
    ]
    assert len({base, *map(fingerprint, others)}) == 7


def test_the_fingerprint_of_a_function_is_that_of_its_arrays(tmp_path: Path) -> None:
    one = fingerprint(user_study(tmp_path, "table"))
    assert fingerprint(user_study(tmp_path, "table", code=f"# a comment\n{LOAD}")) == one
    assert fingerprint(user_study(tmp_path, "table", code=LOAD.replace("rng(0)", "rng(1)"))) != one
    assert fingerprint(user_study(tmp_path, "frame")) != one


def test_a_second_preparation_is_loaded_without_parsing_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = csv_study(tmp_path, mixed(), validation={"folds": 3})
    first = prepare(config, tmp_path / "cache")
    monkeypatch.setattr("hpo.data.source.parse_csv", None)
    assert same(first, prepare(config, tmp_path / "cache"))
    assert first.cache == tmp_path / "cache" / first.fingerprint


def test_only_open_sealed_opens_the_sealed_file(tmp_path: Path) -> None:
    config = csv_study(tmp_path, mixed())
    prepared = prepare(config, tmp_path / "cache")
    sealed = prepared.cache / "test.safetensors"
    opened: list[str] = []
    watching = [True]

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(arguments[0]) == str(sealed):
            opened.append(event)

    sys.addaudithook(audit)
    # safetensors opens files in Rust, out of the hook's sight: without the file, it would fail.
    away = tmp_path / "away"
    prepare(config, tmp_path / "cache")
    sealed.rename(away)
    training = final_training(config, prepared)
    fresh_folds(config, prepared, [1])
    assert opened == []
    away.rename(sealed)
    open_sealed(prepared, training)
    watching.clear()
    assert opened


@pytest.mark.parametrize(
    "name", ["manifest.json", "parts.safetensors", "rows.safetensors", "test.safetensors"]
)
def test_a_truncated_cache_is_noticed_and_prepared_again(tmp_path: Path, name: str) -> None:
    config = csv_study(tmp_path, mixed())
    first = prepare(config, tmp_path / "cache")
    features = first.folds[0].train.features.clone()
    content = (first.cache / name).read_bytes()
    (first.cache / name).unlink()  # the first preparation's tensors may lie in it
    (first.cache / name).write_bytes(content[: len(content) // 2])
    again = prepare(config, tmp_path / "cache")
    assert torch.equal(again.folds[0].train.features, features)
    assert len((again.cache / name).read_bytes()) == len(content)
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [first.fingerprint]


@pytest.mark.parametrize("name", ["rows.safetensors", "test.safetensors"])
def test_a_changed_byte_in_raw_rows_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    config = csv_study(tmp_path, mixed())
    prepared = prepare(config, tmp_path / "cache")
    training = final_training(config, prepared)
    content = bytearray((prepared.cache / name).read_bytes())
    content[-1] ^= 1
    (prepared.cache / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: is damaged .*delete .* and prepare the data again"):
        final_training(config, prepared) if name.startswith("rows") else open_sealed(prepared, training)


def test_a_changed_byte_in_the_parts_is_noticed_and_prepared_again(tmp_path: Path) -> None:
    config = csv_study(tmp_path, mixed())
    path = prepare(config, tmp_path / "cache").cache / "parts.safetensors"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepare(config, tmp_path / "cache")
    assert path.read_bytes() == content


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be cached.*HPO_CACHE"):
        prepare(csv_study(tmp_path, mixed()), tmp_path / "file")


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = csv_study(tmp_path, mixed())
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "own"))
    assert prepare(config).cache.parent == tmp_path / "own"
    monkeypatch.delenv("HPO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert prepare(config).cache.parent == tmp_path / "xdg" / "hpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare(config).cache.parent == tmp_path / "home" / ".cache" / "hpo"


def _race(config: StudyConfig, folder: Path, cache: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    prepared = prepare(config.at(folder), cache)
    results.put(prepared.folds[0].train.features.sum().item())


def test_racing_processes_agree_and_leave_one_copy(tmp_path: Path) -> None:
    config = csv_study(tmp_path, mixed(2000))
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        barrier, results = context.Barrier(4), context.SimpleQueue()
        racers = [
            context.Process(target=_race, args=(config, tmp_path, tmp_path / "cache", barrier, results))
            for _ in range(4)
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)
        assert [racer.exitcode for racer in racers] == [0] * 4
        assert len({results.get() for _ in racers}) == 1
        assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [fingerprint(config)]
