"""Parameters as text in the formats that other people's scripts read."""

import json
import re
import shlex
from collections.abc import Callable, Mapping

from hpo.errors import UsageError
from hpo.section import Value
from hpo.yamltext import write_yaml

Parameters = Mapping[str, Value]


def as_text(parameters: Parameters, form: str) -> str:
    """`parameters` in the format `form`, ending in a line break.

    Raises:
        UsageError: there is no such format, or a name or value cannot be said in it.
    """
    if form not in FORMATS:
        raise UsageError(f"--format: {form!r}: must be one of {', '.join(FORMATS)}")
    return FORMATS[form](parameters)


def _yaml(parameters: Parameters) -> str:
    return write_yaml(dict(parameters))


def _json(parameters: Parameters) -> str:
    return json.dumps(dict(parameters), indent=2, ensure_ascii=False) + "\n"


def _toml(parameters: Parameters) -> str:
    return "".join(f"{_toml_key(name)} = {_toml_value(value)}\n" for name, value in parameters.items())


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml_value(name)


def _toml_value(value: Value) -> str:
    # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _env(parameters: Parameters) -> str:
    """Assignments that a shell reads: names stay as they are, so that PATH and the like are not hit."""
    for name in parameters:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"--format env: {name!r} cannot be the name of a variable; json can say it")
    return "".join(f"{name}={_shell(name, value)}\n" for name, value in parameters.items())


def _args(parameters: Parameters) -> str:
    """One line of `--name=value`; with `=`, so that a value may begin with a dash."""
    return (
        " ".join(f"{shlex.quote(f'--{name}')}={_shell(name, value)}" for name, value in parameters.items())
        + "\n"
    )


def _shell(name: str, value: Value) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if "\0" in text:
        raise UsageError(f"{name}: no program takes a NUL character as an argument; json can say it")
    return shlex.quote(text)


FORMATS: dict[str, Callable[[Parameters], str]] = {
    "yaml": _yaml,
    "json": _json,
    "toml": _toml,
    "env": _env,
    "args": _args,
}
