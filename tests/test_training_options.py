"""With every option of training, a lane's results are its own: fused, alone, joining, leaving, resumed."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_choice import WAYS, choose
from test_cohort import NETWORKS, Bench, assert_close, assert_same_state, curves, lane, prefer

from hpo.training.chain import Chain
from hpo.training.cohort import Cohort
from hpo.training.lane import Lane
from hpo.training.program import Fused, losses
from hpo.training.scores import score

OPTIONS: list[dict[str, Any]] = [
    {"schedule": "cosine", "warmup": 0.5, "ema_decay": 0.9, "shift": 0.2, "rotation": 30.0},
    {"label_smoothing": 0.1, "schedule": "one_cycle", "cutout": 0.5},
    {},
    {"label_smoothing": 0.3, "ema_decay": 0.99, "scale": 0.3, "horizontal_flip": True, "warmup": 1.5},
    {"shift": 0.1, "cutout": 0.3, "ema_decay": 0.5},
]
PROGRAMS = {
    "user_networks.py:cnn": Fused,
    "user_networks.py:resnet": Fused,
    "user_networks.py:viewing": Fused,
    "mlp": Chain,
}


@pytest.fixture(autouse=True)
def fused_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, lambda program: isinstance(program, Fused))


def equipped(number: int) -> Lane:
    found = lane(number)
    update = OPTIONS[number % len(OPTIONS)]
    hyperparameters = found.settings.hyperparameters.model_copy(update=update)
    return Lane(found.key, type(found.settings)(hyperparameters, found.settings.options))


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLP that reads images: as a chain."""
    monkeypatch.setitem(NETWORKS, "mlp", (1, 5, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_lanes_equal_themselves_alone(name: str) -> None:
    bench = Bench(name)
    lanes = [equipped(number) for number in range(8)]
    cohort = bench.cohort(lanes)
    assert PROGRAMS[name] in bench.programs()
    together = curves(cohort, 3)
    predicted = cohort.predict(bench.folds[0].validation.features)
    for one in lanes:
        alone = bench.cohort([one])
        assert_close(curves(alone, 3)[one.key], together[one.key], 1e-9)
        assert_same_state(alone.state(one.key), cohort.state(one.key))
        own = predicted[cohort.keys.index(one.key)]
        assert torch.allclose(alone.predict(bench.folds[0].validation.features)[0], own, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_ways_come_to_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = [equipped(number) for number in range(5)]
    expected = Bench("user_networks.py:cnn").cohort(lanes)
    results = curves(expected, 3)
    choose(monkeypatch, way)
    bench = Bench("user_networks.py:cnn")
    cohort = bench.cohort(lanes)
    assert all(WAYS[way](program) for program in bench.architecture.programs.values())
    for key, curve in curves(cohort, 3).items():
        assert_close(curve, results[key], 1e-9)
        assert_same_state(cohort.state(key), expected.state(key))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["alone", "channels last"])
def test_in_bfloat16_lanes_one_by_one_are_equal_to_the_bit_in_whatever_company(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, way)
    bench = Bench("user_networks.py:cnn", torch.float32, precision="bfloat16")
    lanes = [equipped(number) for number in range(5)]
    together = curves(bench.cohort(lanes), 3)
    for one in lanes:
        assert curves(bench.cohort([one]), 3)[one.key] == together[one.key]


@pytest.mark.slow
def test_in_bfloat16_fused_lanes_are_near_those_alone() -> None:
    bench = Bench("user_networks.py:cnn", torch.float32, precision="bfloat16")
    lanes = [equipped(number) for number in range(5)]
    together = curves(bench.cohort(lanes), 3)
    for one in lanes:
        assert_close(curves(bench.cohort([one]), 3)[one.key], together[one.key], 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_lanes_that_join_leave_and_resume_go_on_as_if_alone(name: str) -> None:
    bench = Bench(name)
    lanes = [equipped(number) for number in range(8)]
    cohort = bench.cohort(lanes[:5])
    found = curves(cohort, 2)
    cohort.drop([lanes[1].key, lanes[3].key])
    cohort.add(lanes[5:7])
    moved = cohort.state(lanes[0].key)
    cohort.drop([lanes[0].key])
    elsewhere = bench.cohort([lanes[7], lanes[0]], {lanes[0].key: moved})
    for place in (cohort, elsewhere):
        for key, results in curves(place, 3).items():
            found.setdefault(key, []).extend(results)
    for one in lanes:
        results = found[one.key]
        alone = bench.cohort([one])
        assert_close(curves(alone, len(results))[one.key], results, 1e-9)
        place = next((place for place in (cohort, elsewhere) if one.key in place.keys), None)
        if place:
            assert_same_state(alone.state(one.key), place.state(one.key))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_losses_equal_torchs(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 8, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(0, 5, (3, 8), generator=generator)
    strengths = torch.tensor([0.0, smoothing, 0.5], dtype=torch.float64)
    found = losses("classification", outputs, targets, strengths)
    (gradient,) = torch.autograd.grad(found.sum(), outputs)
    for index, strength in enumerate(strengths.tolist()):
        expected = F.cross_entropy(outputs[index], targets[index], label_smoothing=strength)
        (own,) = torch.autograd.grad(expected, outputs)
        assert found[index].item() == pytest.approx(expected.item(), abs=1e-12)
        assert torch.allclose(gradient[index], own[index], atol=1e-12)


def test_the_validation_loss_is_not_smoothed() -> None:
    bench = Bench()
    one = equipped(1)
    cohort = bench.cohort([one])
    value = curves(cohort, 2)[one.key][-1].value
    part = bench.folds[one.key.fold].validation
    assert value == pytest.approx(
        score("loss", cohort.predict(part.features), part.targets).item(), abs=1e-12
    )


def test_a_schedule_is_as_long_as_training_epochs_however_few_are_trained() -> None:
    """`select: best_epoch` retrains the winner for fewer: that must be the beginning of what was searched."""
    bench = Bench(epochs=6)
    one = equipped(0)
    whole = bench.cohort([one])
    results = curves(whole, 6)[one.key]
    short = Cohort(bench.architecture, bench.data, bench.metric, one.settings, 2)
    short.add([one])
    assert curves(short, 2)[one.key] == results[:2]
    assert Bench(epochs=12).cohort([one]).train_epoch()[one.key] != results[0]
