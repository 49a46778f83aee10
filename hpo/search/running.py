"""What a worker is told, and what it holds."""

import os
import socket
import time
import traceback
import uuid
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from hpo.config import TrialSettings
from hpo.search.records import Claim
from hpo.search.training import Epoch


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works."""

    lanes: int | None = None
    """Models that train side by side; None: as many as a measurement finds to pay."""
    workers: int = 1
    """Workers that share the study's trials in flight."""
    lease: float = 30.0
    """Seconds after which a worker that does not renew its leases counts as dead."""
    retries: int = 2
    """Times that a trial is tried again after its worker died in it without a new epoch."""
    poll: float = 0.5
    """Seconds between looks for work while others hold the last trials."""
    save_every: float = 10.0
    """Seconds between checkpoints; they are taken at the end of an epoch."""


@dataclass
class RunningTrial:
    """A trial that this worker trains."""

    claim: Claim
    frozen: FrozenTrial
    settings: TrialSettings
    group: str = ""
    """Key of the group that trains it."""
    started: float = field(default_factory=time.monotonic)
    decided: int = 0
    """Pruning was decided up to this epoch by the attempt before."""
    values: dict[int, float] = field(default_factory=dict)
    """By epoch."""
    last: Epoch | None = None

    def summary(self, worker: str, folds: int) -> dict[str, object]:
        """Its attributes once it has ended."""
        attrs: dict[str, object] = {
            "worker": worker,
            "attempt": self.claim.attempt,
            "epochs": max(self.values, default=0),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        return attrs | ({"fold_spread": self.last.spread} if self.last is not None and folds > 1 else {})


@dataclass(frozen=True)
class Failure:
    """What a group raised. Its frames are let go, for they hold the group's tensors."""

    error: Exception
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """From an error that was caught."""
        text = "".join(traceback.format_exception(error)[-6:])
        traceback.clear_frames(error.__traceback__)
        return cls(error.with_traceback(None), text)

    @property
    def reason(self) -> str:
        """Type and message."""
        return f"{type(self.error).__name__}: {self.error}"


def worker_name() -> str:
    """A name that no other process has."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
