"""Memory of a training process: how much there is, that it ran out, and keeping what was freed."""

import ctypes
import resource
import sys
from pathlib import Path

import torch

_CPU = torch.device("cpu")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed for the next step, instead of returning it to the system.

    A step frees and allocates the same tensors again, and the kernel clears every page anew: with 64 lanes
    at batch 128 that was 1,776 page faults a step, and steps take a third less time without (340 against
    214 µs a lane, medians of 15 epochs of the MLP in benchmarks/cohort.py). For the process
    as a whole, so it is the caller's to decide. Returns whether this system's malloc knows these settings.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all([mallopt(_TRIM_THRESHOLD, _NEVER), mallopt(_MMAP_THRESHOLD, _NEVER)])


def give_back_freed_memory() -> None:
    """What `keep_freed_memory` kept so far: where memory ran out, others need it (a thread's stack, say)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or here."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def used_memory(device: torch.device = _CPU) -> int:
    """Bytes that this process has taken: of the device's memory, or as its data segment."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def free_memory(device: torch.device = _CPU) -> int:
    """Bytes that this process may still take: of the device, or of the machine, its cgroup, its limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    found = [_machine(), _cgroup(), _limit()]
    return min(number for number in found if number is not None)


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**32  # not Linux: a modest machine's


def _cgroup() -> int | None:
    """cgroup v2, then v1."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = (Path("/sys/fs/cgroup") / most).read_text().strip()
            if limit != "max":
                return int(limit) - int((Path("/sys/fs/cgroup") / used).read_text())
        except OSError:
            continue
    return None


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return None if soft == resource.RLIM_INFINITY else soft - used_memory()
