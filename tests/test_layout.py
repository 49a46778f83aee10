"""Where tensors lie in rows: gradients of large matrices by themselves, in the order of the parameters."""

import pytest
import torch
from torch import nn

from hpo.training.layout import LARGE, MANY, Layout

NETWORK = nn.Sequential(nn.Linear(7, 64), nn.Linear(64, 64), nn.Linear(64, 3))


@pytest.mark.parametrize(("lanes", "parts_expected"), [(1, 1), (MANY - 1, 1), (MANY, 2), (65, 2)])
def test_gradients_have_the_columns_of_their_parameters(lanes: int, parts_expected: int) -> None:
    layout = Layout(NETWORK)
    weights = torch.arange(lanes * len(layout.row(NETWORK)["weights"]), dtype=torch.float64).view(lanes, -1)
    gradients, parts = layout.gradients(weights)
    assert len(parts) == parts_expected
    for name, parameter in layout.parameters(weights).items():
        assert gradients[name].shape == parameter.shape
        gradients[name].copy_(parameter)
    assert torch.equal(torch.cat([part for _, part in parts], 1), weights)
    for columns, part in parts:
        assert torch.equal(part, weights[:, columns])


def test_a_large_matrix_of_many_lanes_is_one_block_of_memory() -> None:
    layout = Layout(NETWORK)
    weights = layout.row(NETWORK)["weights"].expand(MANY, -1)
    gradients, _ = layout.gradients(weights)
    large = [name for name, parameter in NETWORK.named_parameters() if parameter.numel() >= LARGE]
    assert large == ["1.weight"]
    assert [name for name, gradient in gradients.items() if gradient.is_contiguous()] == large


def test_a_row_has_the_parameters_by_their_names() -> None:
    layout = Layout(NETWORK)
    named = layout.parameters(layout.row(NETWORK)["weights"])
    assert named.keys() == dict(NETWORK.named_parameters()).keys()
    for name, parameter in NETWORK.named_parameters():
        assert torch.equal(named[name], parameter)


def test_a_network_that_trains_nothing_has_no_gradients() -> None:
    frozen = nn.Linear(64, 64).requires_grad_(False)
    gradients, parts = Layout(frozen).gradients(torch.empty(MANY, 0))
    assert gradients == {} and [part.shape for _, part in parts] == [(MANY, 0)]
