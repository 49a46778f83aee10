"""Layers for stacked lanes: masks are random, keyed and of the right rate; batch norm is torch's."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from models.layers import STREAM, BatchNorm1d, Dropout, dropout_mask, stackable

KEY = torch.tensor(123456789, dtype=torch.int32)


def mask(key: Tensor, rate: float, rows: int = 400, columns: int = 301) -> Tensor:
    layer = stackable(nn.Dropout(rate))
    assert isinstance(layer, Dropout)
    return dropout_mask(key, layer.threshold, layer.scale, rows, columns)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.5, 0.9, 1.0])
def test_masks_drop_at_their_rate_and_scale_what_stays(rate: float) -> None:
    found = mask(KEY, rate)
    expected = 1 / (1 - rate) if rate < 1 else 0.0
    kept = found[found != 0]
    assert torch.allclose(kept, torch.full_like(kept, expected))
    spread = (rate * (1 - rate) / found.numel()) ** 0.5
    assert (found == 0).float().mean().item() == pytest.approx(rate, abs=5 * spread + 2**-16)


def test_masks_are_uncorrelated_over_rows_columns_halves_and_keys() -> None:
    centered = mask(KEY, 0.5) - 1
    other = mask(KEY + 1, 0.5) - 1
    count = centered.numel()
    shifts = {
        "rows": centered[1:] * centered[:-1],
        "columns": centered[:, 1:] * centered[:, :-1],
        "halves of a word": centered[:, :150] * centered[:, 151:],
        "keys": centered * other,
        "rectangles": centered[1:, 1:] * centered[:-1, :-1] * centered[1:, :-1] * centered[:-1, 1:],
    }
    for name, product in shifts.items():
        assert abs(product.mean().item()) < 5 * count**-0.5, name
    # Each row and each column by itself has the right rate too (5 standard deviations).
    assert centered.mean(0).abs().max() < 5 * 400**-0.5
    assert centered.mean(1).abs().max() < 5 * 301**-0.5


def test_a_mask_depends_on_its_key_alone_whatever_it_is_stacked_with() -> None:
    keys = torch.arange(5, dtype=torch.int32) * 77
    layer = stackable(nn.Dropout(0.3))
    assert isinstance(layer, Dropout)
    stacked = dropout_mask(keys, layer.threshold.expand(5), layer.scale.expand(5), 7, 9)
    for key, own in zip(keys, stacked, strict=True):
        assert torch.equal(own, mask(key, 0.3, 7, 9))
    assert not torch.equal(stacked[0], stacked[1])


def test_a_shared_dropout_draws_anew_at_each_call() -> None:
    layer = stackable(nn.Dropout(0.5))
    assert isinstance(layer, Dropout)
    layer.start(active=True)
    ones = torch.ones(20, 30)
    first, second = layer(ones), layer(ones)
    assert not torch.equal(first, second)
    layer.start(active=True)
    assert torch.equal(layer(ones), first)


def test_gradients_pass_where_elements_stay() -> None:
    layer = stackable(nn.Dropout(0.5))
    x = torch.ones(20, 30, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y)


@pytest.mark.parametrize("kind", [nn.Dropout1d, nn.Dropout2d, nn.Dropout3d])
def test_channel_dropout_drops_whole_channels(kind: type[nn.Module]) -> None:
    rank = {nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}[kind]
    y = stackable(kind(0.5))(torch.ones(8, 16, *(3,) * rank)).flatten(2)
    assert torch.equal(y, y[..., :1].expand_as(y))
    assert 0.3 < (y == 0).float().mean() < 0.7


def test_exchanging_keeps_containers_shared_layers_names_and_hooks() -> None:
    class Own(nn.Dropout):
        pass

    shared = nn.Dropout(0.2)
    module = nn.Sequential(
        shared, nn.ModuleList([shared, nn.BatchNorm1d(3)]), Own(0.1), nn.BatchNorm1d(3, affine=False)
    )
    names = list(module.state_dict())
    inner = module[1]
    assert isinstance(inner, nn.ModuleList)
    changed = stackable(module)
    assert changed is module
    assert type(module[0]) is Dropout
    assert inner[0] is module[0]
    assert type(inner[1]) is BatchNorm1d
    assert type(module[2]) is Own, "a class of the user's own stays"
    assert type(module[3]) is nn.BatchNorm1d
    assert list(module.state_dict()) == names, "a lane's stream is not saved"
    assert {f"0.{name}" for name in STREAM} <= {name for name, _ in module.named_buffers()}


def test_in_eval_mode_nothing_is_dropped() -> None:
    layer = stackable(nn.Dropout(0.5)).eval()
    x = torch.randn(4, 5)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("shape", [(10, 6), (10, 6, 4)])
def test_batch_norm_equals_torch(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = nn.BatchNorm1d(6, momentum=0.3).double()
    with torch.no_grad():
        for tensor in (ours.weight, ours.bias):
            tensor.copy_(torch.randn(6, generator=generator))
    theirs = copy.deepcopy(ours)
    ours = stackable(ours)  # type: ignore[assignment]
    for _ in range(3):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = ours(own), theirs(other)
        assert torch.allclose(y, expected, atol=1e-12)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        found = torch.autograd.grad((y * weights).sum(), [own, ours.weight, ours.bias])
        wanted = torch.autograd.grad((expected * weights).sum(), [other, theirs.weight, theirs.bias])
        for one, two in zip(found, wanted, strict=True):
            assert torch.allclose(one, two, atol=1e-12)
    for name, tensor in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], tensor, atol=1e-12), name
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-12)


def test_batch_norm_of_one_example_is_refused_as_torch_refuses_it() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        stackable(nn.BatchNorm1d(3))(torch.randn(1, 3))


def test_under_vmap_each_lane_has_its_own_rate_and_statistics() -> None:
    lanes = [
        stackable(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(rate))).double()
        for rate in (0.0, 0.6)
    ]
    for lane in lanes:  # `double` is for weights; a scale is float32 by its bits
        layer = lane[2]  # type: ignore[index]
        layer.scale = layer.scale.float()
    parameters, buffers = stack_module_state(lanes)
    x = torch.randn(2, 8, 4, dtype=torch.float64)
    call = vmap(lambda own, fixed, batch: functional_call(lanes[1], (own, fixed), (batch,)))
    y = call(parameters, buffers, x)
    for index, lane in enumerate(lanes):
        for layer in lane.modules():
            if isinstance(layer, Dropout):
                layer.start(active=True)
        assert torch.allclose(lane(x[index]), y[index], atol=1e-12)
        mean = lane[1].running_mean  # type: ignore[index]
        assert torch.allclose(buffers["1.running_mean"][index], mean, atol=1e-12)
    assert (y[0] == 0).sum() == 0
    assert (y[1] == 0).sum() > 10
