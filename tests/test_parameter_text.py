"""Parameters in other people's formats: each reads back to what it was."""

import json
import shlex
import subprocess
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from hpo.errors import UsageError
from hpo.results.parameter_text import FORMATS, as_text
from hpo.yamltext import read_yaml

STRANGE: dict[str, Any] = {
    "learning_rate": 1.2345e-05,
    "huge": 1e22,
    "whole": -3,
    "big": 2**53,
    "nesterov": True,
    "no": False,
    "optimizer": "adam",
    "looks_like_a_number": "1e-4",
    "looks_like_yes": "yes",
    "looks_like_null": "null",
    "octal": "010",
    "time": "1:30",
    "empty": "",
    "quotes": 'it\'s "quoted" $HOME `id` \\n',
    "lines": "two\nlines\ttab\x7f",
    "unicode": "é ☃ 🎉",
    "dash": "-x --y=z",
    "hash": "# no comment",
}


@pytest.mark.parametrize(
    ("form", "read"),
    [("yaml", read_yaml), ("yaml", yaml.safe_load), ("json", json.loads), ("toml", tomllib.loads)],
)
def test_strange_values_read_back(form: str, read: Callable[[str], Any]) -> None:
    found = read(as_text(STRANGE, form))
    assert found == STRANGE
    assert [type(value) for value in found.values()] == [type(value) for value in STRANGE.values()]


def texts() -> dict[str, str]:
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in STRANGE.items()}


def test_a_shell_reads_assignments_and_arguments_as_they_are() -> None:
    names = " ".join(f'"${name}"' for name in STRANGE)
    script = f"{as_text(STRANGE, 'env')}\nprintf '%s\\0' {names}"
    said = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={}).stdout.decode()
    assert said.split("\0")[:-1] == list(texts().values())
    line = as_text(STRANGE, "args")
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, env={}
    ).stdout.decode()
    assert said.split("\0")[:-1] == [f"--{name}={text}" for name, text in texts().items()]
    assert shlex.split(line) == said.split("\0")[:-1]


def test_names_beyond_a_format_are_quoted_or_refused() -> None:
    odd = {"a b": 1, "é.x": 2}
    for form, read in (("yaml", yaml.safe_load), ("json", json.loads), ("toml", tomllib.loads)):
        assert read(as_text(odd, form)) == odd
    assert shlex.split(as_text(odd, "args")) == ["--a b=1", "--é.x=2"]
    with pytest.raises(UsageError, match="--format env: 'a b' cannot be the name of a variable"):
        as_text(odd, "env")
    with pytest.raises(UsageError, match="x: no program takes a NUL character"):
        as_text({"x": "\0"}, "args")
    with pytest.raises(UsageError, match=f"--format: 'ini': must be one of {', '.join(FORMATS)}"):
        as_text(odd, "ini")
