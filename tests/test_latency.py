"""What a forward pass costs."""

import pytest
import torch
from torch import nn

import models
from hpo.results import latency as latency_module
from hpo.results.latency import BATCHES, FEWEST, Hardware, latencies
from hpo.training.cost import forward_flops


def test_a_multiply_add_counts_as_two_operations() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    assert forward_flops(linear, (3, 4)) == 2 * (12 * 5 + 5 * 3)
    convolution = nn.Conv2d(2, 7, 3, padding=1, bias=False)
    assert forward_flops(convolution, (2, 6, 5)) == 2 * 7 * 2 * 9 * 6 * 5


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "vgg11"])
def test_networks_of_the_registry_are_counted(name: str) -> None:
    options = {"width": 8}
    narrow = forward_flops(models.builder(name)((1, 8, 8), 4, **options), (1, 8, 8))
    wide = forward_flops(models.builder(name)((1, 8, 8), 4, width=16), (1, 8, 8))
    assert 0 < narrow < wide < 5 * narrow


@pytest.mark.slow
def test_the_slower_network_has_the_longer_latency() -> None:
    sizes = (8, 800)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(64, n), nn.ReLU(), nn.Linear(n, 64)) for n in sizes]
    small, large = latencies(networks, (8, 8), torch.device("cpu"))
    assert small.keys() == large.keys() == set(BATCHES)
    assert small[256].median < large[256].median
    for found in (*small.values(), *large.values()):
        assert 0 < found.low <= found.median <= found.high and found.rounds >= FEWEST


def test_measuring_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency_module, "BUDGET", 0.0)
    found = latencies([nn.Flatten()], (2,), torch.device("cpu"))
    assert found[0][1].rounds == FEWEST


def test_hardware_is_named() -> None:
    found = Hardware.of(torch.device("cpu"))
    assert found.device and found.threads == torch.get_num_threads() and found.torch_version
