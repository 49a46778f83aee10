"""Chains: their written-out gradients are autograd's, layer by layer and together."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hpo.config import Task
from hpo.training import normalized
from hpo.training.chain import Chain
from hpo.training.layout import constants
from hpo.training.program import Batch, OneByOne, Program
from models.layers import Dropout, stackable

LANES, ROWS = 3, 24
ACTIVATIONS: list[Callable[[], nn.Module]] = [
    nn.Identity,
    nn.ReLU,
    lambda: nn.ReLU(inplace=True),
    lambda: nn.LeakyReLU(0.2, inplace=True),
    lambda: nn.ELU(0.7),
    nn.GELU,
    lambda: nn.GELU(approximate="tanh"),
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
]


@pytest.fixture(autouse=True, params=[ROWS, ROWS + 1], ids=["by features", "by outputs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch norm after the first linear layer is computed in two ways, by how many features there are."""
    monkeypatch.setattr(normalized, "LEAST_ROWS", request.param)


def network(*hidden: nn.Module, outputs: int = 3, width: int = 8) -> nn.Module:
    return sequence(nn.Linear(5, width), *hidden, nn.Linear(width, outputs))


def sequence(*layers: nn.Module) -> nn.Module:
    return stackable(nn.Sequential(nn.Flatten(), *layers)).double()


