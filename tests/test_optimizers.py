"""Per-lane updates of stacked tensors equal torch.optim's."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hpo.config import Hyperparameters
from hpo.training.optimizers import ORDER, Optimizers, Rows

STEPS = 50
PARAMETERS = 40

LANES = [
    {"optimizer": "adam", "learning_rate": 1e-2},
    {"optimizer": "adam", "learning_rate": 3e-3, "weight_decay": 0.1},
    {"optimizer": "adamw", "learning_rate": 1e-2, "weight_decay": 0.2},
    {"optimizer": "adamw", "learning_rate": 1e-3},
    {"optimizer": "rmsprop", "learning_rate": 1e-3},
    {"optimizer": "rmsprop", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 0.05},
    {"optimizer": "sgd", "learning_rate": 5e-2},
    {"optimizer": "sgd", "learning_rate": 5e-2, "momentum": 0.8},
    {"optimizer": "sgd", "learning_rate": 5e-2, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True},
    {"optimizer": "sgd", "learning_rate": 5e-2, "nesterov": True},
]


def of_torch(lane: Hyperparameters, weights: Tensor) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": lane.learning_rate, "weight_decay": lane.weight_decay, "foreach": False}
    if lane.optimizer == "adam":
        return torch.optim.Adam([weights], **common)
    if lane.optimizer == "adamw":
        return torch.optim.AdamW([weights], **common)
    if lane.optimizer == "rmsprop":
        return torch.optim.RMSprop([weights], momentum=lane.momentum, **common)
    # torch refuses nesterov without momentum, where it would change nothing.
    nesterov = lane.nesterov and lane.momentum > 0
    return torch.optim.SGD([weights], momentum=lane.momentum, nesterov=nesterov, **common)


def gradient(weights: Tensor, step: int) -> Tensor:
    """Of a bumpy bowl; it depends on the weights, so that differences would grow."""
    return weights + torch.sin(5 * weights + step)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_side_by_side_they_equal_torch_over_50_steps(dtype: torch.dtype, tolerance: float) -> None:
    lanes = [Hyperparameters.model_validate(lane) for lane in LANES]
    start = torch.randn(len(lanes), PARAMETERS, dtype=dtype, generator=torch.Generator().manual_seed(0))
    rows = Rows(start.clone(), *(torch.zeros_like(start) for _ in range(3)))
    columns = slice(0, 25), slice(25, PARAMETERS)
    optimizers = Optimizers(lanes, [Rows(*(each[:, at] for each in vars(rows).values())) for at in columns])
    numbers = torch.arange(1, STEPS + 1, dtype=torch.float64)[:, None].expand(-1, len(lanes))
    terms = optimizers.laid_out(numbers)
    references = [row.clone() for row in start]
    torch_optimizers = [of_torch(lane, row) for lane, row in zip(lanes, references, strict=True)]
    for step in range(1, STEPS + 1):
        rows.gradients.copy_(gradient(rows.weights, step))
        optimizers.step([own[step - 1] for own in terms])
        for row, optimizer in zip(references, torch_optimizers, strict=True):
            row.grad = gradient(row, step)
            optimizer.step()
    for lane, row, reference in zip(lanes, rows.weights, references, strict=True):
        assert torch.allclose(row, reference, rtol=tolerance, atol=tolerance), lane
        assert not torch.allclose(row, start[0], atol=1e-3), "it did not move"


def test_lanes_at_different_steps_have_their_own_bias_correction() -> None:
    lanes = [Hyperparameters(optimizer="adam"), Hyperparameters(optimizer="adam")]
    rows = Rows(torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    optimizers = Optimizers(lanes, [rows])
    (terms,) = optimizers.laid_out(torch.tensor([[1.0, 100.0]], dtype=torch.float64))
    optimizers.step([terms[0]])
    assert torch.allclose(rows.weights[0], torch.tensor(-1e-3))
    correction = (1 - 0.999**100) ** 0.5 / (1 - 0.9**100)
    assert torch.allclose(rows.weights[1], torch.tensor(-1e-3 * 0.1 / 0.001**0.5 * correction))


def test_unsorted_lanes_are_refused() -> None:
    lanes = [Hyperparameters(optimizer="sgd"), Hyperparameters(optimizer="adam")]
    with pytest.raises(ValueError, match=f"sorted by optimizer, in the order {', '.join(ORDER)}"):
        Optimizers(lanes, [Rows(*(torch.zeros(2, 3) for _ in range(4)))])
