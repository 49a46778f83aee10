"""Checkpoints: the states of trials on disk, so that another worker can go on with them.

A generation is a safetensors file and a JSON file with its hash, which is written last. Each group of trials
keeps two generations: a damaged one is refused by its hash, and the one before is used.

In the file, lanes whose states have tensors of the same names, shapes and types are one pack, with its lanes
(trial, fold, seed) and their tensors stacked: `pack/name` [K, ...]. Where networks are small, to write each
tensor by itself takes 3 to 4 times as long.
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hpo.training.lane import LaneKey, LaneState

log = structlog.get_logger()

KEPT = 2
"""Generations of each group."""
_LANES = "lanes"
"""Name of the lanes of a pack. int64 [K, 3]"""


@dataclass(frozen=True)
class _Generation:
    path: Path
    sha256: str
    epochs: dict[int, int]
    """Of each trial's number."""


class Checkpoints:
    """The checkpoints of one study, in a folder that its workers share.

    A full disk costs the checkpoint, not the training: it is logged, and no half-written file stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._generations = itertools.count(1)

    def save(self, group: str, states: Mapping[int, Mapping[LaneKey, LaneState]]) -> bool:
        """Write the states of a group's trials.

        Args:
            group: A name that no other group of any worker has.
            states: By trial number.

        Returns:
            Whether they were written.
        """
        content = save(_packed({key: state for lanes in states.values() for key, state in lanes.items()}))
        epochs = {number: next(iter(lanes.values())).epoch for number, lanes in states.items()}
        index = {"sha256": hashlib.sha256(content).hexdigest(), "epochs": epochs}
        stem = f"{_safe(group)}.{next(self._generations):06}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / f"{stem}.safetensors", content)
            _write(self.folder / f"{stem}.json", json.dumps(index).encode())
        except OSError as error:
            log.error("a checkpoint could not be written", folder=str(self.folder), reason=error.strerror)
            with contextlib.suppress(OSError):  # without its index nobody would ever remove it
                (self.folder / f"{stem}.safetensors").unlink(missing_ok=True)
            return False
        for old in self._of_group(group)[:-KEPT]:
            _remove(old)
        return True

    def load(self, number: int, most: int) -> tuple[int, dict[LaneKey, LaneState]] | None:
        """The newest sound state of a trial with at most `most` epochs, after its number of epochs.

        None when there is none.
        """
        found = [g for g in self._all() if number in g.epochs and g.epochs[number] <= most]
        for generation in sorted(found, key=lambda g: g.epochs[number], reverse=True):
            try:
                content = generation.path.read_bytes()
                if hashlib.sha256(content).hexdigest() != generation.sha256:
                    raise SafetensorError("its hash is wrong")
                epoch = generation.epochs[number]
                return epoch, _unpacked(load(content), number, epoch)
            except (OSError, SafetensorError) as error:
                log.warning("a damaged checkpoint is not used", file=str(generation.path), reason=str(error))
        return None

    def discard(self, group: str) -> None:
        """Remove a group's checkpoints: its trials have finished, or went elsewhere."""
        for index in self._of_group(group):
            _remove(index)

    def sweep(self, finished: Callable[[Collection[int]], Collection[int]]) -> None:
        """Remove what dead workers left and nobody needs any more: all of whose trials have finished.

        finished: answers which of these numbers are of trials that have.
        """
        generations = list(self._all())
        over = set(finished({number for generation in generations for number in generation.epochs}))
        for generation in generations:
            if generation.epochs.keys() <= over:
                _remove(generation.path.with_suffix(".json"))

    def clear(self) -> None:
        """Remove all of them: the study is searched."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _of_group(self, group: str) -> list[Path]:
        return sorted(self.folder.glob(f"{_safe(group)}.*.json"))

    def _all(self) -> Iterator[_Generation]:
        for index in self.folder.glob("*.json"):
            try:
                content = json.loads(index.read_text())
                epochs = {int(number): int(epoch) for number, epoch in content["epochs"].items()}
                yield _Generation(index.with_suffix(".safetensors"), content["sha256"], epochs)
            except FileNotFoundError:
                continue  # its worker has just replaced it
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("a damaged checkpoint is not used", file=str(index), reason=str(error))


def _packed(states: Mapping[LaneKey, LaneState]) -> dict[str, Tensor]:
    """What the file holds."""
    packs: dict[Hashable, list[LaneKey]] = {}
    for key, state in states.items():
        kind = tuple((name, tensor.shape, tensor.dtype) for name, tensor in state.tensors.items())
        packs.setdefault(kind, []).append(key)
    packed = {}
    for number, keys in enumerate(packs.values()):
        packed[f"{number}/{_LANES}"] = torch.tensor([[key.trial, key.fold, key.seed] for key in keys])
        for name in states[keys[0]].tensors:
            tensors = [states[key].tensors[name] for key in keys]
            packed[f"{number}/{name}"] = torch.stack(tensors).contiguous()  # of channels last it is not
    return packed


def _unpacked(packed: Mapping[str, Tensor], number: int, epoch: int) -> dict[LaneKey, LaneState]:
    """The states of the trial of this number.

    Raises:
        SafetensorError: the file has no packs.
    """
    states: dict[LaneKey, LaneState] = {}
    for name, tensor in packed.items():
        pack, own = name.split("/", 1)
        lanes = packed.get(f"{pack}/{_LANES}")
        if lanes is None:
            raise SafetensorError("it is of an earlier version of hpo")
        for row, lane in enumerate(lanes.tolist()):
            if lane[0] == number and own != _LANES:
                states.setdefault(LaneKey(*lane), LaneState(epoch)).tensors[own] = tensor[row]
    return states


def _safe(group: str) -> str:
    """A file name for a group."""
    readable = re.sub(r"[^A-Za-z0-9-]+", "-", group)[:60]
    return f"{readable}-{hashlib.sha256(group.encode()).hexdigest()[:12]}"


def _write(path: Path, content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the whole file or none."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)


def _remove(index: Path) -> None:
    index.unlink(missing_ok=True)
    index.with_suffix(".safetensors").unlink(missing_ok=True)
