"""Layers of images for stacked lanes are torch's, in their numbers too."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from models.image_layers import BatchNorm2d, Conv2d
from models.layers import stackable

LANES = 3


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def norm(generator: torch.Generator) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(4, momentum=0.3).double()
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias, layer.running_mean):
            assert tensor is not None
            tensor.copy_(torch.randn(4, generator=generator))
    return layer


def images(generator: torch.Generator, *front: int) -> Tensor:
    return torch.randn(*front, 6, 4, 5, 3, dtype=torch.float64, generator=generator) * 3 + 1


@pytest.mark.parametrize("numbers", [torch.float32, torch.bfloat16])
def test_without_vmap_they_are_torch_s_to_the_bit(numbers: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)]
    theirs = nn.Sequential(*layers)
    ours = stackable(copy.deepcopy(theirs))
    assert [type(layer) for layer in ours.children()] == [Conv2d, BatchNorm2d, Conv2d]
    x = torch.randn(5, 2, 6, 6)
    with torch.autocast("cpu", numbers, enabled=numbers is torch.bfloat16):
        y, expected = ours(x), theirs(x)
    assert torch.equal(y, expected)
    for one, two in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_lanes_together_equal_torch_s_batch_norm_alone(
    training: bool, shared: bool, generator: torch.Generator
) -> None:
    alone = [norm(generator).train(training) for _ in range(LANES)]
    layer = stackable(copy.deepcopy(alone[0]))
    parameters, buffers = stack_module_state(alone)  # type: ignore[arg-type]
    x = images(generator) if shared else images(generator, LANES)
    call = vmap(
        lambda own, kept, batch: functional_call(layer, (own, kept), (batch,)),
        in_dims=(0, 0, None if shared else 0),
    )
    weights = images(generator, LANES)
    y = call(parameters, buffers, x)
    found = torch.autograd.grad((y * weights).sum(), list(parameters.values()))
    for lane, layer_alone in enumerate(alone):
        expected = layer_alone(x if shared else x[lane])
        assert torch.allclose(y[lane], expected, atol=1e-12)
        wanted = torch.autograd.grad((expected * weights[lane]).sum(), list(layer_alone.parameters()))
        for one, two in zip(found, wanted, strict=True):
            assert torch.allclose(one[lane], two, atol=1e-12)
        for name, tensor in layer_alone.named_buffers():
            assert torch.allclose(buffers[name][lane], tensor, atol=1e-12), name


def test_lanes_hand_back_the_gradient_of_their_own_images(generator: torch.Generator) -> None:
    alone = [norm(generator) for _ in range(LANES)]
    layer = stackable(copy.deepcopy(alone[0]))
    state = stack_module_state(alone)  # type: ignore[arg-type]
    x, weights = images(generator, LANES).requires_grad_(), images(generator, LANES)
    y = vmap(lambda own, kept, batch: functional_call(layer, (own, kept), (batch,)))(*state, x)
    (found,) = torch.autograd.grad((y * weights).sum(), [x])
    for lane, layer_alone in enumerate(alone):
        own = x[lane].detach().requires_grad_()
        (wanted,) = torch.autograd.grad((layer_alone(own) * weights[lane]).sum(), [own])
        assert torch.allclose(found[lane], wanted, atol=1e-12)


def test_one_number_of_a_channel_has_no_variance() -> None:
    layer = stackable(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.randn(1, 3, 1, 1))
    assert layer(torch.randn(1, 3, 2, 2)).isfinite().all()


@pytest.mark.parametrize("other", [{"affine": False}, {"track_running_stats": False}, {"momentum": None}])
def test_batch_norms_of_other_settings_stay_torch_s(other: dict[str, bool | None]) -> None:
    layer = nn.BatchNorm2d(3, **other)  # type: ignore[arg-type]
    assert type(stackable(layer)) is nn.BatchNorm2d


def network() -> nn.Module:
    layers = [nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 3)]
    return stackable(nn.Sequential(*layers))


def test_under_autocast_lanes_compute_in_bfloat16_together_as_alone() -> None:
    torch.manual_seed(0)
    alone = [network() for _ in range(LANES)]
    parameters, buffers = stack_module_state(alone)  # type: ignore[arg-type]
    x = torch.randn(LANES, 8, 2, 6, 6)

    def run(own: dict[str, Tensor], kept: dict[str, Tensor], batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y: Tensor = functional_call(alone[0], (own, kept), (batch,))
        return y

    together = vmap(run)(parameters, buffers, x)
    assert together.dtype == torch.bfloat16
    found = torch.autograd.grad(together.float().square().sum(), list(parameters.values()))
    assert {gradient.dtype for gradient in found} == {torch.float32}
    for lane, module in enumerate(alone):
        with torch.autocast("cpu", torch.bfloat16):
            expected = module(x[lane])
        assert torch.allclose(together[lane].float(), expected.float(), atol=0.02)
        wanted = torch.autograd.grad(expected.float().square().sum(), list(module.parameters()))
        for gradient, other in zip(found, wanted, strict=True):
            assert torch.allclose(gradient[lane], other, rtol=0.05, atol=0.05 * other.abs().max().item())


def test_autocast_leaves_float64_alone() -> None:
    layer = stackable(nn.Conv2d(2, 3, 3).double())
    with torch.autocast("cpu", torch.bfloat16):
        y = vmap(layer)(torch.randn(LANES, 4, 2, 6, 6, dtype=torch.float64))
    assert y.dtype == torch.float64
