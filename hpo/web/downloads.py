"""A study's trials as CSV."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from typing import Any

from optuna.trial import FrozenTrial

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def trials_csv(
    trials: Sequence[FrozenTrial], objectives: Sequence[str], numbers: Collection[int] | None
) -> str:
    """A row for each trial, of those with these numbers or of all."""
    chosen = [trial for trial in trials if numbers is None or trial.number in numbers]
    params = sorted({name for trial in chosen for name in trial.params})
    attrs = sorted({name for trial in chosen for name in trial.user_attrs})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = [
        "Number",
        "State",
        *objectives,
        *(f"Param {n}" for n in params),
        *(f"UserAttribute {n}" for n in attrs),
    ]
    writer.writerow(map(_cell, head))
    for trial in chosen:
        values = trial.values or [None] * len(objectives)
        row = [trial.number, trial.state.name, *values]
        row += [trial.params.get(name) for name in params] + [trial.user_attrs.get(name) for name in attrs]
        writer.writerow(map(_cell, row))
    return file.getvalue()


def _cell(value: Any) -> Any:
    """A spreadsheet takes text that begins so for a formula, and runs it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def file_name(study: str) -> str:
    """A file's name, of a study's, for a header."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', study).strip('-.') or 'study'}.csv"
