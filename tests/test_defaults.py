"""The configuration's defaults, and how many candidates and seeds suit the data."""

from pathlib import Path
from typing import Any

import pytest
from conftest import study_of

from hpo.config import StudyConfig
from hpo.results.defaults import defaults


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("search: {learning_rate: {low: 1e-4, high: 1e-1, log: true}}", 1e-3),
        ("search: {learning_rate: {low: 1e-4, high: 1e-1}}\ntraining: {learning_rate: 0.05}", 0.05),
        ("search: {learning_rate: {low: 1e-2, high: 1e-1}}", 1e-2),
        ("search: {weight_decay: {low: 1e-6, high: 1e-2, log: true}}", 1e-6),
        ("search: {batch_size: {choices: [16, 64, 128]}}", 64),
        ("search: {batch_size: {choices: [16, 100, 256]}}", 100),
        ("search: {batch_size: {low: 50, high: 90, step: 20}}", 70),
        ("search: {optimizer: {choices: [sgd, rmsprop]}}", "sgd"),
        ("search: {nesterov: {choices: [true, false]}}\ntraining: {momentum: 0.9}", False),
        ("search: {width: {low: 16, high: 256, log: true}}", 64),
        ("search: {dropout: {low: 0.2, high: 0.7}}", 0.2),
    ],
)
def test_default_or_what_the_space_has_nearest_to_it(text: str, value: Any) -> None:
    config = study_of(text)
    (found,) = defaults(config).values()
    assert found == value and type(found) is type(value)


def test_only_active_parameters_have_one() -> None:
    text = (
        "search: {optimizer: {choices: [adam, sgd]}, momentum: {low: 0.5, high: 0.9, when: {optimizer: %s}}}"
    )
    assert defaults(study_of(text % "sgd")) == {"optimizer": "adam"}
    assert defaults(study_of(text % "adam")) == {"optimizer": "adam", "momentum": 0.5}


def test_option_without_a_default_takes_the_middle(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(input_shape, classes, hidden, kind, rate=0.3):\n    pass\n")
    config = study_of(
        "architecture: net.py:build\nsearch: {hidden: {low: 4, high: 64, log: true}, "
        "kind: {choices: [x, y]}, rate: {low: 0.0, high: 1.0}}",
        tmp_path,
    )
    assert defaults(config) == {"hidden": 16, "kind": "x", "rate": 0.3}


IMAGES = [
    "{source: torchvision, name: MNIST}",
    "{source: idx, path: x}",
    "{source: sklearn, name: digits, images: true}",
]
TABLES = [
    "{source: sklearn, name: digits}",
    "{source: csv, path: x.csv, target: y}",
    "{source: 'own.py:load'}",
]


@pytest.mark.parametrize(
    ("data", "expected"), [*((data, (2, 3)) for data in IMAGES), *((data, (5, 10)) for data in TABLES)]
)
def test_what_final_does_not_say_suits_the_data(data: str, expected: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def load():\n    pass\n")

    def final(text: str) -> tuple[int, int]:
        search = "search: {learning_rate: {low: 0.1, high: 0.2}}"
        config = study_of(f"data: {data}\n{search}\n{text}", tmp_path)
        stored = StudyConfig.model_validate(config.model_dump(mode="json"))
        assert stored.final == config.final and stored.digest() == config.digest()
        return config.final.top, config.final.seeds

    assert final("") == expected
    assert final("final: {top: 7}") == (7, expected[1])
    assert final("final: {top: 5, seeds: 10}") == (5, 10)
