"""The parts of prepared data: what the search sees, what stays sealed, how raw rows become features."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from data_example import csv_study, mixed, study, user_study

from hpo.config import StudyConfig
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepare import prepare
from hpo.data.preprocessing import TRUSTED
from hpo.data.splits import seal, validation_splits


def training_rows(config: StudyConfig, table: pd.DataFrame) -> pd.Series:
    targets = table["y"].to_numpy(np.int64)
    kept, _ = seal("table.csv", targets, ("0", "1"), config)
    (split,) = validation_splits(targets[kept], len(targets), config)
    return pd.Series(table.index.isin(kept[split.train]))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_dataset_csv_is_split_as_in_the_course(tmp_path: Path, shared_data: Path) -> None:
    data = {"source": "csv", "path": "dataset.csv", "target": "target", "missing": "drop"}
    prepared = prepare(study(shared_data, data), tmp_path)
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
