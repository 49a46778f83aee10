"""Reading a study file: YAML to `StudyConfig`, with every mistake in one message."""

import difflib
import inspect
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

import models
from hpo import config as cfg
from hpo import space as sp
from hpo.config import DIRECTIONS, TASKS, Hyperparameters, StudyConfig
from hpo.errors import MISSING, Mistake, StudyFileError, UserCodeError
from hpo.usercode import is_user_function, load_function

TAGGED: dict[str, type[BaseModel]] = {
    "csv": cfg.CsvData,
    "sklearn": cfg.SklearnData,
    "file.py:load": cfg.UserData,
    "fraction": cfg.Fraction,
    "folds": cfg.Folds,
    "range": sp.Range,
    "choices": sp.Choices,
    **{m.model_fields["name"].default: m for m in (cfg.Tpe, cfg.Gp, cfg.RandomSearch, cfg.Qmc, cfg.Grid)},
    **{
        m.model_fields["name"].default: m
        for m in (cfg.Median, cfg.Asha, cfg.Hyperband, cfg.Patient, cfg.NoPruner)
    },
}
"""The tags that pydantic puts into the place of an error inside a union, and their models."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 with the numbers of YAML 1.2 (`1e-4` is one) and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def load_study(path: Path) -> StudyConfig:
    """Read and check the study file at `path`.

    Raises:
        StudyFileError: the file is missing, is not YAML, or has mistakes: all of them are listed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise StudyFileError(str(path), [Mistake("file", str(path), f"cannot be read: {reason}")]) from error
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise StudyFileError(str(path), [Mistake("file", MISSING, f"not YAML: {_flat(error)}")]) from error
    return parse_study(raw, str(path), path.parent)


def parse_study(raw: Any, source: str, folder: Path) -> StudyConfig:
    """Check `raw`, the content of `source`, whose paths are relative to `folder`.

    Raises:
        StudyFileError: it has mistakes: all of them are listed.
    """
    if not isinstance(raw, dict):
        keys = ", ".join(StudyConfig.model_fields)
        raise StudyFileError(source, [Mistake("file", MISSING, f"must be a mapping with the keys {keys}")])
    errors: list[Any] = []
    try:
        config = StudyConfig.model_validate(raw).at(folder)
    except ValidationError as error:
        errors = list(error.errors())
    mistakes = [_mistake(raw, details) for details in errors] + _cross_checks(raw, errors, folder)
    if mistakes:
        raise StudyFileError(source, mistakes)
    return config


