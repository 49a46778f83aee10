"""What a study file is made of: strict sections, and plain values that say by themselves what is wrong."""

import json
import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

Value = bool | int | float | str

LARGEST = 2**53
"""Optuna stores parameter values as double precision numbers, which are exact up to here."""


class Section(BaseModel):
    """A part of a study file: unknown keys are mistakes, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def refusal(text: str) -> PydanticCustomError:
    """What a validator raises; `text` is shown to the user, completed by the refused value."""
    return PydanticCustomError("refusal", text)


def refusals(found: list[tuple[str, object, str]]) -> ValidationError:
    """What a validator of several fields raises: key, value and text of each mistake."""
    return ValidationError.from_exception_data(
        "section",
        [InitErrorDetails(type=refusal(text), loc=(key,), input=value) for key, value, text in found],
    )


def unknown(value: object, valid: list[str], key: str | None = None) -> ValidationError:
    """What a validator raises when `value`, of the section itself or under its `key`, is none of `valid`."""
    kind = PydanticCustomError("unknown_choice", "must be one of those", {"choices": valid})
    location = () if key is None else (key,)
    return ValidationError.from_exception_data(
        "section", [InitErrorDetails(type=kind, loc=location, input=value)]
    )


def _number(raw: Any) -> Any:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise refusal("must be a number")
    if isinstance(raw, int) and abs(raw) > LARGEST:
        raise refusal(f"must be a whole number within ±{LARGEST}")
    if not math.isfinite(raw):
        raise refusal("must be a finite number")
    return raw


def _choice(raw: Any) -> Any:
    if isinstance(raw, bool | str):
        return raw
    if isinstance(raw, int | float):
        return _number(raw)
    raise refusal("must be text, a number, true or false")


def _choice_or_list(raw: Any) -> Any:
    if not isinstance(raw, list):
        return _choice(raw)
    if not raw:
        raise refusal("must not be empty")
    return [_choice(item) for item in raw]


def _whole(raw: Any) -> Any:
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)  # 1e3 is a number of trials
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise refusal("must be a whole number")
    return _number(raw)


def _plain(raw: Any) -> Any:
    try:
        json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refusal("must be made of text, finite numbers, true, false, null, lists, mappings") from error
    return raw


Number = Annotated[int | float, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
Whole = Annotated[int, BeforeValidator(_whole)]
Seed = Annotated[int, Field(ge=0, lt=2**31), BeforeValidator(_whole)]
Examples = Annotated[int, Field(ge=4), BeforeValidator(_whole)]
Choice = Annotated[bool | int | float | str, BeforeValidator(_choice)]
ChoiceOrList = Annotated[
    bool | int | float | str | list[bool | int | float | str], BeforeValidator(_choice_or_list)
]
Plain = Annotated[Any, BeforeValidator(_plain)]
"""Any value that JSON can hold."""
