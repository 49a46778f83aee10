"""Worker processes that are killed and replaced.

They are forked from a server that has imported everything, so that they start in milliseconds.
"""

import multiprocessing
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from hpo.search.running import WorkerOptions


@dataclass(frozen=True)
class Plan:
    """How a worker works, and what will happen to it."""

    url: str
    study: str
    folder: Path
    """For logs, checkpoints and output."""
    lanes: int = 4
    lease: float = 1.0
    retries: int = 1000
    epoch: float = 0.02
    """Seconds that the stand-in trains for an epoch."""
    save_every: float = 0.1
    share: int = 0
    """Trials of one process of stock Optuna."""
    lost_answers: float = 0.0
    """Share of the transactions whose COMMIT is not answered, so that they are repeated."""
    end_at: str = ""
    """The kill point at which the process ends itself."""
    poison: Collection[int] = ()
    """Trials that end the process in their second epoch."""
    breaks: bool = False
    """Whether some trials raise, and some come to a value that is not a number."""

    @property
    def options(self) -> WorkerOptions:
        """For the worker."""
        return WorkerOptions(
            lanes=self.lanes, lease=self.lease, retries=self.retries, save_every=self.save_every, poll=0.05
        )


class Crew:
    """Processes at work; those that die are replaced. A context manager that leaves none behind."""

    def __init__(
        self,
        plan: Plan,
        count: int,
        target: Callable[..., None],
        *arguments: Any,
        ends: Sequence[str] = (),
    ) -> None:
        """
        Args:
            plan: How each of them works.
            count: How many.
            target: What each of them runs, with the plan.
            arguments: For the target.
            ends: Kill points for the first processes; those that come after them live on.
        """
        self.plan = plan
        self.ends = list(ends)
        self.target = target
        self.arguments = arguments
        self.count = count
        self.codes: list[int] = []
        """Exit codes of those that ended otherwise than well."""
        self.processes: list[BaseProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["pytest", "faults", "hpo.search.launch"])

    def __enter__(self) -> "Crew":
        for _ in range(self.count):
            self._start()
        return self

    def _start(self) -> None:
        plan = replace(self.plan, end_at=self.ends.pop()) if self.ends else self.plan
        process = self._context.Process(target=self.target, args=(plan, *self.arguments), daemon=True)
        process.start()
        self.processes.append(process)

    def tend(self) -> bool:
        """Replace the dead; answers whether any is at work."""
        for process in [process for process in self.processes if process.exitcode is not None]:
            self.processes.remove(process)
            if process.exitcode:
                self.codes.append(process.exitcode)
                self._start()
        return bool(self.processes)

    def until_done(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Tend them until all have ended well."""
        deadline = time.monotonic() + seconds
        while self.tend():
            if time.monotonic() > deadline:
                raise AssertionError(f"not done after {seconds} s; {self.codes}\n{self.output()[-4000:]}")
            meanwhile()
            time.sleep(0.02)

    def terminate(self) -> None:
        """Tell all to stop."""
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        """Kill any one of them."""
        alive = [process for process in self.processes if process.exitcode is None]
        if alive:
            random.choice(alive).kill()

    def output(self) -> str:
        """What they printed."""
        file = self.plan.folder / "output.txt"
        return file.read_text() if file.exists() else ""

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
            process.close()


class Every:
    """Does something at random moments, on average some seconds apart, as often as it is asked."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.seconds = seconds
        self.act = act
        self.times = 0
        self._next = time.monotonic() + seconds

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + random.uniform(0.2, 1.8) * self.seconds
            self.act()
            self.times += 1