def _flat(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{where}{getattr(error, 'problem', None) or error}"


# --- pydantic's errors in our words


def _mistake(raw: Any, details: Any) -> Mistake:
    location, kind, context = details["loc"], details["type"], details.get("ctx", {})
    key = _key(raw, location)
    if kind == "missing":
        return Mistake(key, MISSING, "missing")
    if kind == "extra_forbidden":
        valid = list(_model_at(location[:-1]).model_fields)
        return Mistake(key, MISSING, f"unknown key; {suggestion(str(location[-1]), valid)}")
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _wrong_tag(raw, location, key)
    value = details["input"]
    if kind == "literal_error":
        field = _model_at(location[:-1]).model_fields[str(location[-1])]
        return Mistake(
            key, value, suggestion(str(value), [str(choice) for choice in get_args(field.annotation)])
        )
    if kind == "value_error":
        return Mistake(key, value, str(context["error"]))
    message = details["msg"]
    return Mistake(key, value, message[0].lower() + message[1:])


def _wrong_tag(raw: Any, location: tuple[int | str, ...], key: str) -> Mistake:
    section = str(location[-1])
    value = _at(raw, location)
    if section == "data":
        source = value.get("source", MISSING) if isinstance(value, dict) else MISSING
        valid = suggestion(str(source), ["csv", "sklearn", "path/to/file.py:load"])
        return Mistake(f"{key}.source", source, valid if source is not MISSING else f"missing; {valid}")
    unions = {"sampler": ["tpe", "gp", "random", "qmc", "grid"]}
    unions["pruner"] = ["median", "asha", "hyperband", "patient", "none"]
    name = value.get("name", MISSING) if isinstance(value, dict) else value
    return Mistake(key, name, suggestion(str(name), unions[section]))


def suggestion(value: str, valid: list[str]) -> str:
    """What to write instead of `value`: the nearest of `valid` names, and all of them."""
    near = difflib.get_close_matches(value.lower(), valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(valid)}"


def _at(raw: Any, location: tuple[int | str, ...]) -> Any:
    for part in location:
        raw = raw.get(part) if isinstance(raw, dict) else raw
    return raw


def _key(raw: Any, location: tuple[int | str, ...]) -> str:
    """The place as written in the file: without the tags of unions."""
    key = ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            key += f"[{part}]"
            raw = raw[part] if isinstance(raw, list) and part < len(raw) else None
        elif isinstance(raw, dict) and part in raw:
            key += f".{part}"
            raw = raw[part]
        elif part not in TAGGED or (
            index == len(location) - 1 and index > 0 and location[index - 1] in TAGGED
        ):
            key += f".{part}"
            raw = None
    return key.removeprefix(".")


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    model: type[BaseModel] = StudyConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation if part in model.model_fields else None
        if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
            model = annotation
        elif part in TAGGED:
            model = TAGGED[str(part)]
    return model


# --- what one section says about another

_STAND_IN: dict[str, Any] = {
    "name": "x",
    "data": {"source": "sklearn", "name": "breast_cancer"},
    "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}},
}


def _cross_checks(raw: dict[Any, Any], errors: list[Any], folder: Path) -> list[Mistake]:
    """Mistakes between sections, as far as the sections concerned are valid by themselves."""
    broken = {error["loc"][0] for error in errors}
    bad_parameters = {
        error["loc"][1] for error in errors if error["loc"][0] == "search" and len(error["loc"]) > 1
    }
    sound = {
        key: value for key, value in raw.items() if key in StudyConfig.model_fields and key not in broken
    }
    if isinstance(raw.get("search"), dict):
        parameters = {key: value for key, value in raw["search"].items() if key not in bad_parameters}
        sound |= {"search": parameters} if parameters else {}
    config = StudyConfig.model_validate(_STAND_IN | sound).at(folder)
    mistakes = [*_conditions(config, bad_parameters)]
    if not broken & {"data", "metric"}:
        mistakes += _task(config)
    if "validation" not in broken and "data" not in broken:
        mistakes += _fractions(config)
    if "architecture" not in broken:
        mistakes += _names(config) if "search" in sound else []
    if not broken & {"sampler", "search", "trials"}:
        mistakes += _grid(config)
    if not broken & {"pruner", "training"}:
        mistakes += _pruner(config)
    return mistakes


def _task(config: StudyConfig) -> Iterator[Mistake]:
    wanted = TASKS[config.metric]
    inherent = "regression" if cfg.is_sklearn_regression(config.data) else None
    if isinstance(config.data, cfg.SklearnData):
        inherent = inherent or "classification"
    for task in (config.data.task, inherent):
        if wanted and task and task != wanted:
            valid = [metric for metric in DIRECTIONS if TASKS[metric] in {None, task}]
            yield Mistake(
                "metric",
                config.metric,
                f"for {wanted}, but the data are for {task}; valid: {', '.join(valid)}",
            )
            return


def _fractions(config: StudyConfig) -> Iterator[Mistake]:
    if isinstance(config.validation, cfg.Fraction):
        total = config.validation.fraction + config.data.test_fraction
        if total >= 1:
            fraction = config.validation.fraction
            yield Mistake(
                "validation.fraction",
                fraction,
                f"with data.test_fraction {config.data.test_fraction} leaves nothing to train on",
            )


def _names(config: StudyConfig) -> Iterator[Mistake]:
    """Parameters and options that neither the training nor the architecture knows; values they refuse."""
    if not is_user_function(config.architecture) and config.architecture not in models.ARCHITECTURES:
        valid = suggestion(config.architecture, [*models.ARCHITECTURES, "path/to/file.py:build"])
        yield Mistake("architecture", config.architecture, valid)
        return
    try:
        known = option_names(config)
    except UserCodeError as error:
        yield Mistake("architecture", config.architecture, str(error))
        return
    trained = list(Hyperparameters.model_fields)
    for name, parameter in config.search.items():
        if name in trained:
            yield from _refused(name, parameter)
        elif known is not None and name not in known:
            yield Mistake(
                f"search.{name}", MISSING, f"unknown parameter; {suggestion(name, [*trained, *known])}"
            )
    for name in config.options:
        if name in config.search:
            yield Mistake(f"options.{name}", config.options[name], "is searched too; write it in one place")
        elif known is not None and name not in known:
            yield Mistake(
                f"options.{name}", config.options[name], f"unknown option; {suggestion(name, known)}"
            )


def option_names(config: StudyConfig) -> list[str] | None:
    """The options that the architecture's builder names; None when it takes any.

    Raises:
        UserCodeError: the user's builder cannot be loaded, or does not take `(input_shape, classes)`.
    """
    if is_user_function(config.architecture):
        build = load_function(config.architecture, config.folder)
    else:
        build = models.builder(config.architecture)
    parameters = list(inspect.signature(build).parameters.values())
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    if len(parameters) < 2:
        raise UserCodeError(f"{config.architecture!r}: must take (input_shape, classes, **options)")
    return [parameter.name for parameter in parameters[2:]]


def _refused(name: str, parameter: sp.Range | sp.Choices) -> Iterator[Mistake]:
    for value in parameter.ends():
        try:
            Hyperparameters.model_validate({name: value})
        except ValidationError as error:
            details = error.errors()[0]
            if details["type"] == "literal_error":
                field = Hyperparameters.model_fields[name]
                text = suggestion(str(value), [str(choice) for choice in get_args(field.annotation)])
            else:
                text = details["msg"][0].lower() + details["msg"][1:]
            yield Mistake(f"search.{name}", value, text)


def _conditions(config: StudyConfig, bad: Collection[str]) -> Iterator[Mistake]:
    for name, parameter in config.search.items():
        for parent, wanted in (parameter.when or {}).items():
            key = f"search.{name}.when.{parent}"
            if parent in bad:
                continue
            if parent not in config.search or parent == name:
                others = [other for other in config.search if other != name]
                yield Mistake(key, MISSING, f"no such searched parameter; {suggestion(parent, others)}")
                continue
            values = config.search[parent].grid()
            for value in wanted if isinstance(wanted, list) else [wanted]:
                if values is not None and value not in values:
                    yield Mistake(
                        key,
                        value,
                        f"never has this value; {suggestion(str(value), [str(v) for v in values])}",
                    )
    try:
        sp.ordered(config.search)
    except ValueError as error:
        yield Mistake("search", MISSING, str(error))


def _grid(config: StudyConfig) -> Iterator[Mistake]:
    if not isinstance(config.sampler, cfg.Grid):
        return
    try:
        size = len(sp.grid(config.search))
    except ValueError as error:
        yield Mistake("sampler", "grid", str(error))
        return
    if size != config.trials:
        yield Mistake("trials", config.trials, f"the grid has {size} points; write trials: {size}")


def _pruner(config: StudyConfig) -> Iterator[Mistake]:
    least = getattr(config.pruner, "min_epochs", 1)
    if least > config.training.epochs:
        yield Mistake("pruner.min_epochs", least, f"more than training.epochs ({config.training.epochs})")
