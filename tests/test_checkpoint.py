"""Checkpoints: whole or not there, refused when damaged, bounded in number."""

import contextlib
import hashlib
import json
import resource
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from safetensors.torch import save

from hpo.training.checkpoint import Checkpoints
from hpo.training.lane import LaneKey, LaneState


def states(*numbers: int, epoch: int, folds: int = 2) -> dict[int, dict[LaneKey, LaneState]]:
    return {
        number: {
            LaneKey(number, fold, seed=7): LaneState(
                epoch,
                {
                    "parameters.0.weight": torch.full((2, 3), number + fold + epoch / 10),
                    "step": torch.tensor(epoch),
                },
            )
            for fold in range(folds)
        }
        for number in numbers
    }


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c")
    saved = states(3, 4, epoch=5)
    assert checkpoints.save("worker {shape: 1}", saved)
    loaded = Checkpoints(tmp_path / "c").load(4, most=9)
    assert loaded is not None and loaded[0] == 5 and loaded[1].keys() == saved[4].keys()
    for key, state in loaded[1].items():
        assert state.epoch == 5
        assert all(torch.equal(state.tensors[name], tensor) for name, tensor in saved[4][key].tensors.items())


def test_lanes_of_one_group_may_have_different_tensors(tmp_path: Path) -> None:
    saved = states(3, 4, 5, epoch=2)
    for state in saved[3].values():
        state.tensors["optimizer.exp_avg.0.weight"] = torch.ones(2, 3)
    for state in saved[5].values():
        state.tensors["parameters.0.weight"] = torch.arange(8.0).view(4, 2).t()  # of another shape; no copy
        state.tensors["parameters.1.weight"] = torch.randn(8, 3, 3, 3).movedim(-1, -3)  # channels last
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save("w", saved)
    for number, lanes in saved.items():
        loaded = checkpoints.load(number, most=9)
        assert loaded is not None and loaded[1].keys() == lanes.keys()
        for key, state in lanes.items():
            found = loaded[1][key].tensors
            assert found.keys() == state.tensors.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in state.tensors.items())
            assert all(found[name].dtype == tensor.dtype for name, tensor in state.tensors.items())


def test_a_checkpoint_from_before_packs_is_not_used(tmp_path: Path) -> None:
    content = save({"1/0/7/parameters.0.weight": torch.ones(2, 3)})
    (tmp_path / "w.000001.safetensors").write_bytes(content)
    index = {"sha256": hashlib.sha256(content).hexdigest(), "epochs": {1: 4}}
    (tmp_path / "w.000001.json").write_text(json.dumps(index))
    with structlog.testing.capture_logs() as logs:
        assert Checkpoints(tmp_path).load(1, most=9) is None
    assert [entry["event"] for entry in logs] == ["a damaged checkpoint is not used"]
    assert logs[0]["reason"] == "it is of an earlier version of hpo"


def test_a_trial_that_was_never_saved_has_no_state(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.load(1, most=9) is None
    checkpoints.save("w", states(2, epoch=1))
    assert checkpoints.load(1, most=9) is None


def test_the_newest_state_not_beyond_what_was_recorded_is_used(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("old worker", states(1, epoch=4))
    checkpoints.save("new worker", states(1, epoch=7))
    assert [checkpoints.load(1, most)[0] for most in (9, 7, 6, 4)] == [7, 7, 4, 4]  # type: ignore[index]
    assert checkpoints.load(1, most=3) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "index"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("w", states(1, epoch=4))
    checkpoints.save("w", states(1, epoch=5))
    newest = sorted(tmp_path.glob("*.safetensors"))[-1]
    content = newest.read_bytes()
    if damage == "flip":
        newest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncate":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "remove":
        newest.unlink()
    else:
        newest.with_suffix(".json").write_text('{"sha256": ')
    loaded = checkpoints.load(1, most=9)
    assert loaded is not None and loaded[0] == 4


def test_each_group_keeps_two_generations_and_a_discarded_one_none(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in range(1, 8):
        checkpoints.save("w a", states(1, epoch=epoch))
        checkpoints.save("w b", states(2, epoch=epoch))
    assert len(list(tmp_path.iterdir())) == 8
    checkpoints.discard("w a")
    assert checkpoints.load(1, most=99) is None and checkpoints.load(2, most=99) is not None
    checkpoints.clear()
    assert not tmp_path.exists()


def test_what_dead_workers_left_goes_once_all_of_its_trials_have_finished(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for epoch in (1, 2):
        checkpoints.save("dead", states(1, 2, epoch=epoch))
    checkpoints.save("alive", states(3, epoch=1))
    asked = []

    def finished(numbers: Collection[int]) -> set[int]:
        asked.append(set(numbers))
        return ended & set(numbers)

    ended = {1}
    checkpoints.sweep(finished)
    assert asked == [{1, 2, 3}] and checkpoints.load(1, most=9) is not None
    ended = {1, 2}
    checkpoints.sweep(finished)
    assert checkpoints.load(1, most=9) is None and checkpoints.load(3, most=9) is not None
    assert len(list(tmp_path.iterdir())) == 2


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def kept(checkpoints: Checkpoints, before: list[Path], logs: list[Any]) -> None:
    assert [(entry["event"], entry["folder"]) for entry in logs] == [
        ("a checkpoint could not be written", str(checkpoints.folder))
    ]
    assert sorted(checkpoints.folder.rglob("*")) == before
    loaded = checkpoints.load(1, most=9)
    assert loaded is not None and loaded[0] == 1


def test_a_full_disk_costs_the_checkpoint_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save("w", states(1, epoch=1))
    before = sorted(tmp_path.iterdir())
    with structlog.testing.capture_logs() as logs, no_file_larger_than(500):
        assert not checkpoints.save("w", states(1, 2, 3, 4, epoch=2))
    kept(checkpoints, before, logs)
    assert logs[0]["reason"] == "File too large"
    assert checkpoints.save("w", states(1, epoch=2)), "there is room again"


def test_states_whose_index_cannot_be_written_do_not_stay(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.save("w", states(1, epoch=1))
    (index,) = tmp_path.glob("*.json")
    index.with_name(index.name.replace("000001", "000002")).mkdir()
    before = sorted(tmp_path.iterdir())
    with structlog.testing.capture_logs() as logs:
        assert not checkpoints.save("w", states(1, epoch=2))
    kept(checkpoints, before, logs[:1])
