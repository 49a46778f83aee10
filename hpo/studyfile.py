"""Reading a study file: YAML to `StudyConfig`, with every mistake in one message."""

import difflib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import models
from hpo.config import Hyperparameters, StudyConfig
from hpo.consistency import inconsistencies
from hpo.draft import drafted
from hpo.errors import MISSING, Mistake, StudyFileError
from hpo.mistakes import mistake
from hpo.options import resolved
from hpo.yamltext import YamlError, read_yaml

_LARGEST_FILE = 256 * 1024
"""Bytes. Ours have about 1,000; a larger file is some other file, and would take seconds to parse."""


def load_study(path: Path) -> StudyConfig:
    """Read and check the study file at `path`.

    Raises:
        StudyFileError: the file is missing, is not YAML, or has mistakes: all of them are listed.
    """
    text = _text(path)
    try:
        raw = read_yaml(text)
    except YamlError as error:
        raise StudyFileError(str(path), [Mistake(error.where or "file", MISSING, error.problem)]) from error
    if raw is None:
        raise _unreadable(path, f"is empty; it needs at least {_required()}")
    return parse_study(raw, str(path), path.parent)


def parse_study(raw: Any, source: str, folder: Path) -> StudyConfig:
    """Check `raw`, the content of `source`, whose paths are relative to `folder`.

    Raises:
        StudyFileError: it has mistakes: all of them are listed.
    """
    if not isinstance(raw, dict):
        text = f"must be a mapping with at least the keys {_required()}"
        raise StudyFileError(source, [Mistake("file", raw, text)])
    errors: list[Any] = []
    try:
        config = StudyConfig.model_validate(raw).at(folder)
    except ValidationError as error:
        errors = list(error.errors())
    mistakes = [mistake(raw, error) for error in errors]
    mistakes += inconsistencies(drafted(raw, _broken(errors), folder))
    if mistakes:
        raise StudyFileError(source, mistakes)
    return resolved(config)


def _broken(errors: list[Any]) -> frozenset[str]:
    """Sections with mistakes, and parameters with mistakes."""
    sections = {str(error["loc"][0]) for error in errors}
    parameters = {
        f"search.{error['loc'][1]}" for error in errors if error["loc"][0] == "search" and error["loc"][1:]
    }
    return frozenset(sections | parameters)


def _required() -> str:
    names = [name for name, field in StudyConfig.model_fields.items() if field.is_required()]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _text(path: Path) -> str:
    """The text of the file at `path`, if it can be a study file at all."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise _unreadable(path, f"is no study file: it has {size} bytes")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise _unreadable(path, f"there is no such file{_neighbours(path)}") from error
    except IsADirectoryError as error:
        raise _unreadable(path, f"is a folder{_neighbours(path / 'study.yaml')}") from error
    except UnicodeDecodeError as error:
        raise _unreadable(
            path, f"is no text in UTF-8: byte {error.start} is {error.object[error.start]:#04x}"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _unreadable(path: Path, reason: str) -> StudyFileError:
    return StudyFileError(str(path), [Mistake("file", MISSING, reason)])


def _neighbours(path: Path) -> str:
    """The study files in the folder of `path`, or the nearest folder above that exists: what was meant?"""
    folder = path.parent
    if not folder.is_dir():
        return f", nor a folder {folder}"
    names = sorted(file.name for file in folder.iterdir() if file.suffix in {".yaml", ".yml"})
    near = difflib.get_close_matches(path.name, names, n=1) or [
        name for name in names if Path(name).stem == path.stem
    ]
    if near:
        return f"; did you mean {str(folder / near[0])!r}?"
    return f"; {folder} has {', '.join(names[:10])}" if names else f"; {folder} has no study file (*.yaml)"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a study file, for editors that complete and check it."""
    schema = StudyConfig.model_json_schema()
    properties = schema["properties"]
    properties["architecture"] |= {
        "anyOf": [{"enum": list(models.ARCHITECTURES)}, {"pattern": r"\.py:[A-Za-z_][A-Za-z0-9_]*$"}]
    }
    search = properties["search"]
    fields = {name: field.description for name, field in Hyperparameters.model_fields.items()}
    fields["dropout"] = "Share of the activations that are set to 0 in training."
    search["properties"] = {
        name: {"description": description} | search["additionalProperties"]
        for name, description in fields.items()
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
