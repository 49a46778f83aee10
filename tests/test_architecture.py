"""Architectures come from the registry or from the user's file; what is wrong with them is named."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from hpo.config import StudyConfig
from hpo.errors import TrialError, UserCodeError
from hpo.training.architecture import Architecture

HERE = Path(__file__).parent


def architecture(name: str) -> Architecture:
    config = StudyConfig.model_validate(
        {
            "name": "test",
            "data": {"source": "sklearn", "name": "wine"},
            "architecture": name,
            "search": {"dropout": {"low": 0.0, "high": 0.5}},
        }
    )
    return Architecture(config.at(HERE), (7,), 3)


def test_memory_that_runs_out_while_building_is_no_fault_of_the_options() -> None:
    with pytest.raises(MemoryError):
        architecture("user_networks.py:too_large").build({})


def test_a_registered_architecture_is_built_with_its_options() -> None:
    module = architecture("mlp").build({"width": 5, "depth": 1, "dropout": 0.25})
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.25]


def test_the_users_builder_is_found_beside_the_study_file() -> None:
    module = architecture("user_networks.py:functional").build({"dropout": 0.1})
    assert type(module).__name__ == "Functional"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UserCodeError, match=r"'mlpp': must be one of .*mlp.*, or path/to/file.py:build"):
        architecture("mlpp")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mlp", {"width": 0}, "'mlp' with options {'width': 0}: ValueError: width 0"),
        ("mlp", {"widht": 8}, "TypeError: .*unexpected keyword argument 'widht'"),
        ("user_networks.py:raising", {"width": 9}, "ValueError: width 9: too wide"),
        ("user_networks.py:no_module", {}, r"returned str, must return a torch\.nn\.Module"),
    ],
)
def test_a_bad_combination_fails_its_trial_with_the_reason(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrialError, match=message):
        architecture(name).build(options)
