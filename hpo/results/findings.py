"""What an audit looks at, and what it finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.data.prepared import PreparedData
from hpo.results.finalize import FinalResult

Severity = Literal["warning", "unchecked", "fine"]


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    name: str
    """Of the check."""
    severity: Severity
    """unchecked: it could not be made; the sentence says why."""
    sentence: str
    evidence: Mapping[str, Any]
    """JSON-able figures, by what they are."""
    advice: str = ""
    """What to do about it; of warnings."""


@dataclass(frozen=True)
class Subject:
    """A study as the audit sees it, finished or not."""

    config: StudyConfig
    trials: Sequence[FrozenTrial]
    """Those that were claimed, by number."""
    waiting: int
    """Trials that nobody has claimed."""
    attrs: Mapping[str, Any]
    """Of the study."""
    result: FinalResult | None
    """None before it was finalized."""
    prepared: PreparedData | None
    no_data: str = ""
    """Why there are no data."""


def fine(name: str, sentence: str, **evidence: Any) -> Finding:
    """Nothing is wrong."""
    return Finding(name, "fine", sentence, evidence)


def unchecked(name: str, sentence: str, **evidence: Any) -> Finding:
    """It cannot be told."""
    return Finding(name, "unchecked", sentence, evidence)


def warning(name: str, sentence: str, advice: str, **evidence: Any) -> Finding:
    """Something could be wrong."""
    return Finding(name, "warning", sentence, evidence, advice)


def counted(n: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"
