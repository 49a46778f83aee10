"""How the stacked lanes of one network run: fused by `torch.func.vmap`, or one by one behind the same face.

Shapes: K lanes, B examples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hpo.config import Task
from hpo.training.layout import Layout, Tensors
from hpo.training.streams import seeded
from models.layers import Dropout


def losses(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Each lane's mean loss: cross-entropy, or squared error. outputs: [K, B, C], targets: [K, B] → [K]"""
    if task == "regression":
        return (outputs.squeeze(-1) - targets).square().mean(1)
    each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


class Program(ABC):
    """One network and the way its lanes run.

    Parameters and buffers are stacked, [K, ...] each by qualified name; a forward pass changes buffers in
    place.
    """

    def __init__(self, module: nn.Module, task: Task) -> None:
        self.module = module
        self.task = task
        self.layout = Layout(module)
        self.dropouts = {name: layer for name, layer in module.named_modules() if isinstance(layer, Dropout)}
        parameters = len(list(module.named_parameters(remove_duplicate=False)))
        self._tied = parameters > len(list(module.parameters()))

    @abstractmethod
    def gradients(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """A training pass. x: [K, B, ...], y: [K, B] → losses [K], gradients like `parameters`.

        seeds: for each lane, where the module draws from torch's generator.
        """

    @abstractmethod
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Without gradients, on examples that all lanes share. x: [N, ...] → [K, N, outputs]"""

    @contextmanager
    def mode(self, training: bool, active: Mapping[str, bool]) -> Iterator[None]:
        """Layers train or evaluate within this; `active` names the dropout layers in which lanes drop."""
        self.module.train(training)
        for name, layer in self.dropouts.items():
            layer.active = active[name]
        yield

    def _call(self, state: Tensors, x: Tensor) -> Tensor:
        """One forward pass; a buffer that the module assigns anew is assigned in `state`."""
        for layer in self.dropouts.values():
            layer.calls = 0
        outputs: Tensor = functional_call(self.module, state, (x,), tie_weights=self._tied)
        return outputs


class Fused(Program):
    """All lanes in one forward and one backward pass.

    vmap covers the forward pass alone: lanes do not meet, so the gradient of the losses' sum is each lane's
    own, and autograd takes it over operations that are batched already. At 64 lanes, batch 32, this takes
    two thirds of the time of `vmap(grad_and_value(...))`.
    """

    def __init__(self, module: nn.Module, task: Task) -> None:
        super().__init__(module, task)
        self._alone = OneByOne(module, task)
        self._lanes: Callable[..., tuple[Tensor, Tensors]] = vmap(self._lane, in_dims=(0, 0, 0))
        self._shared: Callable[..., tuple[Tensor, Tensors]] = vmap(self._lane, in_dims=(0, 0, None))

    def gradients(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Program`."""
        if len(x) == 1:  # a third of the time without vmap
            return self._alone.gradients(parameters, buffers, x, y, seeds)
        outputs, assigned = self._lanes(parameters, buffers, x)
        _assign(buffers, assigned)
        loss = losses(self.task, outputs, y)
        leaves = list(parameters.values())
        return loss.detach(), torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)

    @torch.no_grad()
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Program`."""
        outputs, assigned = self._shared(parameters, buffers, x)
        _assign(buffers, assigned)
        return outputs

    def _lane(self, parameters: Tensors, buffers: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        state = {**parameters, **buffers}
        outputs = self._call(state, x)
        return outputs, {name: state[name] for name, was in buffers.items() if state[name] is not was}


class OneByOne(Program):
    """One lane after the other, for modules that vmap cannot trace.

    What such a module draws from torch's generator (functional dropout, for instance) starts at a seed of
    the lane's own.
    """

    def gradients(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, y: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """See `Program`."""
        found = {name: torch.zeros_like(stacked) for name, stacked in parameters.items()}
        loss = []
        for lane, seed in enumerate(seeds):
            leaves = {name: stacked[lane].detach().requires_grad_() for name, stacked in parameters.items()}
            with seeded(seed, x.device):
                outputs = self._lane(leaves, buffers, lane, x[lane])
            loss.append(losses(self.task, outputs[None], y[lane][None])[0])
            gradients = torch.autograd.grad(loss[-1], list(leaves.values()), allow_unused=True)
            for stacked, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    stacked[lane] = gradient
        return torch.stack(loss).detach(), list(found.values())

    @torch.no_grad()
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Program`."""
        found = []
        for lane, seed in enumerate(seeds):
            with seeded(seed, x.device):
                own = {name: stacked[lane] for name, stacked in parameters.items()}
                found.append(self._lane(own, buffers, lane, x))
        return torch.stack(found)

    def _lane(self, parameters: Tensors, buffers: Tensors, lane: int, x: Tensor) -> Tensor:
        own = {name: stacked[lane] for name, stacked in buffers.items()}
        state = {**parameters, **own}
        outputs = self._call(state, x)
        _assign(own, {name: state[name] for name, was in own.items() if state[name] is not was})
        return outputs


def _assign(buffers: Tensors, assigned: Tensors) -> None:
    for name, tensor in assigned.items():
        buffers[name].copy_(tensor.detach())
