"""What goes into the store and comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState


@dataclass(frozen=True)
class StudyRecord:
    """A study as stored."""

    study_id: int
    name: str
    direction: StudyDirection
    attrs: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A trial that this worker may train."""

    trial_id: int
    number: int
    attempt: int
    alone: bool
    """It died together with others: train it by itself, so that only the guilty one fails."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Parameters that it was enqueued with, which no sampler draws."""


@dataclass(frozen=True)
class Finish:
    """A trial's end; `value` is None for a failed one and for one pruned before its first report."""

    trial_id: int
    state: TrialState
    value: float | None = None


@dataclass
class Changes:
    """What a worker wants recorded, in one transaction."""

    params: list[tuple[int, str, float, BaseDistribution]] = field(default_factory=list)
    """Trial, name, internal value, distribution."""
    steps: list[tuple[int, int, float]] = field(default_factory=list)
    """Trial, epoch, value."""
    user_attrs: list[tuple[int, str, Any]] = field(default_factory=list)
    system_attrs: list[tuple[int, str, Any]] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    releases: list[int] = field(default_factory=list)
    """Trials to hand back: they wait again."""

    def __bool__(self) -> bool:
        return any(
            (self.params, self.steps, self.user_attrs, self.system_attrs, self.finishes, self.releases)
        )


@dataclass(frozen=True)
class Lease:
    """A running trial's lease as seen once."""

    trial_id: int
    attempt: int
    worker: str
    renewed: float
    seconds: float
    """How long its worker may leave it unrenewed."""


class Sign(NamedTuple):
    """A worker's newest sign of life."""

    worker: str
    renewed: float
    """When it renewed one of its leases last, by the database's clock."""
    seconds: float
    """How long it may leave them unrenewed."""


@dataclass(frozen=True)
class Holder:
    """A worker that holds trials of a study."""

    name: str
    trials: int
    silent_seconds: float
    """Since it last renewed a lease."""
