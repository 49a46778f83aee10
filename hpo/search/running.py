"""What a worker is told, and what it holds."""

import os
import socket
import time
import uuid
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from hpo.config import TrialSettings
from hpo.search.records import Claim
from hpo.search.training import Epoch


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works."""

    lanes: int = 128
    """Models that train side by side."""
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


def worker_name() -> str:
    """A name that no other process has."""
    return f"{socket.gethostname()[:32]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
