"""The offline checker: compares what workers were told with what the database holds in the end."""

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState


class Violation(NamedTuple):
    """A promise that was not kept."""

    promise: str
    trial: int | None
    text: str


@dataclass(frozen=True)
class Entry:
    """A line of a worker's log."""

    kind: str
    """claim, start (of training, after `epoch`), report, finish, refused (a report), lost (a lease)."""
    worker: str
    trial: int
    attempt: int
    began: float
    """When its transaction did."""
    at: float
    """When its transaction had been answered."""
    epoch: int = 0
    value: float | None = None
    state: str = ""


class Log:
    """What one worker was told by the store: a JSON object a line, written at once."""

    def __init__(self, folder: Path) -> None:
        self.worker = f"{os.getpid()}-{time.monotonic_ns()}"
        self.attempts: dict[int, int] = {}
        """Of the trials that it claimed, by number."""
        self._file = os.open(folder / f"{self.worker}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self, kind: str, trial: int, began: float | None = None, **facts: Any) -> None:
        """Append an entry; `began` is when the transaction did."""
        at = time.monotonic()  # the same clock in all processes
        entry = {"kind": kind, "worker": self.worker, "trial": trial, "at": at, "began": began or at}
        entry |= {"attempt": self.attempts.get(trial, 1)} | facts
        os.write(self._file, f"{json.dumps(entry)}\n".encode())

    def claim(self, trial: int, attempt: int, began: float) -> None:
        """Append a claim."""
        self.attempts[trial] = attempt
        self.add("claim", trial, began)


def read_logs(folder: Path) -> list[Entry]:
    """All workers' entries, in the order of time; a line cut off by the worker's end counts for nothing."""
    lines = [line for file in folder.glob("*.log") for line in file.read_text().splitlines(keepends=True)]
    entries = [Entry(**json.loads(line)) for line in lines if line.endswith("\n")]
    return sorted(entries, key=lambda entry: entry.at)


def check(
    entries: Sequence[Entry],
    trials: Sequence[FrozenTrial],
    budget: int,
    save_every: float = math.inf,
    expected: Callable[[int, int], float] | None = None,
) -> list[Violation]:
    """Every violation of P1 to P5 and P7.

    Args:
        entries: In the order of time.
        trials: As they are in the database.
        budget: How many are to finish.
        save_every: Seconds between checkpoints.
        expected: The value to which training comes, by trial number and epoch.
    """
    stored = {trial.number: trial for trial in trials}
    by_trial: dict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_trial[entry.trial].append(entry)
    found = [*_budget(trials, budget), *_finite(trials)]
    for number, own in by_trial.items():
        if number not in stored:
            found.append(Violation("P3", number, "was claimed and is not in the database"))
            continue
        found += _ended(own, stored[number])
        found += _acknowledged(own, stored[number])
        found += _once(own)
        found += _resumed(own, save_every)
        found += _fenced(own, stored[number])
    if expected is not None:
        found += _expected(trials, entries, expected)
    return found


def _budget(trials: Sequence[FrozenTrial], budget: int) -> Iterator[Violation]:
    """P3: as many trials as were asked for finish, each under a number of its own."""
    finished = sum(trial.state.is_finished() for trial in trials)
    if finished != budget:
        yield Violation("P3", None, f"{finished} trials finished, not {budget}")
    if sorted(trial.number for trial in trials) != list(range(len(trials))):
        yield Violation("P3", None, "the trials' numbers are not 0, 1, 2, …, each once")
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            yield Violation("P1", trial.number, "is RUNNING although nobody works any more")


def _finite(trials: Sequence[FrozenTrial]) -> Iterator[Violation]:
    """P7: no value that is not a finite number."""
    for trial in trials:
        for number in (*(trial.values or ()), *trial.intermediate_values.values()):
            if not math.isfinite(number):
                yield Violation("P7", trial.number, f"has the value {number}")


def _ended(entries: Sequence[Entry], stored: FrozenTrial) -> Iterator[Violation]:
    """P1: a claimed trial ends in one state."""
    if any(entry.kind == "claim" for entry in entries) and not stored.state.is_finished():
        yield Violation("P1", stored.number, f"was claimed and is {stored.state.name} in the end")


def _acknowledged(entries: Sequence[Entry], stored: FrozenTrial) -> Iterator[Violation]:
    """P2: what was acknowledged is in the database, unchanged."""
    for entry in entries:
        if entry.kind == "report":
            there = stored.intermediate_values.get(entry.epoch)
            if there != entry.value:
                yield Violation(
                    "P2", stored.number, f"epoch {entry.epoch} was recorded as {entry.value} and is {there}"
                )
        if entry.kind == "finish":
            ended = stored.state.name, stored.values
            told = entry.state, None if entry.value is None else [entry.value]
            if ended != told:
                yield Violation("P2", stored.number, f"ended as {told} and is {ended}")


def _once(entries: Sequence[Entry]) -> Iterator[Violation]:
    """P3: nothing is done twice."""
    number = entries[0].trial
    claims = [(entry.attempt, entry.worker) for entry in entries if entry.kind == "claim"]
    for attempt in {attempt for attempt, _ in claims}:
        workers = [worker for a, worker in claims if a == attempt]
        if len(workers) > 1:
            yield Violation("P3", number, f"attempt {attempt} was claimed by {', '.join(workers)}")
    ends = {(entry.attempt, entry.worker) for entry in entries if entry.kind == "finish"}
    if len(ends) > 1:
        yield Violation("P3", number, f"was finished {len(ends)} times: {sorted(ends)}")


def _resumed(entries: Sequence[Entry], save_every: float) -> Iterator[Violation]:
    """P4: whoever goes on with a trial repeats one epoch or what was done since a checkpoint was due.

    A checkpoint is taken at the end of the epoch in which it is due.
    """
    done: dict[int, float] = {}  # epoch → the seconds that its last training took
    previous: dict[str, float] = {}  # worker → when its last epoch of this trial ended
    for entry in entries:
        if entry.kind == "start":
            repeated = [seconds for epoch, seconds in done.items() if epoch > entry.epoch]
            if len(repeated) > 1 and sum(repeated) > save_every + max(repeated):
                yield Violation(
                    "P4",
                    entry.trial,
                    f"goes on after epoch {entry.epoch} of {max(done)}: {sum(repeated):.2f} s are lost",
                )
        if entry.kind == "report":
            done[entry.epoch] = entry.at - previous[entry.worker]
        if entry.kind in {"claim", "start", "report"}:
            previous[entry.worker] = entry.at


def _fenced(entries: Sequence[Entry], stored: FrozenTrial) -> Iterator[Violation]:
    """P5: an attempt writes nothing once a later one was claimed."""
    claims = [entry for entry in entries if entry.kind == "claim"]
    for entry in entries:
        if entry.kind not in {"report", "finish"}:
            continue
        later = [
            claim.attempt for claim in claims if claim.attempt > entry.attempt and claim.at < entry.began
        ]
        if later:
            yield Violation(
                "P5", stored.number, f"attempt {entry.attempt} wrote its {entry.kind} after {later[0]} began"
            )
    last = max((claim.attempt for claim in claims), default=0)
    ended_by = stored.user_attrs.get("attempt", last)
    if ended_by < last:
        yield Violation("P5", stored.number, f"was ended by attempt {ended_by} although {last} was claimed")


def _expected(
    trials: Sequence[FrozenTrial], entries: Sequence[Entry], expected: Callable[[int, int], float]
) -> Iterator[Violation]:
    """P2 and P5: what is stored is what training came to, and not what was refused."""
    refused = {(entry.trial, entry.epoch, entry.value) for entry in entries if entry.kind == "refused"}
    for trial in trials:
        for epoch, there in trial.intermediate_values.items():
            if there != expected(trial.number, epoch):
                promise = "P5" if (trial.number, epoch, there) in refused else "P2"
                yield Violation(
                    promise,
                    trial.number,
                    f"epoch {epoch} has {there}, where training came to {expected(trial.number, epoch)}",
                )
