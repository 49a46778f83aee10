"""The shipped studies of EMNIST-36: alike in full and in small, and the small ones run to their end."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import Desk
from conftest import ROOT

from hpo.config import IdxData, StudyConfig
from hpo.studyfile import load_study
from hpo.yamltext import read_yaml

NAMES = ("cnn", "vgg13", "resnet")
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


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_small_study_runs_to_a_winner_that_was_tested_once(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    """With fewer trials, epochs and images: each file was run as it is by hand."""
    raw: dict[str, Any] = read_yaml((ROOT / "studies" / f"{name}-small.yaml").read_text())
    raw["data"] |= {"path": str(shared_data / "emnist36" / "raw"), "examples": 720}
    raw["training"] |= {"epochs": 1, "warmup": 0.5}
    raw |= {"trials": 2, "final": {"top": 1, "seeds": 1}, "pruner": "none"}
    desk = Desk(tmp_path)
    desk.study(json.dumps(raw))
    told = desk.json("run", "study.yaml", "--workers", "1")
    test = json.loads((tmp_path / "results" / f"{name}-small" / "metrics.json").read_text())["test"]
    assert test["n"] == 14400
    assert 0 < test["accuracy"] < LEAK
    assert told["trials"]["complete"] == 2
