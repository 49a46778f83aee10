"""Steps recorded as CUDA graphs: replayed without Python, and without launching their kernels one by one.

A small network's step is a hundred kernels of microseconds each, which Python takes longer to launch than the
GPU to run; and a kernel of one lane fills a part of the GPU. So a step of all lanes is recorded once, its
lanes on streams of their own, and then replayed with what it reads changed in place.
"""

import gc
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

BRANCHES = 8
"""Streams that lanes are spread over: more take more memory, for none reuses what another has freed."""
_AHEAD = 4
"""Steps that are sent to the GPU before one has ended: a worker is to hear soon that it must stop."""


def of_step(tensor: Tensor, step: int | Tensor) -> Tensor:
    """[S, ...] → [...]. A step's number that lies on the device, [1], is not waited for."""
    return tensor[step] if isinstance(step, int) else tensor.index_select(0, step).squeeze(0)


def record(step: Callable[[], None], device: torch.device, shared: bool = True) -> Callable[[], None]:
    """What does the same as `step`, again and again, on tensors of the same places. On a CPU, `step` itself.

    `step` is to have run before, by `run_aside`. It is not run here, only what it launches is kept.

    shared: in the memory of all recorded steps. Memory that is not is lost where `step` cannot be recorded.

    Raises:
        RuntimeError: it waits for the device (`.item()`, say) or copies from memory that is not pinned.
    """
    if device.type != "cuda":
        return step
    graph = torch.cuda.CUDAGraph()
    pool = {"pool": _pool(device)} if shared else {}
    with _aside(device), _garbage_kept():
        # Other threads of this process may do what they like meanwhile.
        graph.capture_begin(**pool, capture_error_mode="thread_local")
        try:
            step()
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    return graph.replay


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """A recorded step that is collected while another is recorded ends that."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run_aside(step: Callable[[], None], device: torch.device) -> None:
    """Run `step` where it is going to be recorded: libraries set up what they need for each stream."""
    with _aside(device):
        step()


@contextmanager
def unsynchronized(device: torch.device) -> Iterator[None]:
    """Within this, what waits for a GPU raises a RuntimeError: after a recording that failed, torch 2.11 does
    not record into the same memory again."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the mode may change, and finds most of it only
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


@contextmanager
def side_by_side(
    device: torch.device, lanes: int
) -> Iterator[Callable[[int], AbstractContextManager[object]]]:
    """Within this, what is launched within `aside(lane)` runs beside that of other lanes, on a GPU."""
    if device.type != "cuda" or lanes == 1:
        yield lambda lane: nullcontext()  # noqa: ARG005
        return
    branches = [stream for stream, _ in zip(_branches(device), range(lanes), strict=False)]
    here = torch.cuda.current_stream(device)
    for branch in branches:
        branch.wait_stream(here)
    try:
        yield lambda lane: torch.cuda.stream(branches[lane % len(branches)])
    finally:
        for branch in branches:
            here.wait_stream(branch)


class Recorder:
    """The steps of a stack that trains the same lanes: the first as it is, the others recorded."""

    def __init__(self, step: Callable[[Tensor], None], device: torch.device) -> None:
        """step: is given its number, counted from 0, on the device: int64 [1]."""
        self._step = step
        self._device = device
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._ran = False
        self._replay: Callable[[], None] | None = None
        self._sent: deque[torch.cuda.Event] = deque()

    def begin(self) -> None:
        """An epoch begins."""
        self._number.zero_()

    def __call__(self) -> None:
        """The next step."""
        if self._replay is None and not self._ran:
            run_aside(self._once, self._device)
            self._ran = True
            return
        if self._replay is None:
            self._replay = record(self._once, self._device)
        self._replay()
        self._wait()

    def _once(self) -> None:
        self._step(self._number)
        self._number.add_(1)

    def _wait(self) -> None:
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._sent.append(event)
        if len(self._sent) > _AHEAD:
            self._sent.popleft().synchronize()


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On a stream that is not the default one, which cannot be recorded."""
    if device.type != "cuda":
        yield
        return
    aside, here = _stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(here)
    try:
        with torch.cuda.stream(aside):
            yield
    finally:
        here.wait_stream(aside)


@lru_cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@lru_cache
def _branches(device: torch.device) -> tuple[torch.cuda.Stream, ...]:
    return tuple(torch.cuda.Stream(device) for _ in range(BRANCHES))  # type: ignore[no-untyped-call]


def _pool(device: torch.device) -> Any:
    """The memory of all recorded steps. They never run at the same time, and keep nothing in it."""
    return _first_graph(device).pool()


@lru_cache
def _first_graph(device: torch.device) -> torch.cuda.CUDAGraph:
    """It holds the pool: torch refuses one whose graphs are all gone."""
    graph, number = torch.cuda.CUDAGraph(), torch.zeros(1, device=device)
    with _aside(device):
        graph.capture_begin(capture_error_mode="thread_local")
        number.add_(1)
        graph.capture_end()
    return graph
