"""YAML as study files use it: the values of YAML 1.2, and refusals with line and column."""

import math
import time
from typing import Any

import pytest

from hpo.yamltext import YamlError, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("+1", 1),
        ("-0.5", -0.5),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0", 0),
        ("'5'", "5"),
        ("1.2.3", "1.2.3"),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("~", None),
        ("", None),
        ("-.inf", -math.inf),
        ("1e400", math.inf),
    ],
)
def test_a_plain_value_is_what_yaml_1_2_says(text: str, value: Any) -> None:
    read = read_yaml(f"key: {text}")["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_read_as_such() -> None:
    assert math.isnan(read_yaml(".nan"))


def test_keys_are_text_as_written() -> None:
    assert read_yaml("{1: a, true: b, no: c, 1e3: d}") == {"1": "a", "true": "b", "no": "c", "1e3": "d"}


def test_an_alias_repeats_what_its_anchor_names() -> None:
    assert read_yaml("a: &size [1, 2]\nb: *size") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: key 'a' stands twice (first in line 1)"),
        ("x: {a: 1, a: 3}", "line 1, column 11: key 'a' stands twice (first in line 1)"),
        ("a:\n\tb: 1", "line 2, column 1: a tab; indent with spaces"),
        ("a: [1,\n  2", "line 2, column 4: expected ',' or ']', but got '<stream end>'"),
        ("a: {b: 1", "line 1, column 9: expected ',' or '}', but got '<stream end>'"),
        ("a: 'x", "line 1, column 6: found unexpected end of stream"),
        ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
        ("[a]: 1", "line 1, column 1: a key must be a plain name"),
        ("{'': 1}", "line 1, column 2: a key must be a plain name"),
        ("a: !!python/name:os.system x", "line 1, column 4: the tag tag:yaml.org,2002:python/name:os.system"),
        ("a: !!int 5x", "line 1, column 4: the tag tag:yaml.org,2002:int is not for study files"),
        ("a: &a [*a]", "line 1, column 4: an alias of what it stands in"),
        ("a: *b", "line 1, column 4: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ("a: \x07", "character 0x7 at position 3"),
        ("a: " + "9" * 5000, "line 1, column 4: a number of 5000 digits"),
        ("[" * 3000, "line 1, column 51: more than 50 levels deep"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("width", [1, 10])
def test_aliases_that_expand_without_bounds_are_refused_at_once(width: int) -> None:
    levels = ["a0: &a0 [x]"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]" for level in range(1, 60)]
    started = time.perf_counter()
    with pytest.raises(YamlError, match="stands for more than 100000 values or 50 levels"):
        read_yaml("\n".join(levels))
    assert time.perf_counter() - started < 2
