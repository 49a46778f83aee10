"""The time that one forward pass takes here and now."""

import itertools
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

BATCHES = (1, 256)
BUDGET = 20.0
"""Seconds of measuring, where that allows `FEWEST` rounds."""
FEWEST, MOST = 5, 50
"""Rounds, in each of which every model has its turn."""
SHORTEST = 0.005
"""Seconds of a measurement: of passes that take less, several are measured together."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a forward pass of one batch."""

    median: float
    low: float
    """The lower quartile of `rounds` measurements."""
    high: float
    """The upper quartile."""
    rounds: int


@dataclass(frozen=True)
class Hardware:
    """What was measured on."""

    device: str
    threads: int | None
    """Of torch; None on a GPU."""
    torch_version: str

    @classmethod
    def of(cls, device: torch.device) -> "Hardware":
        if device.type == "cuda":
            return cls(torch.cuda.get_device_name(device), None, torch.__version__)
        return cls(_processor(), torch.get_num_threads(), torch.__version__)


@torch.no_grad()
def latencies(
    modules: Sequence[nn.Module], input_shape: Sequence[int], device: torch.device
) -> list[dict[int, Latency]]:
    """For each module, by batch size, the time of a forward pass in float32 on data that are on the device.

    All are measured in this process by turns, so that what else the machine does falls on all of them.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = {n: torch.randn(n, *input_shape, generator=generator).to(device) for n in BATCHES}
    turns = list(itertools.product(range(len(modules)), BATCHES))
    placed = [module.to(device).eval() for module in modules]
    passes = {(index, n): _passes(placed[index], inputs[n]) for index, n in turns}
    seconds: dict[tuple[int, int], list[float]] = {turn: [] for turn in turns}
    began = time.monotonic()
    for done in range(MOST):
        if done >= FEWEST and time.monotonic() - began > BUDGET:
            break
        for index, n in turns:
            seconds[index, n].append(_seconds(placed[index], inputs[n], passes[index, n]))
    return [{n: _summary(seconds[index, n]) for n in BATCHES} for index in range(len(modules))]


def _passes(module: nn.Module, batch: Tensor) -> int:
    """How many passes take at least `SHORTEST`; the first ones, which also load kernels, warm up."""
    for _ in range(2):
        _seconds(module, batch, 1)
    return math.ceil(SHORTEST / max(_seconds(module, batch, 3), 1e-7))


def _seconds(module: nn.Module, batch: Tensor, passes: int) -> float:
    """Of one pass."""
    _wait(batch.device)
    began = time.perf_counter()
    for _ in range(passes):
        module(batch)
    _wait(batch.device)
    return (time.perf_counter() - began) / passes


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(seconds: Sequence[float]) -> Latency:
    low, median, high = (1000 * float(value) for value in np.percentile(seconds, [25, 50, 75]))
    return Latency(median, low, high, len(seconds))


def _processor() -> str:
    """The CPU's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not on Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
