"""Which rows train, validate and stay sealed."""

from typing import Any

import numpy as np
import pytest

from hpo.config import StudyConfig
from hpo.data.splits import Split, Targets, fresh_split, seal, validation_splits
from hpo.errors import DataError


def study(
    test_fraction: float = 0.15, validation: dict[str, Any] | None = None, seed: int = 0, **keys: Any
) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "splits",
            "data": {"source": "csv", "path": "x.csv", "target": "y", "test_fraction": test_fraction},
            "validation": validation or {"fraction": 0.15},
            "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}},
            "training": {"seed": seed},
            **keys,
        }
    )


def labels(*counts: int) -> Targets:
    targets = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(targets).astype(np.int64)


def split(targets: Targets, config: StudyConfig) -> tuple[Any, Any, tuple[Split, ...]]:
    classes = tuple(map(str, np.unique(targets))) if config.task == "classification" else ()
    kept, sealed = seal("x.csv", targets, classes, config)
    return kept, sealed, validation_splits(targets[kept], len(targets), config)


def refusal(targets: Targets, config: StudyConfig) -> str:
    with pytest.raises(DataError) as caught:
        split(targets, config)
    return str(caught.value)


def test_both_fractions_are_of_all_rows() -> None:
    kept, sealed, (only,) = split(labels(496, 264), study())
    assert (len(only.train), len(only.validation), len(sealed)) == (532, 114, 114)
    assert len(kept) == 646


@pytest.mark.parametrize("validation", [{"fraction": 0.2}, {"folds": 4}])
@pytest.mark.parametrize("metric", ["accuracy", "rmse"])
def test_every_row_is_in_exactly_one_part(validation: dict[str, Any], metric: str) -> None:
    targets = labels(60, 41)
    kept, sealed, parts = split(targets, study(validation=validation, metric=metric))
    assert sorted([*kept, *sealed]) == list(range(101))
    for part in parts:
        assert sorted([*part.train, *part.validation]) == list(range(len(kept)))


def test_folds_validate_every_kept_row_once() -> None:
    kept, _, parts = split(labels(60, 40), study(validation={"folds": 5}))
    assert sorted(np.concatenate([part.validation for part in parts])) == list(range(len(kept)))


@pytest.mark.parametrize("validation", [{"fraction": 0.2}, {"folds": 4}])
def test_classes_keep_their_shares_in_every_part(validation: dict[str, Any]) -> None:
    targets = labels(300, 100)
    kept, sealed, parts = split(targets, study(0.2, validation))
    shown = [targets[sealed], *(targets[kept][part.validation] for part in parts)]
    shown += [targets[kept][part.train] for part in parts]
    assert [part.mean() for part in shown] == pytest.approx([0.25] * len(shown), abs=0.01)


@pytest.mark.parametrize("validation", [{"fraction": 0.2}, {"folds": 4}])
def test_the_seed_decides_alone(validation: dict[str, Any]) -> None:
    targets = labels(50, 50)
    first, again, other = (split(targets, study(validation=validation, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first[1], again[1])
    assert np.array_equal(first[2][0].validation, again[2][0].validation)
    assert not np.array_equal(first[1], other[1])
    assert not np.array_equal(first[2][0].validation, other[2][0].validation)


def test_fresh_splits_have_the_asked_size_and_differ_by_seed() -> None:
    targets = labels(60, 40)
    one, two = (fresh_split(targets, 20, seed, stratified=True) for seed in (1, 2))
    assert len(one.validation) == len(two.validation) == 20
    assert targets[one.validation].sum() == 8
    assert not np.array_equal(one.validation, two.validation)


def test_a_class_with_too_few_rows_is_named_with_its_count_and_what_is_needed() -> None:
    message = refusal(labels(50, 3, 40), study(validation={"folds": 5}))
    assert message == "x.csv: too few rows of a class to split: '1' has 3, but at least 7 are needed"


def test_many_tiny_classes_suggest_regression() -> None:
    assert "`task: regression`" in refusal(labels(*[2] * 60), study(0.4, {"fraction": 0.4}))


@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.parametrize("test_fraction", [0.1, 0.15, 0.5])
@pytest.mark.parametrize("count", [11, 13, 17, 29])
def test_what_is_not_refused_can_be_split_without_warning(
    folds: int, test_fraction: float, count: int
) -> None:
    targets, config = labels(97, count, 61), study(test_fraction, {"folds": folds})
    try:
        kept, _, parts = split(targets, config)
    except DataError:
        assert count < 1 + folds / (1 - test_fraction) + 1
    else:
        assert all(set(targets[kept][part.validation]) == {0, 1, 2} for part in parts)


@pytest.mark.parametrize(
    ("targets", "config", "expected"),
    [
        (labels(5, 5), study(0.05), "data.test_fraction 0.05 of 10 rows leaves 0 for the test part"),
        (labels(50, 50), study(0.5, {"fraction": 0.6}), "leaves 0 for the training part"),
        (labels(10, 10, 10, 10), study(0.05), "leaves 2 for the test part; needed are at least 4, one"),
        (
            labels(6, 6),
            study(0.5, {"folds": 5}, metric="rmse"),
            "validation.folds 5 of 12 rows leaves 1 for the validation",
        ),
        (labels(3, 3), study(metric="rmse"), "leaves 1 for the test part; needed are at least 2"),
    ],
)
def test_parts_that_are_too_small_are_refused(targets: Targets, config: StudyConfig, expected: str) -> None:
    assert expected in refusal(targets, config)
