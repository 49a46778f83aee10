"""The shipped studies of EMNIST-36: alike in full and in small, and the small ones run to their end."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Desk
from conftest import ROOT
from image_files import write_part

from hpo.config import IdxData, StudyConfig
from hpo.studyfile import load_study
from hpo.yamltext import read_yaml

NAMES = ("cnn", "vgg13", "resnet")
TESTED = 1440
"""Test images."""
LEAK = 0.95
"""No network is so good on these characters, least of all after one epoch of 612 images."""


def loaded(name: str) -> StudyConfig:
    return load_study(ROOT / "studies" / f"{name}.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_a_small_study_is_its_large_one_in_small(name: str) -> None:
    large, small = loaded(name), loaded(f"{name}-small")
    assert large.architecture == small.architecture == name
    wanted = {"dropout", "batch_size", "optimizer", "learning_rate"}
    assert wanted <= set(small.search) <= set(large.search)
    for config in (large, small):
        assert isinstance(config.data, IdxData)
        assert not config.training.horizontal_flip, "characters have a right and a left"
        assert min(config.training.shift, config.training.rotation, config.training.scale) > 0
    assert isinstance(large.data, IdxData) and large.data.examples is None
    assert small.training.epochs * small.trials < large.training.epochs * large.trials / 20


@pytest.fixture(scope="session")
def characters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of EMNIST-36; test_image_training.py prepares all of them."""
    source, folder = (
        ROOT.parent / "shared" / "data" / "emnist36" / "raw",
        tmp_path_factory.mktemp("characters"),
    )
    for part, count in (("train", 7200), ("test", TESTED)):
        arrays = []
        for kind, sizes in (("images-idx3", (28, 28)), ("labels-idx1", ())):
            with gzip.open(source / f"emnist36-{part}-{kind}-ubyte.gz") as file:
                content = file.read(4 * (2 + len(sizes)) + count * int(np.prod(sizes)))
            arrays.append(np.frombuffer(content[4 * (2 + len(sizes)) :], np.uint8).reshape(count, *sizes))
        write_part(folder, f"emnist36-{part}", *arrays)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_small_study_runs_to_a_winner_that_was_tested_once(
    name: str, tmp_path: Path, shared_data: Path, request: pytest.FixtureRequest
) -> None:
    """With fewer trials, epochs and images: each file was run as it is by hand."""
    raw: dict[str, Any] = read_yaml((ROOT / "studies" / f"{name}-small.yaml").read_text())
    raw["data"] |= {"path": str(request.getfixturevalue("characters")), "examples": 720}
    raw["training"] |= {"epochs": 1, "warmup": 0.5}
    raw |= {"trials": 2, "final": {"top": 1, "seeds": 1}, "pruner": "none"}
    desk = Desk(tmp_path)
    desk.study(json.dumps(raw))
    told = desk.json("run", "study.yaml", "--workers", "1")
    test = json.loads((tmp_path / "results" / f"{name}-small" / "metrics.json").read_text())["test"]
    assert test["n"] == TESTED
    assert 0 < test["accuracy"] < LEAK
    assert told["trials"]["complete"] == 2
