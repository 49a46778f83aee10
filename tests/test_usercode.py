"""`path/to/file.py:function`: what is found, and what is told when it is not. Builders and their options."""

import sys
from pathlib import Path

import pytest
from conftest import study_of

from hpo.errors import StudyFileError, UserCodeError
from hpo.options import options_of
from hpo.usercode import is_user_function, load_function

BUILDER = """
from __future__ import annotations
from typing import Literal, Optional, TYPE_CHECKING
if TYPE_CHECKING:
    from torch import nn

def build(input_shape, classes, *, units: int, alpha: float = 1, rate=0.5, size=3, bias: bool = True,
          activation: Literal["relu", "gelu"] = "relu", limit: float | None = None,
          norm: Optional[str] = None):
    ...

def typed(input_shape, classes, units: int = 3) -> nn.Module:
    ...

def anything(input_shape, classes, depth: int = 2, **options):
    ...

def wrong(input_shape):
    ...

class Net:
    def __init__(self, input_shape, classes, width: int = 3):
        ...

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(BUILDER)
    return tmp_path


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        study_of(text, folder)
    return [str(mistake) for mistake in caught.value.mistakes]


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(UserCodeError) as caught:
        load_function(name, folder)
    return str(caught.value)


def test_a_user_function_is_a_python_file_and_a_name() -> None:
    assert is_user_function("own.py:build") and is_user_function("/a b/own.py:build_2")
    for name in ("own.py", "own.py:", "own:build", "own.py:2", "mlp", ":build", "own.py:a.b"):
        assert not is_user_function(name)


def test_a_function_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "hpo_test_neighbour.py").write_text("VALUE = 7")
    (tmp_path / "own.py").write_text("from hpo_test_neighbour import VALUE\ndef get():\n    return VALUE\n")
    before = list(sys.path)
    assert load_function("own.py:get", tmp_path)() == 7
    assert sys.path == before


def test_a_changed_file_is_loaded_anew_and_an_equal_one_once(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def get():\n    return 1\n")
    first = load_function("own.py:get", tmp_path)
    assert load_function("own.py:get", tmp_path) is first
    (tmp_path / "own.py").write_text("def get():\n    return 2\n")
    assert (first(), load_function("own.py:get", tmp_path)()) == (1, 2)


def test_a_missing_function_names_the_nearest_or_all_that_there_are(folder: Path) -> None:
    path = folder / "own.py"
    assert refusal("own.py:bild", folder) == (
        f"'own.py:bild': {path} has no function 'bild'; did you mean 'build'?"
    )
    assert refusal("own.py:zzz", folder).endswith("; it has build, typed, anything, wrong, Net")
    assert "has no function 'number'" in refusal("own.py:number", folder)
    assert refusal("other.py:build", folder) == f"'other.py:build': there is no file {folder / 'other.py'}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n\nraise RuntimeError('boom')\n", ", line 3: importing it raised RuntimeError: boom"),
        ("import nothing_of_this_name\n", ", line 1: importing it raised ModuleNotFoundError: No module"),
        ("import sys\nsys.exit(3)\n", ", line 2: importing it raised SystemExit: 3"),
        ("def f(:\n", ": importing it raised SyntaxError: "),
    ],
)
def test_a_file_that_cannot_be_imported_names_the_line_and_the_reason(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(text)
    known = set(sys.modules)
    assert f"{tmp_path / 'broken.py'}{message}" in refusal("broken.py:f", tmp_path)
    assert not {name for name in set(sys.modules) - known if name.startswith("hpo_user_")}


def test_the_options_of_a_builder_are_those_of_its_signature(folder: Path) -> None:
    assert options_of("mlp", folder).kinds == {"width": int, "depth": int, "dropout": float}
    options = options_of("own.py:typed", folder)
    assert options.kinds == {"units": int} and not options.required and not options.open
    assert options_of("own.py:Net", folder).kinds == {"width": int}
    options = options_of("own.py:anything", folder)
    assert options.kinds == {"depth": int} and options.open
    options = options_of("own.py:build", folder)
    assert options.required == {"units"}
    assert options.kinds == {
        "units": int,
        "alpha": float,
        "rate": float,
        "size": None,
        "bias": bool,
        "activation": ("relu", "gelu"),
        "limit": float,
        "norm": str,
    }


def test_a_builder_must_take_input_shape_and_classes(folder: Path) -> None:
    with pytest.raises(UserCodeError, match=r"must take \(input_shape, classes, \*\*options\)"):
        options_of("own.py:wrong", folder)


def test_searched_options_are_checked_against_the_users_builder(folder: Path) -> None:
    found = mistakes(
        folder,
        """
        architecture: own.py:build
        search:
          units: {low: 0.5, high: 2}
          activation: {choices: [relu, gleu]}
          bias: {choices: [1, 0]}
          unit: {low: 1, high: 2}
        """,
    )
    assert found == [
        "search.units.low: must be a whole number, not 0.5",
        "search.activation.choices[1]: must be relu or gelu, not 'gleu'; did you mean 'gelu'?",
        "search.bias.choices[0]: must be true or false, not 1",
        "search.bias.choices[1]: must be true or false, not 0",
        "search.unit: unknown parameter; did you mean 'units'? valid: batch_size, optimizer, learning_rate, "
        "weight_decay, momentum, nesterov, schedule, warmup, label_smoothing, ema_decay, shift, rotation, "
        "scale, cutout, horizontal_flip, units, alpha, rate, size, bias, activation, limit, norm",
    ]


def test_an_option_without_a_default_must_be_given_in_every_trial(folder: Path) -> None:
    search = "architecture: own.py:build\nsearch: {bias: {choices: [true, false]}"
    assert mistakes(folder, f"{search}}}") == ["options.units: missing; own.py:build needs it"]
    conditional = f"{search}, units: {{low: 1, high: 2, when: {{bias: true}}}}}}"
    assert mistakes(folder, conditional) == [
        "search.units.when: must be left out: own.py:build needs it always"
    ]
    assert study_of(f"{search}}}\noptions: {{units: 3}}", folder).options == {"units": 3}


def test_a_builder_that_takes_any_option_takes_any_but_an_impossible_dropout(folder: Path) -> None:
    search = "architecture: own.py:anything\nsearch: {depth: {low: 1, high: 3}, wings: {low: 1, high: 3}, "
    config = study_of(f"{search}dropout: {{choices: [0, 0.5]}}}}", folder)
    assert [type(value) for value in config.search["dropout"].ends().values()] == [float, float]
    assert [type(value) for value in config.search["wings"].ends().values()] == [int, int]
    assert mistakes(folder, f"{search}dropout: {{low: 0, high: 1}}}}") == [
        "search.dropout.high: must be 0 or more and below 1, not 1"
    ]


def test_a_builder_that_cannot_be_loaded_is_one_mistake_among_others(folder: Path) -> None:
    text = "architecture: own.py:bild\nmetric: acc\nsearch: {wings: {low: 1, high: 3}}"
    found = mistakes(folder, text)
    assert [line.split(": ")[0] for line in found] == ["metric", "architecture"]
    assert found[1].endswith("has no function 'bild'; did you mean 'build'?")
