"""The CNN, the VGGs and the ResNet: what their docstrings say, on any small image, fused as alone."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from test_cohort import NETWORKS, Bench, assert_close, assert_same_state, curves, lane, prefer
from torch import Tensor, nn

import models
from hpo.training.program import Fused
from models.images import initialize
from models.resnet import Block

Options = dict[str, Any]
SMALL: list[tuple[str, Options]] = [
    ("cnn", {"width": 4}),
    ("vgg11", {"width": 4}),
    ("vgg13", {"width": 4}),
    ("vgg16", {"width": 4}),
    ("resnet", {"width": 4, "depth": 1}),
    ("resnet", {"width": 4, "depth": 1, "preactivation": True}),
]
small = pytest.mark.parametrize(("name", "options"), SMALL)
fitted = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(*network, marks=[pytest.mark.slow] if network[0].startswith("vgg") else [])
        for network in SMALL
    ],
)
NAMES = sorted({name for name, _ in SMALL})


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(name: str, shape: tuple[int, ...], classes: int, options: Options) -> nn.Module:
    return models.builder(name)(shape, classes, **options)


def test_every_registered_network_for_images_is_tested_here() -> None:
    assert {"mlp", *NAMES} == set(models.ARCHITECTURES)


@small
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 64), (1, 28, 28), (3, 33, 17), (3, 64, 64), (28, 9)])
def test_images_of_any_size_give_an_output_for_each_class(
    name: str, options: Options, shape: tuple[int, ...]
) -> None:
    module = build(name, shape, 5, options)
    assert module(torch.randn(3, *shape)).shape == (3, 5)
    assert module.eval()(torch.randn(1, *shape)).shape == (1, 5)


@small
def test_images_without_channels_are_images_of_one_channel(name: str, options: Options) -> None:
    with torch.random.fork_rng(devices=[]):
        plain = build(name, (12, 9), 4, options).eval()
    channel = build(name, (1, 12, 9), 4, options).eval()
    x = torch.randn(5, 12, 9)
    assert torch.equal(plain(x), channel(x[:, None]))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cnn", {}, 820_676),
        ("vgg11", {}, 9_503_204),
        ("vgg13", {}, 9_687_908),
        ("vgg16", {}, 14_998_884),
        ("resnet", {}, 2_783_204),
        ("resnet", {"preactivation": True}, 2_782_436),
        ("resnet", {"stages": 4}, 11_186_148),
    ],
)
def test_characters_take_as_many_parameters_as_documented(name: str, options: Options, expected: int) -> None:
    assert parameters(build(name, (1, 28, 28), 36, options)) == expected
    function = models.builder(name).__doc__ or ""
    assert f"{expected:,}" in function


@pytest.mark.parametrize(("width", "depth"), [(8, 1), (5, 3)])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 17)])
def test_a_cnn_has_as_many_parameters_as_its_formula_says(
    width: int, depth: int, shape: tuple[int, int, int]
) -> None:
    channels, places, classes = shape[0], -(-shape[1] // 8) * -(-shape[2] // 8), 7
    convolutions = 9 * width * (channels + 10 * width + 21 * width * (depth - 1)) + 14 * width * depth
    head = 32 * width**2 * places + 8 * width + (8 * width + 1) * classes
    module = build("cnn", shape, classes, {"width": width, "depth": depth})
    assert parameters(module) == convolutions + head


def test_a_vgg_has_its_layers_and_a_resnet_its_blocks() -> None:
    weights = {name: build(name, (1, 28, 28), 36, {"width": 2}) for name in ("vgg11", "vgg13", "vgg16")}
    counts = {name: sum(map(is_weighted, module.modules())) for name, module in weights.items()}
    assert counts == {"vgg11": 10, "vgg13": 12, "vgg16": 15}, "one of three linear layers is left out"
    resnet = build("resnet", (1, 28, 28), 36, {"width": 2, "stages": 4})
    main = [layer for layer in resnet.modules() if is_weighted(layer) and not is_shortcut(layer)]
    assert len(main) == 18


def is_weighted(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.Linear)


def is_shortcut(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@small
def test_what_batch_norm_follows_has_no_bias(name: str, options: Options) -> None:
    module = build(name, (1, 28, 28), 36, options)
    assert all(layer.bias is None for layer in module.modules() if isinstance(layer, nn.Conv2d))


@small
def test_weights_are_drawn_as_kaiming_he_derived(name: str, options: Options) -> None:
    module = build(name, (3, 16, 16), 64, options | {"width": 16})
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            read = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
            assert deviation(layer.weight, (2 / read) ** 0.5) < 5
        elif isinstance(layer, nn.Linear):
            assert deviation(layer.weight, (2 / layer.in_features) ** 0.5) < 5
            assert not layer.bias.any()


def deviation(weight: Tensor, expected: float) -> float:
    """Of the measured standard deviation, in its own: that of n normal numbers is off by 1 / sqrt(2n)."""
    error = weight.std(correction=0).item() / expected - 1
    return abs(error) * (2 * weight.numel()) ** 0.5


@small
def test_outputs_of_a_fresh_network_are_of_the_size_that_cross_entropy_expects(
    name: str, options: Options
) -> None:
    module = build(name, (1, 28, 28), 36, options | {"width": 16, "dropout": 0.0})
    logits = module(torch.randn(64, 1, 28, 28))
    assert 0.1 < logits.std().item() < 3


@small
def test_gradients_reach_every_parameter(name: str, options: Options) -> None:
    module = build(name, (1, 16, 16), 4, options)
    # At first none passes a residual branch's last batch norm: its weight is 0, and moves in the first step.
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    x, y = torch.randn(32, 1, 16, 16), torch.arange(32) % 4
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


def test_a_fresh_residual_block_is_its_shortcut() -> None:
    block = Block(6, 6, stride=1)
    initialize(block)
    x = torch.randn(5, 6, 9, 9)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("preactivation", [False, True])
def test_each_stage_of_a_resnet_but_the_first_halves_the_sides(preactivation: bool) -> None:
    module = build("resnet", (1, 28, 20), 2, {"width": 2, "stages": 4, "preactivation": preactivation})
    assert isinstance(module, nn.Sequential)
    x, shapes = torch.randn(2, 1, 28, 20), []
    for layer in module:
        x = layer(x)
        shapes.append(tuple(x.shape[1:]))
    different = [shape for shape, following in pairwise(shapes) if shape != following]
    assert different[:5] == [(2, 28, 20), (4, 14, 10), (8, 7, 5), (16, 4, 3), (16, 1, 1)]


@fitted
@pytest.mark.parametrize("shape", [(1, 8, 8), pytest.param((9, 8), marks=pytest.mark.slow)])
def test_fused_lanes_equal_themselves_alone(
    name: str, options: Options, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, lambda program: isinstance(program, Fused))
    monkeypatch.setitem(NETWORKS, name, shape)
    bench = Bench(name)
    lanes = [lane(number, **options) for number in range(6)]
    cohort = bench.cohort(lanes)
    assert bench.programs() == {Fused}
    together = curves(cohort, 2)
    for one in lanes[1:4]:
        alone = bench.cohort([one])
        assert_close(curves(alone, 2)[one.key], together[one.key], 1e-9)
        assert_same_state(alone.state(one.key), cohort.state(one.key))


@fitted
def test_64_digits_are_learnt_by_heart(name: str, options: Options) -> None:
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images[:64]).float().view(64, 8, 8) / 16
    y = torch.from_numpy(labels[:64])
    module = build(name, (8, 8), 10, options | {"width": 8, "dropout": 0.0})
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    assert (module(x).argmax(1) == y).all()
    assert (module.eval()(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((30,), r"input_shape \[30\]: {} needs images \[C, H, W\]; mlp takes tables"),
        ((1, 2, 28, 28), r"input_shape \[1, 2, 28, 28\]: {} needs images \[C, H, W\]$"),
        ((28, 28, 3), r"input_shape \[28, 28, 3\]: {} needs .*, channels first, of at least 8 x 8 pixels"),
        ((1, 7, 28), r"input_shape \[1, 7, 28\]: {} needs .* of at least 8 x 8 pixels"),
        ((0, 28, 28), r"input_shape \[0, 28, 28\]: {} needs images"),
    ],
)
def test_examples_that_are_no_images_are_refused(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message.format(name)):
        models.builder(name)(shape, 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width 0: must be a whole number of at least 1"),
        ({"depth": 0}, "depth 0: must be a whole number of at least 1"),
        ({"stages": 0}, "stages 0: must be a whole number of at least 1"),
        ({"stages": 5}, "stages 5: 8 x 20 pixels can be halved 3 times"),
        ({"dropout": 1.0}, r"dropout 1\.0: must be at least 0 and below 1"),
        ({"dropout": float("nan")}, "dropout nan: must be at least 0 and below 1"),
    ],
)
def test_a_bad_option_is_named_with_what_is_valid(name: str, options: Options, message: str) -> None:
    if options.keys() <= models.signature(name).parameters.keys():
        with pytest.raises(ValueError, match=message):
            models.builder(name)((1, 8, 20), 2, **options)
