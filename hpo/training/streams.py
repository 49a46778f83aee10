"""Random streams of a lane, keyed by what they are for: never drawn in the order of a cohort."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hpo.training.lane import LaneKey
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


def sample_order(key: LaneKey, epoch: int, rows: int, count: int) -> Tensor:
    """The first `count` of a random permutation of `rows` examples. → int64 [count]"""
    generator = torch.Generator().manual_seed(stream(key, "order", epoch))
    return torch.randperm(rows, generator=generator)[:count]


def dropout_keys(lanes: Sequence[tuple[LaneKey, int]], steps: int, layers: int) -> Tensor:
    """A key for each lane and dropout layer at each step of an epoch.

    lanes: with the number of the epoch of each. → int32 [steps, layers, K]
    """
    words = [stream(key, "dropout", epoch) % 2**32 - 2**31 for key, epoch in lanes]
    return dropout_words(torch.tensor(words, dtype=torch.int32), steps, layers).permute(1, 2, 0)
