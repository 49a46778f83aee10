"""Random streams of a lane, keyed by what they are for: never drawn in the order of a cohort."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hpo.training.lane import Lane, LaneKey
from models.layers import dropout_words


def stream(key: LaneKey, *purpose: str | int) -> int:
    """A seed of 63 bits for one purpose of one lane, such as ("order", epoch)."""
    text = repr((key.seed, key.trial, key.fold, *purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's generators start at `seed`, and are as before afterwards."""
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.default_generator.manual_seed(seed)
        if accelerators:
            torch.cuda.manual_seed(seed)
        yield


def generators(device: torch.device) -> list[object]:
    """The states of all generators that a network may draw from, to compare."""
    words = np.random.get_state(legacy=False)
    torchs = [torch.default_generator]
    if device.type == "cuda":
        torchs.append(torch.cuda.default_generators[device.index or 0])
    states = [bytes(generator.get_state().numpy()) for generator in torchs]
    return [*states, random.getstate(), repr(words)]


def sample_order(key: LaneKey, epoch: int, rows: int, count: int) -> Tensor:
    """The first `count` of a random permutation of `rows` examples. → int64 [count]"""
    generator = torch.Generator().manual_seed(stream(key, "order", epoch))
    return torch.randperm(rows, generator=generator)[:count]


def alike(lanes: Sequence[tuple[Lane, int]]) -> int:
    """How many neighbours have the same dropout keys and rates: the folds of a trial, if all have as many.

    lanes: with the number of the epoch of each.
    """
    trials = [(lane.key.trial, lane.key.seed, lane.settings, epoch) for lane, epoch in lanes]
    count = next((at for at, trial in enumerate(trials) if trial != trials[0]), len(trials)) or 1
    return count if trials == [trial for trial in trials[::count] for _ in range(count)] else 1


def dropout_keys(lanes: Sequence[tuple[LaneKey, int]], steps: int, layers: int) -> Tensor:
    """A key for each lane and dropout layer at each step of an epoch.

    The folds of a trial have the same, so that their masks are made once (`alike`).

    lanes: with the number of the epoch of each. → int32 [steps, layers, K]
    """
    words = [stream(replace(key, fold=0), "dropout", epoch) % 2**32 - 2**31 for key, epoch in lanes]
    return dropout_words(torch.tensor(words, dtype=torch.int32), steps, layers).permute(1, 2, 0)
