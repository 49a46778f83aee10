"""Search spaces, asked through real Optuna trials."""

import json
from typing import Any

import optuna
import pytest
from conftest import study_of
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from hpo.space import Choices, Range, active, distributions, grid, ordered, suggest

CONDITIONAL = """
search:
  nesterov: {choices: [true, false], when: {momentum: [0.5, 0.9]}}
  momentum: {choices: [0, 0.5, 0.9], when: {optimizer: sgd}}
  optimizer: {choices: [adam, sgd]}
"""


def trials(space: Any, count: int = 60, sampler: optuna.samplers.BaseSampler | None = None) -> list[Any]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler or optuna.samplers.RandomSampler(seed=0))
    values = []
    for _ in range(count):
        trial = study.ask()
        values.append(suggest(trial, space))
        assert trial.params == values[-1]
        study.tell(trial, 0.0)
    return values


@pytest.mark.parametrize(
    ("raw", "distribution"),
    [
        ({"low": 1, "high": 9}, IntDistribution(1, 9)),
        ({"low": 1, "high": 9, "step": 2}, IntDistribution(1, 9, step=2)),
        ({"low": 1, "high": 9, "log": True}, IntDistribution(1, 9, log=True)),
        ({"low": 0.0, "high": 1}, FloatDistribution(0, 1)),
        ({"low": 0, "high": 1, "step": 0.1}, FloatDistribution(0, 1, step=0.1)),
        ({"low": 1e-4, "high": 0.1, "log": True}, FloatDistribution(1e-4, 0.1, log=True)),
    ],
)
def test_a_range_is_whole_where_all_its_numbers_are(raw: dict[str, Any], distribution: Any) -> None:
    assert Range.model_validate(raw).distribution() == distribution


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dropout", FloatDistribution(0, 0.5)),
        ("weight_decay", FloatDistribution(0, 1)),
        ("learning_rate", FloatDistribution(1, 10, log=True)),
        ("momentum", CategoricalDistribution((0.0, 0.9))),
        ("width", IntDistribution(16, 128)),
        ("batch_size", CategoricalDistribution((32, 100))),
    ],
)
def test_a_parameter_has_the_type_of_its_owner_however_it_is_written(name: str, expected: Any) -> None:
    config = study_of(
        """
        search:
          dropout: {low: 0, high: 0.5}
          weight_decay: {low: 0, high: 1}
          learning_rate: {low: 1, high: 10, log: true}
          momentum: {choices: [0, 0.9]}
          width: {low: 1.6e1, high: 128.0}
          batch_size: {choices: [32, 1e2]}
        """
    )
    stored = type(config).model_validate(json.loads(config.model_dump_json()))
    for space in (config.search, stored.search):
        found = distributions(space)[name]
        assert found == expected
        # 1 == 1.0, so compare the text too.
        assert optuna.distributions.distribution_to_json(found) == json.dumps(
            json.loads(optuna.distributions.distribution_to_json(expected))
        )


def test_suggested_values_are_those_of_the_space() -> None:
    space = study_of(
        "search: {width: {low: 8, high: 32, step: 8}, dropout: {low: 0, high: 0.5, step: 0.1},"
        " learning_rate: {low: 1e-4, high: 1e-1, log: true}, optimizer: {choices: [adam, sgd]}}"
    ).search
    values = trials(space)
    assert {value["width"] for value in values} == {8, 16, 24, 32}
    assert {round(value["dropout"], 6) for value in values} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert {value["optimizer"] for value in values} == {"adam", "sgd"}
    assert sum(value["learning_rate"] < 10**-2.5 for value in values) == pytest.approx(30, abs=12)


def test_a_conditional_parameter_is_suggested_only_under_its_condition() -> None:
    values = trials(study_of(CONDITIONAL).search)
    for value in values:
        assert ("momentum" in value) == (value["optimizer"] == "sgd")
        assert ("nesterov" in value) == (value.get("momentum") in {0.5, 0.9})
    assert {len(value) for value in values} == {1, 2, 3}


def test_conditions_work_with_a_sampler_that_learns() -> None:
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=5)
    values = trials(study_of(CONDITIONAL).search, 20, sampler)
    assert all(("momentum" in value) == (value["optimizer"] == "sgd") for value in values)


def test_parameters_come_after_those_that_they_depend_on() -> None:
    assert ordered(study_of(CONDITIONAL).search) == ["optimizer", "momentum", "nesterov"]


def test_a_circle_of_conditions_is_named() -> None:
    space = {
        "a": Choices(choices=[1, 2], when={"b": 1}),
        "b": Choices(choices=[1, 2], when={"a": 1}),
        "c": Choices(choices=[1, 2]),
    }
    with pytest.raises(ValueError, match="the conditions of a, b form a circle"):
        ordered(space)


def test_a_parameter_is_inactive_where_its_parent_is() -> None:
    parameter = Choices(choices=[1, 2], when={"a": [1, 2], "b": "x"})
    assert active(parameter, {"a": 2, "b": "x"})
    assert not active(parameter, {"a": 3, "b": "x"})
    assert not active(parameter, {"a": 1})


def test_a_grid_has_conditional_parameters_only_where_they_are_active() -> None:
    assert grid(study_of(CONDITIONAL).search) == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": 0.0},
        {"optimizer": "sgd", "momentum": 0.5, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.5, "nesterov": False},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": False},
    ]


def test_the_values_of_a_step_are_exact() -> None:
    assert Range(low=0, high=0.5, step=0.1).grid() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert Range(low=1, high=7, step=3).grid() == [1, 4, 7]


@pytest.mark.slow
def test_what_cannot_be_listed_makes_no_grid() -> None:
    assert Range(low=0, high=10**12).grid() is None
    for endless in (Range(low=0.0, high=1), Range(low=0, high=1, step=1e-9)):
        with pytest.raises(ValueError, match="x: a grid needs choices, whole numbers or a step"):
            grid({"x": endless})
    with pytest.raises(ValueError, match="more than 1000000 points"):
        grid({name: Range(low=1, high=200) for name in ("x", "y", "z")})


def test_values_that_optuna_takes_for_equal_are_refused() -> None:
    for choices in ([1, True], [0, False], [1, 1.0], ["a", "a"]):
        with pytest.raises(ValidationError, match="must differ from choices"):
            Choices(choices=choices)


def test_a_range_too_wide_for_double_precision_is_refused() -> None:
    with pytest.raises(ValidationError, match="largest double precision number"):
        Range(low=-1.5e308, high=1.5e308)