def norm(width: int = 8) -> nn.BatchNorm1d:
    layer = nn.BatchNorm1d(width, momentum=0.3)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def passes(
    program: Program,
    module: nn.Module,
    outputs: int,
    smoothing: Tensor | None,
    distorted: Callable[[Tensor], Tensor] = lambda x: x,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Losses, gradients and buffers of a training pass of lanes that differ in all that they may."""
    generator = torch.Generator().manual_seed(0)
    dtype = next(module.parameters()).dtype
    parameters, buffers = {}, {}
    for name, tensor in module.named_parameters():
        if tensor.requires_grad:
            noise = torch.randn(LANES, *tensor.shape, generator=generator, dtype=dtype)
            parameters[name] = (tensor.detach() + 0.1 * noise).requires_grad_()
    for name, tensor in constants(module).items():
        buffers[name] = torch.stack([tensor] * LANES)
        if name.endswith("key"):
            buffers[name] += torch.arange(LANES, dtype=torch.int32)
    for name, layer in module.named_modules():
        if isinstance(layer, Dropout):  # `double` is for weights; a scale is float32 by its bits
            buffers[f"{name}.scale"] = buffers[f"{name}.scale"].float()
            if layer.p == 0.5:  # lanes of other rates beside it
                rates = torch.tensor([0.0, 0.5, 1.0])
                buffers[f"{name}.scale"] = torch.where(rates < 1, 1 / (1 - rates), 0.0)
                buffers[f"{name}.threshold"] = torch.round((1 - rates) * 2**16 - 2**15).int()
    x = distorted(torch.randn(LANES, ROWS, 5, generator=generator, dtype=dtype))
    classes = torch.randint(outputs, (LANES, ROWS), generator=generator)
    numbers = torch.randn(LANES, ROWS, generator=generator, dtype=dtype)
    out = {name: torch.full_like(tensor, torch.nan) for name, tensor in parameters.items()}
    before = x.clone()
    with program.mode(training=True, active=dict.fromkeys(program.dropouts, True)):
        y = classes if program.task == "classification" else numbers
        losses = program.gradients(parameters, buffers, Batch(x, y, range(LANES), smoothing), out)
    assert torch.equal(x, before), "other lanes read the examples too"
    return losses, out, buffers


def assert_gradients_are_autograds(
    module: nn.Module,
    task: Task = "classification",
    outputs: int = 3,
    smoothing: Tensor | None = None,
    distorted: Callable[[Tensor], Tensor] = lambda x: x,
) -> None:
    chain = Chain.of(copy.deepcopy(module), task)
    assert chain is not None
    found = passes(chain, module, outputs, smoothing, distorted)
    expected = passes(OneByOne(copy.deepcopy(module), task), module, outputs, smoothing, distorted)
    exact = next(module.parameters()).dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-9 if exact else 1e-3, atol=1e-11 if exact else 1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_passes_autograds_gradient(activation: Callable[[], nn.Module]) -> None:
    assert_gradients_are_autograds(network(activation()))


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize(
    "hidden",
    [
        lambda rate: [norm(), nn.ReLU(), nn.Dropout(rate)],
        lambda rate: [norm(), nn.ReLU(inplace=True), nn.Dropout(rate)],
        lambda rate: [norm(), nn.ReLU(), nn.Dropout(rate), norm()],
        lambda rate: [norm(), nn.Dropout(rate), nn.ReLU()],
        lambda rate: [norm(), nn.GELU(), nn.Dropout(rate)],
        lambda rate: [nn.ReLU(), nn.Dropout(rate), norm()],
        lambda rate: [norm(), nn.ReLU(), nn.Linear(8, 8), nn.Dropout(rate)],
        lambda rate: [nn.Sequential(norm(), nn.ReLU()), nn.Sequential(nn.Dropout(rate), nn.Tanh())],
    ],
)
def test_layers_that_run_as_one_pass_autograds_gradient(
    hidden: Callable[[float], list[nn.Module]], rate: float
) -> None:
    assert_gradients_are_autograds(network(*hidden(rate)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 7, 8])
def test_lanes_of_different_rates_pass_autograds_gradient_side_by_side(
    width: int, dtype: torch.dtype
) -> None:
    block = norm(width), nn.ReLU(), nn.Dropout(0.5)
    assert_gradients_are_autograds(network(*block, nn.Dropout(0.5), width=width).to(dtype))


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_where_products_cancel_in_an_output_its_variance_is_right(scale: float) -> None:
    x = torch.randn(1, ROWS, 2, generator=torch.Generator().manual_seed(0))
    x[..., 1] = x[..., 0] + 1e-3 * x[..., 1]
    x -= x.mean(1, keepdim=True)
    weight = scale * torch.tensor([[[1.0], [-1.0]]])
    spread, variance = normalized.weighted_covariance(x, weight)
    outputs = x.double() @ weight.double()
    assert variance.item() == pytest.approx(outputs.square().mean().item(), rel=1e-6)
    torch.testing.assert_close(spread.double(), x.double().mT @ outputs / ROWS, rtol=1e-6, atol=0)


@pytest.mark.parametrize("first", [lambda: norm(5), lambda: nn.Dropout(0.3), nn.Tanh, lambda: nn.Identity()])
def test_a_chain_may_begin_with_any_layer(first: Callable[[], nn.Module]) -> None:
    assert_gradients_are_autograds(sequence(first(), nn.Linear(5, 3)))


@pytest.mark.parametrize(
    "last", [lambda: nn.Linear(5, 3, bias=False), lambda: norm(5), nn.Tanh, lambda: nn.Dropout(0.3)]
)
def test_a_chain_may_end_with_any_layer(last: Callable[[], nn.Module]) -> None:
    layer = last()
    outputs = 3 if isinstance(layer, nn.Linear) else 5
    assert_gradients_are_autograds(sequence(nn.Linear(5, 5), layer), outputs=outputs)


def test_a_regressions_gradient_is_autograds() -> None:
    assert_gradients_are_autograds(network(norm(), nn.ReLU(), outputs=1), "regression", 1)


def test_smoothed_labels_have_autograds_gradient() -> None:
    smoothing = torch.tensor([0.0, 0.1, 0.9], dtype=torch.float64)
    assert_gradients_are_autograds(network(norm(), nn.ReLU(), nn.Dropout(0.2)), smoothing=smoothing)


def test_what_is_frozen_is_passed_through_and_has_no_gradient() -> None:
    module = network(norm(), nn.ReLU(), nn.Linear(8, 8))
    for layer in (module[1], module[2]):  # type: ignore[index]
        layer.weight.requires_grad = False
    module[4].bias.requires_grad = False  # type: ignore[index]
    assert_gradients_are_autograds(module)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("below", [[], [nn.Tanh], [nn.ReLU, lambda: nn.Dropout(0.4)]])
def test_batch_norm_after_the_first_linear_layer_passes_autograds_gradient(
    below: list[Callable[[], nn.Module]], bias: bool
) -> None:
    first = nn.Linear(5, 8, bias=bias)
    layers = *(layer() for layer in below), first, norm(), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), norm()
    module = sequence(*layers)
    assert_gradients_are_autograds(module, outputs=8)
    first.weight.requires_grad = False
    assert_gradients_are_autograds(module, outputs=8)


@pytest.mark.parametrize(("constant", "dtype"), [(1, torch.float32), (1, torch.float64), (5, torch.float64)])
def test_features_far_from_0_and_features_that_never_change_pass_autograds_gradient(
    constant: int, dtype: torch.dtype
) -> None:
    def distorted(x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x[..., :constant], 3.0), x[..., constant:] + 10], -1)

    assert_gradients_are_autograds(network(norm(), nn.ReLU()).to(dtype), distorted=distorted)


def test_a_compiled_chain_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # needs no C++ compiler
    module = network(norm(), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), norm())
    chain = Chain.of(copy.deepcopy(module), "classification")
    assert chain is not None
    expected = passes(chain, module, 3, None)
    chain.compile()
    torch.testing.assert_close(passes(chain, module, 3, None), expected, rtol=1e-12, atol=1e-12)


def test_other_modules_are_no_chains() -> None:
    class Own(nn.Flatten):
        pass

    shared = nn.ReLU()
    hooked, hooked_root = network(nn.ReLU()), network(nn.ReLU())
    hooked[1].register_forward_hook(lambda *_: None)  # type: ignore[index]
    hooked_root.register_forward_hook(lambda *_: None)
    for module in (
        nn.Sequential(nn.Linear(5, 3)),  # its input may have more dimensions than one
        nn.Sequential(nn.Flatten(0), nn.Linear(5, 3)),
        network(nn.Softmax(1)),
        network(shared, shared),
        hooked,
        hooked_root,
        nn.Sequential(Own(), nn.Linear(5, 3)),
        nn.ReLU(),
    ):
        assert Chain.of(module, "classification") is None
