"""Images from files to parts: classes, the test part, statistics, the cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from image_files import drawn, pixels, study, write_idx, write_part

from hpo.data.normalization import CHUNK, Moments
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepare import fingerprint, prepare
from hpo.data.prepared import PreparedData
from hpo.data.splits import stratified_subset
from hpo.errors import DataError

IDX: dict[str, Any] = {"source": "idx", "path": "."}


def prepared_of(folder: Path, data: dict[str, Any] = IDX, **keys: Any) -> PreparedData:
    return prepare(study(folder, data, **keys), folder / "cache")


# --- a subset


def test_a_subset_has_of_each_class_its_share_and_leaves_the_test_part_whole(tmp_path: Path) -> None:
    write_idx(tmp_path, each=40)
    prepared = prepared_of(tmp_path, IDX | {"examples": 31}, validation={"fraction": 0.3})
    assert prepared.sizes == {"raw": 159, "train": 22, "validation": 9, "test": 39}
    fold = prepared.folds[0]
    targets = torch.cat([fold.train.targets, fold.validation.targets])
    assert sorted(targets.bincount().tolist()) == [10, 10, 11]
    assert [finding.text for finding in prepared.findings] == ["31 of 120 images were drawn (data.examples)"]
    assert (fold.normalization, len(fold.train.features)) == (Moments(pixels(fold.train)).of(), 31)
    sealed = open_sealed(prepared, final_training(study(tmp_path, IDX | {"examples": 31}), prepared))
    whole = prepared_of(tmp_path)
    assert torch.equal(
        sealed.targets, open_sealed(whole, final_training(study(tmp_path, IDX), whole)).targets
    )


def test_without_a_test_part_the_sealed_share_is_of_the_subset(tmp_path: Path) -> None:
    write_idx(tmp_path, each=40, test=False)
    prepared = prepared_of(
        tmp_path, IDX | {"examples": 60, "test_fraction": 0.2}, validation={"fraction": 0.1}
    )
    assert prepared.sizes == {"raw": 120, "train": 42, "validation": 6, "test": 12}


def test_a_subset_is_drawn_by_the_seed_and_a_larger_one_has_the_smaller(tmp_path: Path) -> None:
    targets = np.repeat(np.arange(3), [50, 30, 20])
    subsets = [set(stratified_subset(targets, count, 0).tolist()) for count in (10, 40, 100)]
    assert [len(subset) for subset in subsets] == [10, 40, 100]
    assert subsets[0] < subsets[1] < subsets[2]
    assert np.bincount(targets[sorted(subsets[0])]).tolist() == [5, 3, 2]
    assert set(stratified_subset(targets, 10, 1).tolist()) != subsets[0]
    write_idx(tmp_path)
    prints = [fingerprint(study(tmp_path, IDX | {"examples": count})) for count in (None, 20, 21, 20)]
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("examples", "text"),
    [
        (31, "data.examples 31 is more than the 30 images that there are to choose from"),
        (4, "too few rows of a class to split: '1' has 1, '2' has 1, but at least 2 are needed"),
    ],
)
def test_a_subset_that_cannot_be_is_refused(tmp_path: Path, examples: int, text: str) -> None:
    write_idx(tmp_path)
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, IDX | {"examples": examples})
    assert text in str(caught.value)


# --- classes


def test_a_range_of_classes_is_kept_and_numbered_from_0(tmp_path: Path) -> None:
    write_idx(tmp_path, classes=6)
    prepared = prepared_of(tmp_path, IDX | {"classes": [2, 5]})
    assert prepared.classes == ("2", "3", "4")
    assert prepared.sizes == {"raw": 78, "train": 26, "validation": 4, "test": 9}
    assert prepared.folds[0].train.targets.unique().tolist() == [0, 1, 2]
    text = "39 of 78 images are of other classes than 2 to 4, and were left out"
    assert [finding.text for finding in prepared.findings] == [text]


@pytest.mark.parametrize(
    ("prefix", "data", "names"),
    [
        ("", {}, "345"),
        ("", {"class_names": "abcdefgh"}, "def"),
        ("", {"class_names": ["a", "b", "c", "cat", "dog", "bus"]}, ["cat", "dog", "bus"]),
        ("emnist36-", {}, "345"),
        ("emnist-letters-", {}, "cde"),
        ("emnist36-", {"class_names": "------XYZ", "classes": [3, 6]}, None),
    ],
)
def test_classes_are_called_as_the_study_file_or_emnist_calls_them(
    tmp_path: Path, prefix: str, data: dict[str, Any], names: Any
) -> None:
    write_idx(tmp_path, prefix, first=3)
    if names is None:
        with pytest.raises(DataError, match="more than one class is called '-'"):
            prepared_of(tmp_path, IDX | data)
    else:
        assert prepared_of(tmp_path, IDX | data).classes == tuple(names)


def test_emnist_balanced_has_characters(tmp_path: Path) -> None:
    write_idx(tmp_path, "emnist36-", each=8, classes=36)
    assert "".join(prepared_of(tmp_path).classes) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.mark.parametrize(
    ("part", "data", "expected"),
    [
        (
            "train",
            {},
            "train-images-idx3-ubyte: has no image of class '1'; each of the 3 classes from '0' to",
        ),
        ("test", {}, "test-images-idx3-ubyte: has no image of class '1'; each of the 3 classes from '0' to"),
        ("train", {"classes": [0, 5]}, "has no image of class '1', '3', '4'"),
        ("train", {"class_names": "ab"}, "label 2 has no name: there are 2 names, for the labels 0 to 1"),
    ],
)
def test_a_class_without_images_or_name_is_refused(
    tmp_path: Path, part: str, data: dict[str, Any], expected: str
) -> None:
    write_idx(tmp_path)
    images, labels = drawn()
    write_part(tmp_path, part, images[labels != 1], labels[labels != 1])
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, IDX | data)
    assert expected in str(caught.value)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, classes=1)
    with pytest.raises(DataError, match="all images are of class '0'; need two classes"):
        prepared_of(tmp_path)


# --- parts


def test_the_test_part_that_is_there_is_the_sealed_one(tmp_path: Path) -> None:
    write_idx(tmp_path, each=20)
    config = study(tmp_path, IDX)
    prepared = prepare(config, tmp_path / "cache")
    assert prepared.sizes == {"raw": 78, "train": 51, "validation": 9, "test": 18}
    images, labels = drawn(6, seed=1)
    training = final_training(config, prepared)
    test, normalization = open_sealed(prepared, training), training.normalization
    assert normalization is not None and test.features.dtype == torch.float32
    restored = test.features * normalization.deviations[0] + normalization.means[0]
    np.testing.assert_array_equal(restored.round().numpy(), images[:, None])
    np.testing.assert_array_equal(test.targets, labels)
    fold = prepared.folds[0]
    kept = {image.tobytes() for part in (fold.train, fold.validation) for image in pixels(part)}
    assert kept == {image.tobytes() for image in drawn(20)[0]}


def test_a_test_fraction_beside_a_test_part_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(DataError) as caught:
        prepared_of(tmp_path, IDX | {"test_fraction": 0.2})
    text = "test-images-idx3-ubyte: is the data's own test part, which is the test set"
    assert f"{text}; leave data.test_fraction (0.2) out" in str(caught.value)


@pytest.mark.parametrize(("fraction", "test"), [(None, 9), (0.3, 18)])
def test_without_a_test_part_a_fraction_is_sealed(tmp_path: Path, fraction: float | None, test: int) -> None:
    write_idx(tmp_path, test=False, each=20)
    prepared = prepared_of(tmp_path, IDX | {"test_fraction": fraction})
    assert prepared.sizes["test"] == test
    assert sum(prepared.sizes.values()) == 120


def test_too_few_images_of_a_class_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, each=4)
    with pytest.raises(DataError, match=r"'0' has 4, '1' has 4, '2' has 4, but at least 5 are needed"):
        prepared_of(tmp_path, validation={"folds": 5})
    with pytest.raises(DataError, match=r"validation.fraction 0.15 of 12 rows leaves 2 for the validation"):
        prepared_of(tmp_path)


def test_images_of_another_size_in_the_test_part_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images, labels = drawn()
    write_part(tmp_path, "test", images[:, 1:], labels)
    with pytest.raises(
        DataError, match=r"test-images.*: its images have the shape 1 x 5 x 5, those of .*1 x 6 x 5"
    ):
        prepared_of(tmp_path)


def test_equal_images_are_reported_above_all_across_the_parts(tmp_path: Path) -> None:
    images, labels = drawn()
    write_part(tmp_path, "train", np.concatenate([images, images[:3]]), np.concatenate([labels, labels[:3]]))
    write_part(tmp_path, "test", images[:6], labels[:6])
    assert [finding.text for finding in prepared_of(tmp_path).findings] == [
        "3 images repeat another one, label included",
        "6 of 6 images of the test part are in the training part too, label included",
    ]


def test_digits_of_scikit_learn_are_images_where_wanted(tmp_path: Path) -> None:
    data = {"source": "sklearn", "name": "digits"}
    prepared = prepared_of(tmp_path, data | {"images": True})
    assert (prepared.input_shape, prepared.classes) == ((1, 8, 8), tuple("0123456789"))
    assert prepared.folds[0].train.features.dtype == torch.uint8
    assert prepared_of(tmp_path, data).input_shape == (64,)


# --- statistics


def test_statistics_are_those_of_the_training_part_alone(tmp_path: Path) -> None:
    write_idx(tmp_path)
    config = study(tmp_path, IDX, validation={"folds": 3})
    prepared = prepare(config, tmp_path / "cache")
    folds = (*prepared.folds, *fresh_folds(config, prepared, [1, 2]))
    for fold in folds:
        train = pixels(fold.train).astype(np.float64)
        assert fold.normalization is not None
        assert fold.normalization.means == pytest.approx([train.mean()], rel=1e-12)
        assert fold.normalization.deviations == pytest.approx([train.std()], rel=1e-12)
    assert len({fold.normalization for fold in folds}) == 5
    assert len({fold.train.features.data_ptr() for fold in prepared.folds}) == 1  # one copy for all


def test_statistics_are_exact_for_each_channel_whatever_the_chunks() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 700, 800), np.uint8)
    assert images[0].size < CHUNK < images.size
    images[:, 1] = 255
    found = Moments(images).of(np.array([0, 1, 3]))
    expected = images[[0, 1, 3]].astype(np.float64)
    np.testing.assert_allclose(found.means, expected.mean((0, 2, 3)), rtol=1e-12)
    assert found.deviations == pytest.approx((expected[:, 0].std(), 1.0, expected[:, 2].std()), rel=1e-12)


# --- the cache


def test_a_second_preparation_is_the_first_and_reads_no_image_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path)
    config = study(tmp_path, IDX, validation={"folds": 3})
    first = prepare(config, tmp_path / "cache")
    monkeypatch.setattr("hpo.data.source.read_part", None)
    second = prepare(config, tmp_path / "cache")
    for one, two in zip(first.folds, second.folds, strict=True):
        assert one.normalization == two.normalization
        for ours, other in ((one.train, two.train), (one.validation, two.validation)):
            np.testing.assert_array_equal(pixels(ours), pixels(other))
            assert torch.equal(ours.targets, other.targets)
    assert (first.classes, first.sizes) == (second.classes, second.sizes)


@pytest.mark.parametrize("name", ["parts.safetensors", "rows.safetensors"])
def test_a_changed_byte_is_noticed_and_prepared_again(tmp_path: Path, name: str) -> None:
    write_idx(tmp_path)
    path = prepared_of(tmp_path).cache / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepared_of(tmp_path)
    assert path.read_bytes() == content


def test_the_fingerprint_follows_what_shapes_the_parts(tmp_path: Path) -> None:
    write_idx(tmp_path / "one")
    write_idx(tmp_path / "two")
    base = {"source": "idx", "path": "one"}
    changes: list[dict[str, Any]] = [
        {"classes": [0, 2]},
        {"class_names": "abc"},
        {"transposed": True},
    ]
    found = [fingerprint(study(tmp_path, base | change)) for change in changes]
    assert len({fingerprint(study(tmp_path, base)), *found}) == 4
    assert fingerprint(study(tmp_path, base | {"path": "two"})) == fingerprint(study(tmp_path, base))
