"""Which inputs speak for an output of a network: functions of (module, inputs, outputs), for any `nn.Module`.

Shapes: N examples of [*input_shape], C outputs. `wanted`: [N] int64, the output that is explained of each
example: of classes the logit, of a regression output 0. Attributions are [N, *input_shape] float32 on the
CPU: above 0 what raises the output, below 0 what lowers it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.errors import HpoError
from hpo.results.tracing import LastConvolution

Attribute = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(module, inputs, wanted) → attributions."""

STEPS = 16
"""Of the path of integrated gradients; Gauss-Legendre points, of which a few do."""
CHUNK = 64
"""Examples at a time."""
PASSES = 512
"""Inputs of one forward pass at most."""


@dataclass(frozen=True)
class Method:
    """A way to attribute, ready for one model."""

    name: str
    """As a sentence begins with it."""
    signed: bool
    """Whether attributions below 0 mean something."""
    attribute: Attribute


@dataclass(frozen=True)
class Methods:
    """What can be done with a model, and why the rest cannot."""

    possible: tuple[Method, ...]
    """The first explains single examples and classes."""
    impossible: tuple[str, ...]
    """A sentence for each method that is not there."""
    differentiable: bool


def methods(module: nn.Module, inputs: Tensor, baseline: Tensor) -> Methods:
    """The methods that work on this model, found by trying.

    inputs: [N, *input_shape], a few examples. baseline: [*input_shape], what counts as nothing there.

    Raises:
        HpoError: captum is not installed, or the module does not run.
    """
    _need_captum()
    why_no_gradients = _why_no_gradients(module, inputs)
    possible, impossible = [], []
    if why_no_gradients:
        impossible.append(f"Integrated gradients: {why_no_gradients}.")
    else:
        along_path = partial(integrated_gradients, baseline=baseline)
        possible.append(Method("Integrated gradients", True, along_path))
    covering = partial(occlusion, baseline=baseline)
    if inputs.ndim == 2:
        if why_no_gradients:
            possible.append(Method("Occlusion", True, covering))
        return Methods(tuple(possible), tuple(impossible), not why_no_gradients)
    if reason := why_no_gradients or _why_no_convolution(module, inputs):
        impossible.append(f"Grad-CAM: {reason}.")
    else:
        possible.append(Method("Grad-CAM", False, grad_cam))
    possible.append(Method("Occlusion", True, covering))
    return Methods(tuple(possible), tuple(impossible), not why_no_gradients)


def integrated_gradients(module: nn.Module, inputs: Tensor, wanted: Tensor, *, baseline: Tensor) -> Tensor:
    """Gradients along the straight path from `baseline`, times the way (Sundararajan, Taly and Yan, 2017).

    Those of one example add up to what its output differs from the baseline's.
    """
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(_call(module))

    def attribute(some: Tensor, outputs: Tensor) -> Tensor:
        start = baseline.expand_as(some).contiguous()
        found: Tensor = method.attribute(
            some, start, target=outputs, n_steps=STEPS, internal_batch_size=max(PASSES, len(some))
        )
        return found

    return _in_chunks(attribute, inputs, wanted)


def occlusion(module: nn.Module, inputs: Tensor, wanted: Tensor, *, baseline: Tensor) -> Tensor:
    """By how much the output falls when `baseline` covers a place (Zeiler and Fergus, 2014).

    Of pictures a square of a quarter of the height or width is covered in all channels, moved by half its
    side, and each pixel has the mean over the squares that cover it; of a table one input is.
    """
    from captum.attr import Occlusion

    method = Occlusion(_call(module))
    window, strides = _window(tuple(inputs.shape[1:]))

    @torch.no_grad()
    def attribute(some: Tensor, outputs: Tensor) -> Tensor:
        found: Tensor = method.attribute(
            some,
            window,
            strides=strides,
            baselines=baseline.expand_as(some).contiguous(),
            target=outputs,
            perturbations_per_eval=max(1, PASSES // len(some)),
        )
        return found

    return _in_chunks(attribute, inputs, wanted)


def _window(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of one example: what is covered at a time, and by what it moves."""
    if len(shape) == 1:
        return (1,), (1,)
    side = max(1, round(min(shape[-2:]) / 4))
    channels = shape[:-2]
    return (*channels, side, side), (*channels, max(1, side // 2), max(1, side // 2))


def grad_cam(module: nn.Module, inputs: Tensor, wanted: Tensor) -> Tensor:
    """Where the maps of the last convolution, times their gradients, add up to more than 0, enlarged.

    Grad-CAM (Selvaraju et al., 2017) in the form of HiResCAM (Draelos and Carin, 2020): the same where a
    network averages its last maps over the picture; where it flattens them, mean gradients would mix places.
    """

    def attribute(some: Tensor, outputs: Tensor) -> Tensor:
        with torch.enable_grad(), LastConvolution() as last:
            scores = _call(module)(some.clone().requires_grad_())
        assert last.found is not None
        chosen = scores.gather(1, outputs[:, None]).sum()
        (slopes,) = torch.autograd.grad(chosen, last.found)
        maps = (slopes * last.found).sum(1, keepdim=True).relu()
        enlarged = functional.interpolate(maps, some.shape[-2:], mode="bilinear", align_corners=False)
        return enlarged.view(len(some), *([1] * (some.ndim - 3)), *some.shape[-2:]).expand_as(some)

    return _in_chunks(attribute, inputs, wanted)


@torch.no_grad()
def outputs_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """[N, C] float32 on the CPU."""
    parts = [module(part.clone()).float().cpu() for part in torch.split(inputs, PASSES)]
    return torch.cat(parts)


def _in_chunks(attribute: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, wanted: Tensor) -> Tensor:
    wanted = wanted.to(inputs.device)
    parts = zip(torch.split(inputs, CHUNK), torch.split(wanted, CHUNK), strict=True)
    return torch.cat([attribute(*part).detach().float().cpu() for part in parts])


def _call(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module, which may change its input in place."""

    def call(inputs: Tensor) -> Tensor:
        outputs: Tensor = module(inputs.clone())
        return outputs

    return call


def _why_no_gradients(module: nn.Module, inputs: Tensor) -> str:
    """Why the outputs have no gradients by the inputs, if so."""
    probe = inputs.clone().requires_grad_()
    try:
        with torch.enable_grad():
            outputs = module(probe.clone())
            if not outputs.requires_grad:
                return "the model is not differentiable: its outputs do not know what they were computed from"
            (slopes,) = torch.autograd.grad(outputs.sum(), probe, allow_unused=True)
    except RuntimeError as error:
        return f"the model is not differentiable here ({' '.join(str(error).split())[:200]})"
    if slopes is None or not bool(slopes.any()):
        return "the model is not differentiable: the gradients of its outputs by its inputs are all 0"
    if not bool(slopes.isfinite().all()):
        return "gradients of the model's outputs by its inputs are not finite"
    return ""


def _why_no_convolution(module: nn.Module, inputs: Tensor) -> str:
    with torch.enable_grad(), LastConvolution() as last:
        _call(module)(inputs.clone().requires_grad_())
    if last.found is None:
        return "the model has no two-dimensional convolution over more than one pixel"
    if len(last.found) != len(inputs) or not last.found.requires_grad:
        return "its last convolution is not one map for each example that the outputs are differentiable by"
    return ""


def _need_captum() -> None:
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise HpoError("explaining a model needs captum: pip install 'hpo[explain]'") from error
