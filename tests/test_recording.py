"""Steps that are recorded as CUDA graphs come to what they come to otherwise."""

import pytest
import torch
from structlog.testing import capture_logs
from test_cohort import Bench, assert_close, curves, lane

from hpo.errors import Interrupted
from hpo.training.program import Program

NETWORKS = ["mlp", "user_networks.py:cnn", "user_networks.py:resnet", "user_networks.py:tracking"]
UNRECORDED = {
    "user_networks.py:functional": "it draws random numbers of its own",
    "user_networks.py:branching": "synchronizing",
}
AUGMENTED = {"user_networks.py:cnn": {"shift": 0.1, "cutout": 0.3, "schedule": "cosine", "ema_decay": 0.9}}

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def programs(bench: Bench) -> list[Program]:
    return list(bench.architecture.programs.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_that_count_on_the_device_equal_those_that_python_counts(name: str) -> None:
    """On a CPU nothing is recorded, but a step reads what it would then."""
    bench = Bench(name, **AUGMENTED.get(name, {}))
    lanes = [lane(number) for number in range(5)]
    expected = curves(bench.cohort(lanes), 4)
    for program in programs(bench):
        program.recorded = True
    cohort = bench.cohort(lanes[:4])
    found = curves(cohort, 2)
    cohort.drop([lanes[1].key])
    cohort.add(lanes[4:])
    for key, results in curves(cohort, 2).items():
        found.setdefault(key, []).extend(results)
    for key, results in found.items():
        assert_close(results, expected[key][: len(results)], 1e-12)


@needs_cuda
@pytest.mark.parametrize("name", [*NETWORKS, *UNRECORDED])
def test_on_a_gpu_lanes_equal_those_on_a_cpu_recorded_or_not(name: str) -> None:
    options = AUGMENTED.get(name, {})
    bench, gpu = Bench(name, **options), Bench(name, device="cuda", **options)
    lanes = [lane(number) for number in range(12)]
    expected = curves(bench.cohort(lanes), 5)
    with capture_logs() as logs:
        cohort = gpu.cohort(lanes[:10])
    reasons = [entry["reason"] for entry in logs if "not recorded" in entry["event"]]
    # The functional one draws nothing where its rate is 0.
    assert all(program.recorded for program in programs(gpu)) == (name not in UNRECORDED)
    assert all(UNRECORDED[name] in reason for reason in reasons) and bool(reasons) == (name in UNRECORDED)
    found = curves(cohort, 3)
    cohort.drop([lanes[1].key, lanes[6].key])
    cohort.add(lanes[10:])
    for key, results in curves(cohort, 2).items():
        found.setdefault(key, []).extend(results)
    if name != "user_networks.py:functional":  # its draws are the device's
        for key, results in found.items():
            assert_close(results, expected[key][: len(results)], 1e-8)


@needs_cuda
def test_a_recorded_epoch_stops_where_it_is_told_to() -> None:
    bench = Bench(device="cuda")
    cohort = bench.cohort([lane(0), lane(1)])
    steps = iter([False, False, False, True])
    with pytest.raises(Interrupted, match="2 lanes stopped before step 4 of 4"):
        cohort.train_epoch(lambda: next(steps))


@needs_cuda
def test_recorded_steps_share_memory_however_often_lanes_come_and_go() -> None:
    bench = Bench("user_networks.py:wide", torch.float32, device="cuda")
    cohort = bench.cohort([lane(number) for number in range(8)])
    taken = []
    for number in range(8, 20):
        cohort.train_epoch()
        cohort.drop([cohort.keys[0]])
        cohort.add([lane(number)])
        taken.append(torch.cuda.memory_reserved())
    assert taken[-1] <= 1.2 * taken[2]
