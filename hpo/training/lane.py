"""A lane: one model inside a cohort."""

from dataclasses import dataclass, field

from torch import Tensor

from hpo.config import TrialSettings


@dataclass(frozen=True)
class LaneKey:
    """Which lane: its random streams (initial weights, sample order, dropout) depend on this alone."""

    trial: int
    """The trial's number."""
    fold: int = 0
    """Index of the fold that it trains and validates on."""
    seed: int = 0
    """training.seed, or a fresh seed of a re-evaluation."""


@dataclass(frozen=True)
class Lane:
    """One (trial, fold, seed) and what its training depends on."""

    key: LaneKey
    settings: TrialSettings


@dataclass(frozen=True)
class EpochResult:
    """What one epoch of one lane came to."""

    epoch: int
    """Epochs trained so far, counted from 1."""
    train_loss: float
    """Mean over the epoch's steps."""
    value: float
    """The study's metric on the fold's validation part; nan when it is not defined."""


@dataclass
class LaneState:
    """All that a lane needs to go on elsewhere: its random streams are keyed, so none are saved."""

    epoch: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Parameters, buffers and optimizer slots by qualified name."""
