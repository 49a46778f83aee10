"""The options of an architecture, as the signature of its builder declares them."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import models
from hpo.config import Hyperparameters, StudyConfig
from hpo.errors import UserCodeError
from hpo.section import Value
from hpo.usercode import is_user_function, load_function

Kind = type[Any] | tuple[Any, ...] | None
"""bool, int, float or str; the values of a Literal; None: any value will do."""

_PLAIN = {kind.__name__: kind for kind in (bool, int, float, str)}
_WORDS: dict[Any, str] = {
    bool: "must be true or false",
    int: "must be a whole number",
    float: "must be a number",
    str: "must be text",
}


@dataclass(frozen=True)
class Options:
    """What a builder takes beside `(input_shape, classes)`."""

    kinds: dict[str, Kind]
    """By name."""
    required: frozenset[str]
    """Those without a default."""
    open: bool
    """Whether it takes any other name too."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """Of those that have one."""


def options_of(architecture: str, folder: Path) -> Options:
    """The options of the builder of `architecture`, a registered name or the user's `path/to/file.py:build`.

    Raises:
        UserCodeError: the user's builder cannot be loaded, or does not take `(input_shape, classes)`.
        KeyError: no architecture is registered under this name.
    """
    if is_user_function(architecture):
        signature = _signature(load_function(architecture, folder), architecture)
    else:
        signature = models.signature(architecture)
    parameters = list(signature.parameters.values())
    named = [
        parameter
        for parameter in parameters[2:]
        if parameter.kind in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}
    ]
    return Options(
        kinds={parameter.name: _kind(parameter) for parameter in named},
        required=frozenset(parameter.name for parameter in named if parameter.default is parameter.empty),
        open=any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters),
        defaults={p.name: p.default for p in named if p.default is not p.empty},
    )


def _signature(build: Callable[..., Any], architecture: str) -> inspect.Signature:
    try:
        signature = inspect.signature(build, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):
        signature = inspect.signature(build)  # an annotation that only type checkers can resolve
    except ValueError as error:
        raise UserCodeError(f"{architecture!r}: has no signature: {error}") from error
    first_two = list(signature.parameters.values())[:2]
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    if len(first_two) < 2 or not all(parameter.kind in positional for parameter in first_two):
        raise UserCodeError(f"{architecture!r}: must take (input_shape, classes, **options), not {signature}")
    return signature


def _kind(parameter: inspect.Parameter) -> Kind:
    if parameter.annotation is parameter.empty:
        # A default of 0.1 says float. One of 1 says nothing: it may stand for 1.0.
        return float if isinstance(parameter.default, float) else None
    return _annotated_kind(parameter.annotation)


def _annotated_kind(annotation: Any) -> Kind:
    if isinstance(annotation, str):
        return _PLAIN.get(annotation)
    if annotation in _PLAIN.values():
        found: Kind = annotation
        return found
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    others = [argument for argument in get_args(annotation) if argument is not NoneType]
    is_optional = len(others) < len(get_args(annotation))
    return _annotated_kind(others[0]) if is_optional and len(others) == 1 else None


def kinds(config: StudyConfig) -> dict[str, Kind]:
    """The kinds of all that can be searched by name: hyperparameters, and the architecture's options.

    Raises:
        UserCodeError: see `options_of`.
    """
    trained = {
        name: _annotated_kind(field.annotation) for name, field in Hyperparameters.model_fields.items()
    }
    declared = options_of(config.architecture, config.folder).kinds
    # `dropout` is a rate for every builder, also for one that takes it among its **options.
    return {"dropout": float} | {name: kind for name, kind in declared.items() if kind} | trained


def fitted(value: Value | list[Value], kind: Kind) -> Any:
    """`value` as one of `kind`: a whole number is also a float, and 1e2 also a whole number.

    Raises:
        ValueError: it is none; the text says what would be one.
    """
    if kind is None:
        return value
    if isinstance(kind, tuple):
        if not any(type(value) is type(member) and value == member for member in kind):
            raise ValueError(f"must be one of {', '.join(map(str, kind))}")
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not kind:
        raise ValueError(_WORDS[kind])
    return value


def resolved(config: StudyConfig) -> StudyConfig:
    """`config` with each searched or fixed value of the kind that its owner declares.

    So `dropout: {low: 0, high: 1}` is a range of floats from here on, wherever the configuration is read.

    Raises:
        ValueError: a value is not of its kind.
        UserCodeError: see `options_of`.
    """
    known = kinds(config)
    search = {
        name: parameter.mapped(partial(fitted, kind=known.get(name)))
        for name, parameter in config.search.items()
    }
    options = {name: fitted(value, known.get(name)) for name, value in config.options.items()}
    return config.model_copy(update={"search": search, "options": options})
