"""Preparing data: arrays of the user's own, files that are not there, and what the cache promises."""

import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from data_example import LOAD, csv_study, mixed, study, user_study

from hpo.config import StudyConfig
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepare import fingerprint, prepare
from hpo.data.prepared import PreparedData
from hpo.errors import DataError, UserCodeError


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


@pytest.mark.slow
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
