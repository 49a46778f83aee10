"""Convolutions as products of matrices are torch's convolutions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from models.convolution import convolve, is_product

LANES, SHAPES = 3, [((3, 3), (1, 1)), ((1, 1), (0, 0)), ((3, 2), (0, 1)), ((5, 3), (2, 2))]


@pytest.mark.parametrize(("kernel", "padding"), SHAPES)
@pytest.mark.parametrize("shared", [False, True])
def test_outputs_and_gradients_of_every_lane_equal_torch_s(
    kernel: tuple[int, int], padding: tuple[int, int], shared: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(*[LANES] * (not shared), 4, 2, 7, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(LANES, 5, 2, *kernel, dtype=torch.float64, requires_grad=True)
    dims = (None if shared else 0, 0)
    found = vmap(lambda x, weight: convolve(x, weight, padding), in_dims=dims)(x, weight)
    expected = vmap(lambda x, weight: F.conv2d(x, weight, padding=padding), in_dims=dims)(x, weight)
    assert torch.allclose(found, expected, atol=1e-12)
    slopes = torch.randn_like(expected)
    assert all(map(close, gradients(found, slopes, x, weight), gradients(expected, slopes, x, weight)))


def gradients(y: Tensor, slopes: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, slopes)


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({"padding": 1}, True),
        ({"padding": (0, 2)}, True),
        ({"padding": 3}, False),
        ({"padding": "same"}, False),
        ({"stride": 2}, False),
        ({"dilation": 2}, False),
        ({"groups": 2}, False),
        ({"padding": 1, "padding_mode": "reflect"}, False),
    ],
)
def test_what_is_no_such_product_is_left_to_torch(options: dict[str, object], fits: bool) -> None:
    assert is_product(nn.Conv2d(2, 4, 3, **options)) is fits  # type: ignore[arg-type]
