"""Learning rates follow the curves of torch.optim.lr_scheduler, by the number of the step alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from hpo.config import Hyperparameters, Schedule
from hpo.training.optimizers import Optimizers, Rows
from hpo.training.schedules import Schedules

STEPS, EPOCHS = 7, 10
TOTAL = STEPS * EPOCHS


def warmed(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LinearLR(optimizer, start_factor=0.01, total_iters=steps)


def warmed_cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    cosine = CosineAnnealingLR(optimizer, T_max=TOTAL - steps)
    return SequentialLR(optimizer, [warmed(optimizer, steps), cosine], [steps])


def one_cycle(optimizer: Optimizer, share: float) -> LRScheduler:
    return OneCycleLR(optimizer, 0.3, total_steps=TOTAL, pct_start=share, cycle_momentum=False)


CURVES: list[tuple[Schedule, float, Callable[[Optimizer], LRScheduler]]] = [
    ("constant", 2, lambda optimizer: warmed(optimizer, 2 * STEPS)),
    ("cosine", 0, lambda optimizer: CosineAnnealingLR(optimizer, T_max=TOTAL)),
    ("cosine", 3, lambda optimizer: warmed_cosine(optimizer, 3 * STEPS)),
    ("one_cycle", 0, lambda optimizer: one_cycle(optimizer, 0.3)),
    ("one_cycle", 4.5, lambda optimizer: one_cycle(optimizer, 0.45)),
]


def curve_of_torch(make: Callable[[Optimizer], LRScheduler]) -> list[float]:
    weights = torch.zeros(1, requires_grad=True)
    optimizer = SGD([weights], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    for _ in range(TOTAL - 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


def lanes(*settings: dict[str, Any]) -> list[Hyperparameters]:
    return [Hyperparameters.model_validate({"learning_rate": 0.3} | lane) for lane in settings]


def done(first: int, count: int, lanes: int) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float64)[:, None].expand(-1, lanes)


@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # of torch's own SequentialLR
def test_side_by_side_they_equal_torchs_curves() -> None:
    settings = [{"schedule": schedule, "warmup": warmup} for schedule, warmup, _ in CURVES]
    factors = Schedules(lanes(*settings), STEPS, EPOCHS).factors(done(0, TOTAL, len(CURVES)))
    assert factors is not None
    for index, (schedule, warmup, make) in enumerate(CURVES):
        expected = pytest.approx(curve_of_torch(make), rel=1e-9)
        assert (0.3 * factors[:, index]).tolist() == expected, (schedule, warmup)


def test_a_warmup_may_end_within_an_epoch() -> None:
    """LinearLR itself never gets to 1 where it ends within a step."""
    factors = Schedules(lanes({"warmup": 0.5}), STEPS, EPOCHS).factors(done(0, TOTAL, 1))
    assert factors is not None
    rising = [0.01 + 0.99 * step / 3.5 for step in range(4)]
    assert factors[:, 0].tolist() == pytest.approx([*rising, *[1.0] * (TOTAL - 4)])


def test_a_constant_rate_costs_nothing_and_is_exact_beside_others() -> None:
    assert Schedules(lanes({}, {}), STEPS, EPOCHS).factors(done(0, STEPS, 2)) is None
    factors = Schedules(lanes({}, {"schedule": "cosine"}), STEPS, EPOCHS).factors(done(0, TOTAL, 2))
    assert factors is not None
    assert (factors[:, 0] == 1).all()


def test_each_lane_is_where_its_own_steps_are() -> None:
    schedules = Schedules(lanes(*[{"schedule": "cosine", "warmup": 1}] * 2), STEPS, EPOCHS)
    whole, later = schedules.factors(done(0, TOTAL, 2)), schedules.factors(torch.tensor([[14.0, 35.0]]))
    assert whole is not None and later is not None
    assert later.tolist() == [[whole[14, 0], whole[35, 1]]]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize(("steps", "epochs", "warmup"), [(1, 1, 0), (1, 1, 0.5), (1, 2, 0.1), (3, 1, 0.99)])
def test_the_shortest_trainings_have_rates_from_0_to_1(
    schedule: str, steps: int, epochs: int, warmup: float
) -> None:
    made = Schedules(lanes({"schedule": schedule, "warmup": warmup}), steps, epochs)
    factors = made.factors(done(0, 2 * steps * epochs, 1))  # measuring lanes may go on beyond the end
    assert factors is None or ((factors >= 0) & (factors <= 1)).all()
    assert factors is None or factors.max() > 0


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop", "sgd"])
def test_optimizers_follow_them_as_torchs_do(kind: str) -> None:
    (lane,) = lanes({"optimizer": kind, "learning_rate": 0.01, "weight_decay": 0.1, "schedule": "cosine"})
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    reference = start.clone().requires_grad_()
    classes = {
        "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "sgd": SGD
    }  # fmt: skip
    optimizer = classes[kind]([reference], lr=0.01, weight_decay=0.1)
    scheduler = CosineAnnealingLR(optimizer, T_max=TOTAL)
    rows = Rows(start[None].clone(), *(torch.zeros(1, 5, dtype=torch.float64) for _ in range(3)))
    factors = Schedules([lane], STEPS, EPOCHS).factors(done(0, TOTAL, 1))
    optimizers = Optimizers([lane], [rows])
    (terms,) = optimizers.laid_out(done(1, TOTAL, 1), factors)
    for step in range(30):
        reference.grad = reference.detach().sin()
        rows.gradients.copy_(rows.weights.sin())
        optimizers.step([terms[step]])
        optimizer.step()
        scheduler.step()
    assert torch.allclose(rows.weights[0], reference.detach(), atol=1e-10)
