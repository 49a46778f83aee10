"""What pydantic has to say about a study file, in our words: one `Mistake` for each of its errors."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from hpo import config as cfg
from hpo.config import StudyConfig, Training
from hpo.errors import MISSING, Mistake
from hpo.methods import PRUNERS, SAMPLERS
from hpo.section import Section
from hpo.space import parameter_kind

Location = tuple[int | str, ...]

ALIASES = {
    "lr": "learning_rate",
    "eta": "learning_rate",
    "bs": "batch_size",
    "wd": "weight_decay",
    "l2": "weight_decay",
    "opt": "optimizer",
    "drop": "dropout",
    "p_dropout": "dropout",
    "ema": "ema_decay",
    "smoothing": "label_smoothing",
    "flip": "horizontal_flip",
    "degrees": "rotation",
    "hidden": "width",
    "layers": "depth",
    "n_trials": "trials",
    "max_trials": "trials",
    "model": "architecture",
    "space": "search",
    "dataset": "data",
    "cv": "validation",
}
"""Other people's names for our keys, for suggestions."""

_TEXTS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_long": "must have {max_length} character",
    "string_pattern_mismatch": "must match {pattern}",
}


def mistake(raw: Mapping[Any, Any], error: Mapping[str, Any]) -> Mistake:
    """One of pydantic's `error`s about `raw`, the whole content of the study file."""
    location: Location = error["loc"]
    kind: str = error["type"]
    key = dotted(location)
    if kind == "missing":
        return Mistake(key, MISSING, "missing", _description(raw, location))
    if kind == "invalid_key":
        return Mistake(key, MISSING, "keys must be text")
    if kind == "extra_forbidden":
        return _unknown_key(raw, location)
    return refused(key, error, hint=_hint(raw, error))


def refused(key: str, error: Mapping[str, Any], hint: str = "") -> Mistake:
    """One of pydantic's `error`s about a value that stands at `key`."""
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "unknown_choice":
        return one_of(key, value, context["choices"])
    if kind == "literal_error":
        return one_of(key, value, re.findall(r"'([^']*)'", context["expected"]))
    message: str = error["msg"]
    if kind not in _TEXTS:
        return Mistake(key, value, message.replace("Input should be", "must be"), hint)
    bounds = {name: _short(bound) for name, bound in context.items()}
    return Mistake(key, value, _TEXTS[kind].format(**bounds), hint)


def _short(bound: object) -> object:
    """1 for the 1.0 that pydantic makes of a bound of a float."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def one_of(key: str, value: object, valid: Sequence[str]) -> Mistake:
    """`value` should be one of the `valid` names."""
    if value is None:
        value = MISSING
    choices = valid[0] if len(valid) == 1 else f"{', '.join(valid[:-1])} or {valid[-1]}"
    return Mistake(key, value, f"must be {choices}", _did_you_mean(value, valid))


def unknown_name(key: str, name: str, noun: str, valid: Sequence[str]) -> Mistake:
    """The `name` at `key` is none of the `valid` ones."""
    near = _did_you_mean(name, valid)
    return Mistake(key, MISSING, f"unknown {noun}", f"{near}{' ' if near else ''}valid: {', '.join(valid)}")


def dotted(location: Location) -> str:
    """The place as one would point to it: `search.optimizer.choices[1]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location if part != "[key]"]
    return "".join(parts).removeprefix(".")


def _did_you_mean(value: object, valid: Sequence[str]) -> str:
    text = str(value).lower().replace("-", "_")
    if ALIASES.get(text) in valid:
        return f"did you mean {ALIASES[text]!r}?"
    lowered = {name.lower(): name for name in valid}
    near = difflib.get_close_matches(text, lowered, n=1)
    return f"did you mean {lowered[near[0]]!r}?" if near else ""


def _unknown_key(raw: Mapping[Any, Any], location: Location) -> Mistake:
    key, name = dotted(location), str(location[-1])
    section = _section(raw, location[:-1])
    if section is StudyConfig and name in Training.model_fields:
        return Mistake(key, MISSING, "unknown key", f"did you mean 'training.{name}'?")
    return unknown_name(key, name, "key", list(section.model_fields) if section else [])


def _hint(raw: Mapping[Any, Any], error: Mapping[str, Any]) -> str:
    if error["type"] == "string_pattern_mismatch":
        return _description(raw, error["loc"])
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        return "write it in quotes"
    return ""


def _description(raw: Mapping[Any, Any], location: Location) -> str:
    section = _section(raw, location[:-1])
    field = section.model_fields.get(str(location[-1])) if section else None
    text = (field.description if field else None) or ""
    return (text[:1].lower() + text[1:]).removesuffix(".")


def _section(raw: Mapping[Any, Any], location: Location) -> type[Section] | None:
    """The section at `location`, which for a choice of sections depends on what is written there."""
    if not location:
        return StudyConfig
    here: Any = raw
    for part in location:
        here = here[part]
    name = str(location[0])
    if name == "search":
        return parameter_kind(here)
    if name in _CHOSEN:
        return _CHOSEN[name](here)
    section: type[Section] | None = StudyConfig
    for part in location:
        field = section.model_fields.get(str(part)) if section else None
        section = _named(field.annotation) if field else None
    return section


def _named(annotation: Any) -> type[Section] | None:
    """The section of a field that holds one, or nothing."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, Section)), None)


_CHOSEN: dict[str, Callable[[Any], type[Section] | None]] = {
    "data": cfg.data_model,
    "validation": cfg.validation_model,
    "sampler": lambda raw: SAMPLERS.get(raw["name"]),
    "pruner": lambda raw: PRUNERS.get(raw["name"]),
}
