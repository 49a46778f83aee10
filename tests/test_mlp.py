"""The multilayer perceptron has the layers that its options say."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from models.mlp import mlp


@pytest.mark.parametrize(("width", "depth"), [(1, 1), (16, 3), (64, 2), (8, 0)])
def test_it_has_as_many_parameters_as_documented(width: int, depth: int) -> None:
    inputs, classes = 12, 5
    module = mlp((3, 4), classes, width=width, depth=depth)
    expected = (inputs + 1) * classes
    if depth:
        expected = inputs * width + (depth - 1) * width**2 + 2 * depth * width + (width + 1) * classes
    assert sum(parameter.numel() for parameter in module.parameters()) == expected
    assert module(torch.randn(6, 3, 4)).shape == (6, classes)


def test_layers_before_batch_norm_have_no_bias() -> None:
    layers = list(mlp((7,), 2, dropout=0.3))  # type: ignore[call-overload]
    hidden = [layer for layer, after in pairwise(layers) if isinstance(after, nn.BatchNorm1d)]
    assert len(hidden) == 2
    assert all(layer.bias is None for layer in hidden)
    assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width 0: must be a whole number of at least 1"),
        ({"depth": -1}, "depth -1: must be a whole number of at least 0"),
        ({"dropout": 1.0}, r"dropout 1\.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, r"dropout -0\.1: must be at least 0 and below 1"),
        ({"dropout": float("nan")}, "dropout nan: must be at least 0 and below 1"),
    ],
)
def test_a_bad_option_is_named_with_what_is_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp((7,), 2, **options)
