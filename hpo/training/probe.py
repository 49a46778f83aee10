"""Which way a network's lanes run: found by running it once on real examples, both ways."""

from typing import TYPE_CHECKING

import structlog
import torch
from torch import Tensor, nn

from hpo.errors import TrialError
from hpo.training.chain import Chain, is_chain
from hpo.training.device_data import DeviceData
from hpo.training.layout import Tensors, constants
from hpo.training.program import Fused, OneByOne, Program

if TYPE_CHECKING:
    from hpo.training.architecture import Architecture

log = structlog.get_logger()

_LANES = 2


def program_of(architecture: "Architecture", module: nn.Module, data: DeviceData, batch_size: int) -> Program:
    """Fused, if that runs and comes to the same results; else one by one, which is said once.

    Raises:
        TrialError: the network does not run on the data, or its outputs have the wrong shape.
    """
    alone = OneByOne(module, data.task)
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrialError(f"architecture {architecture.name!r} has no parameters to train")
    try:
        expected = _results(alone, module, data, batch_size)
    except Exception as error:
        raise TrialError(
            f"architecture {architecture.name!r} does not run: {type(error).__name__}: {error}"
        ) from error
    reason: str | None = None
    for kind in (Chain, Fused) if is_chain(module) else (Fused,):
        fused = kind(module, data.task)
        reason = _difference(fused, expected, module, data, batch_size)
        if reason is None:
            return fused
    if not architecture.warned:
        architecture.warned = True
        log.warning("the architecture trains lane by lane", architecture=architecture.name, reason=reason)
    return alone


def _difference(
    fused: Program, expected: list[Tensor], module: nn.Module, data: DeviceData, batch_size: int
) -> str | None:
    """Why `fused` will not do."""
    try:
        results = _results(fused, module, data, batch_size)
    except Exception as error:  # noqa: BLE001  (vmap raises what it cannot do in many ways)
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
    same = all(
        torch.allclose(result, other, rtol=1e-2, atol=1e-4, equal_nan=True)
        for result, other in zip(results, expected, strict=True)
    )
    return None if same else "fused, its results differ"


def _results(program: Program, module: nn.Module, data: DeviceData, batch_size: int) -> list[Tensor]:
    """Losses, gradients, buffers and outputs of two equal lanes after one step on the first examples."""
    trainable = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
    parameters = _doubled({name: tensor.detach() for name, tensor in trainable.items()})
    for tensor in parameters.values():
        tensor.requires_grad_()
    buffers = _doubled(constants(module))
    _, rows = data.steps(batch_size)
    x, y = data.batch(torch.arange(rows, device=data.device).expand(_LANES, rows))
    active = dict.fromkeys(program.dropouts, True)
    with program.mode(training=False, active=active):
        outputs = program.outputs(parameters, buffers, x[0], [0] * _LANES)
    valid = (rows, data.outputs)
    if outputs.shape[1:] != valid:
        raise ValueError(f"its output for {rows} examples has shape {tuple(outputs.shape[1:])}, not {valid}")
    with program.mode(training=True, active=active):
        loss, gradients = program.gradients(parameters, buffers, x, y, [0] * _LANES)
    return [loss, *gradients, *buffers.values(), outputs]


def _doubled(tensors: Tensors) -> Tensors:
    return {name: torch.stack([tensor] * _LANES) for name, tensor in tensors.items()}
