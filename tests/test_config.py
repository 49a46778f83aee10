"""`StudyConfig`: what is stored with a study is what was read, and what a trial gets of it."""

import json
from typing import Any

import pytest
from conftest import ROOT, study_of

from hpo.config import Folds, Grid, Median, NoPruner, StudyConfig, Tpe
from hpo.methods import PRUNERS, SAMPLERS
from hpo.studyfile import load_study

STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))

OWN = [
    *(f"search: {{width: {{low: 1, high: 5}}}}\ntrials: 5\nsampler: {name}" for name in SAMPLERS),
    *(f"search: {{width: {{low: 1, high: 5}}}}\npruner: {name}" for name in PRUNERS),
    "sampler: {name: tpe, seed: 3, multivariate: true}\nsearch: {dropout: {low: 0, high: 0.5, step: 0.1}}",
    "search: {optimizer: {choices: [sgd, adam]}, momentum: {low: 0, high: 0.9, when: {optimizer: [sgd]}}}",
    "search: {nesterov: {choices: [true, false]}, momentum: {low: 0.5, high: 0.9}}\nhours: 1",
    "validation: {folds: 5}\nsearch: {batch_size: {choices: [32, 64]}}\noptions: {width: 32, dropout: 0}",
    "data: {source: csv, path: ü.csv, target: y, ignore: [id], task: regression}\nmetric: rmse\n"
    "search: {learning_rate: {low: 1e-4, high: 1, log: true}}",
    "search: {learning_rate: {low: 1.0e-323, high: 0.30000000000000004, log: true}}",
]


def typed(value: Any) -> Any:
    """With the type beside each value, because 1 == 1.0 == True."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value), value


def assert_round_trip(config: StudyConfig) -> None:
    dumped = config.model_dump(mode="json")
    stored = StudyConfig.model_validate(json.loads(json.dumps(dumped)))
    assert stored.at(config.folder) == config
    assert typed(stored.model_dump(mode="json")) == typed(dumped)
    assert stored.digest() == config.digest()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_shipped_study_is_stored_exactly(path: Any) -> None:
    assert_round_trip(load_study(path))


@pytest.mark.parametrize("text", OWN)
def test_a_study_is_stored_exactly(text: str) -> None:
    assert_round_trip(study_of(text))


def test_equal_studies_have_one_digest_however_they_are_written() -> None:
    one = study_of("search: {dropout: {low: 0, high: 0.5}}\nsampler: tpe")
    two = study_of("sampler: {name: tpe}\nsearch:\n  dropout:\n    high: 5e-1\n    low: 0.0\n")
    other = study_of("search: {dropout: {low: 0, high: 0.6}}\nsampler: tpe")
    assert one.digest() == two.digest() != other.digest()
    assert len(one.digest()) == 64


def test_the_digest_does_not_depend_on_where_the_study_lies() -> None:
    config = study_of("search: {dropout: {low: 0, high: 0.5}}")
    assert config.digest() == config.at(ROOT / "studies").digest()
    assert config.at(ROOT / "studies").folder == ROOT / "studies"


def test_what_is_left_out_has_a_default() -> None:
    config = study_of("search: {dropout: {low: 0, high: 0.5}}")
    assert (config.metric, config.architecture, config.trials) == ("accuracy", "mlp", 100)
    assert (config.sampler, config.pruner, config.folds) == (Tpe(), NoPruner(), 1)
    assert (config.direction, config.task) == ("maximize", "classification")
    hours = study_of("search: {dropout: {low: 0, high: 0.5}}\nhours: 0.5")
    assert (hours.hours, hours.trials) == (0.5, 100)


def test_a_method_is_named_or_described() -> None:
    search = "search: {width: {low: 1, high: 3}}\ntrials: 3\n"
    assert study_of(f"{search}pruner: median").pruner == Median()
    described = study_of(f"{search}pruner: {{name: median, min_epochs: 2}}\nsampler: grid\n")
    assert (described.pruner, described.sampler) == (Median(min_epochs=2), Grid())
    assert study_of(f"{search}pruner:").pruner == NoPruner()
    assert study_of(f"{search}validation: {{folds: 3}}").validation == Folds(folds=3)


@pytest.mark.parametrize(
    ("metric", "data", "task", "direction"),
    [
        ("accuracy", "wine", "classification", "maximize"),
        ("loss", "wine", "classification", "minimize"),
        ("loss", "diabetes", "regression", "minimize"),
        ("r2", "diabetes", "regression", "maximize"),
        ("rmse", "diabetes", "regression", "minimize"),
    ],
)
def test_task_and_direction_follow_from_metric_and_data(
    metric: str, data: str, task: str, direction: str
) -> None:
    search = "search: {width: {low: 1, high: 3}}"
    config = study_of(f"{search}\nmetric: {metric}\ndata: {{source: sklearn, name: {data}}}")
    assert (config.task, config.direction) == (task, direction)


def test_a_trial_gets_its_searched_values_over_the_defaults() -> None:
    config = study_of(
        """
        search: {dropout: {low: 0, high: 0.5}, learning_rate: {low: 1e-4, high: 1, log: true}}
        options: {width: 32}
        training: {batch_size: 16, weight_decay: 0.01}
        """
    )
    settings = config.settings({"dropout": 0.25, "learning_rate": 0.5})
    assert settings.options == {"width": 32, "dropout": 0.25}
    assert settings.hyperparameters.learning_rate == 0.5
    assert settings.hyperparameters.batch_size == 16
    assert settings.hyperparameters.weight_decay == 0.01
    assert config.options == {"width": 32}
