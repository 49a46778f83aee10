"""benchmarks/images.py: a user's images come through `load` as they should, and both sides train on them."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.errors import DataError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
EACH, CLASSES = 30, 3
"""Examples of a class."""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """idx files of dark images, one of the two compressed; the darker, the smaller the label."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), EACH)).astype(np.uint8)
    pixels = (rng.integers(0, 40, (len(labels), 16, 16)) + 40 * labels[:, None, None]).astype(np.uint8)
    sizes = [np.array(array.shape, ">u4").tobytes() for array in (pixels, labels)]
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x-train-images.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + sizes[0] + pixels.tobytes()))
    (folder / "x-train-labels").write_bytes(b"\0\0\x08\x01" + sizes[1] + labels.tobytes())
    return folder


def study(folder: Path, examples: int | None) -> StudyConfig:
    file = BENCHMARKS / "peers" / "emnist.py"
    content = {
        "name": "images",
        "data": {"source": f"{file}:load", "options": {"folder": str(folder), "examples": examples}},
        "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}},
    }
    return StudyConfig.model_validate(content)


def test_idx_files_are_read_and_standardized_by_one_mean_and_deviation(tmp_path: Path, images: Path) -> None:
    prepared = prepare(study(images, None), tmp_path / "cache")
    train = prepared.folds[0].train
    assert (prepared.input_shape, prepared.classes) == ((1, 16, 16), ("0", "1", "2"))
    assert train.features.dtype == torch.float32
    assert train.features.mean().item() == pytest.approx(0, abs=1e-5)
    assert train.features.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    means = [train.features[train.targets == label].mean().item() for label in range(CLASSES)]
    assert means == sorted(means)  # each label is still that of its image


def test_a_subset_has_as_many_of_each_class(tmp_path: Path, images: Path) -> None:
    prepared = prepare(study(images, 62), tmp_path / "cache")
    assert prepared.sizes["raw"] == 60
    counts = prepared.folds[0].train.targets.bincount() + prepared.folds[0].validation.targets.bincount()
    assert (counts.max() - counts.min()).item() <= 1


def test_what_is_not_there_is_named(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match="examples: 93 of 3 classes, need 3 to 90"):
        prepare(study(images, 93), tmp_path / "cache")
    (images / "x-train-labels").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="x-train-labels: begins with 0x504b0304, need 0x00000803 or"):
        prepare(study(images, None), tmp_path / "cache")
    (images / "x-train-labels").unlink()
    with pytest.raises(DataError, match=r"need one file \*train-labels\*, there are 0"):
        prepare(study(images, None), tmp_path / "cache")


@pytest.mark.slow
def test_both_sides_train_the_same_trials_and_lanes_are_measured(images: Path) -> None:
    small = ["--examples=90", "--epochs=1", "--trials=2", "--width=2"]
    command = [sys.executable, BENCHMARKS / "images.py", images, *small]
    compared = subprocess.run([*command, "--processes=1"], capture_output=True, text=True)
    assert compared.returncode == 0, compared.stderr
    (line,) = [line for line in compared.stdout.splitlines() if line.startswith("0 ")]
    assert line.count("2 / 2") == 2, line  # trials, epochs
    curve = subprocess.run(
        [*command, "--curve", "--most=2", "--steps=1", "--repeats=1", "--batch-size=32"],
        capture_output=True,
        text=True,
    )
    assert curve.returncode == 0, curve.stderr
    assert [line.split()[0] for line in curve.stdout.splitlines()[2:]] == ["lanes", "script", "1", "2"]
