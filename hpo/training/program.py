"""How the stacked lanes of one network run: fused by `torch.func.vmap`, or one by one behind the same face.

Shapes: K lanes, B examples of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hpo.config import Task
from hpo.training.layout import Layout, Tensors
from hpo.training.losses import losses
from hpo.training.recording import side_by_side
from hpo.training.streams import seeded
from models.layers import Dropout

Forward = Callable[[Tensors, Tensors, Tensor], tuple[Tensor, Tensors]]
"""Parameters, buffers and examples → outputs, and the buffers that the network assigned anew."""


MOST_COMPILED = 256
"""Programs of one class that torch compiles: all share a method, of which it would take 8."""


class Batch(NamedTuple):
    """The examples of one step, and what else is every lane's own in it."""

    x: Tensor
    """[K, B, ...]"""
    y: Tensor
    """[K, B]"""
    seeds: Sequence[int]
    """For each lane, where the module draws from torch's generator."""
    smoothing: Tensor | None = None
    """[K], see `losses`."""


class Program(ABC):
    """One network and the way its lanes run.

    Parameters and buffers are stacked, [K, ...] each by qualified name; a forward pass changes buffers in
    place. With `bfloat16`, that is what layers compute in where autocast says so; parameters, buffers,
    outputs and losses stay float32.
    """

    lanewise = False
    """Whether lanes run one by one, so that more of them take just as long each."""

    def __init__(
        self, module: nn.Module, task: Task, bfloat16: bool = False, channels_last: bool = False
    ) -> None:
        self.module = module
        self.task = task
        self.bfloat16 = bfloat16
        self.channels_last = channels_last
        self.layout = Layout(module, channels_last)
        self.dropouts = {name: layer for name, layer in module.named_modules() if isinstance(layer, Dropout)}
        parameters = len(list(module.named_parameters(remove_duplicate=False)))
        self._tied = parameters > len(list(module.parameters()))
        self._compiled: Callable[..., Any] | None = None
        self.recorded = False
        """Whether training steps may be recorded, see `hpo.training.recording`."""

    @abstractmethod
    def gradients(self, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors) -> Tensor:
        """A training pass: the losses' gradients go into `out`, which is like `parameters`. → losses [K]"""

    @abstractmethod
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Without gradients, on examples that all lanes share. x: [N, ...] → [K, N, outputs]"""

    @abstractmethod
    def compile(self) -> None:
        """Compile training passes, when they first run; evaluation stays as it is."""

    @property
    def compiled(self) -> bool:
        """Whether training passes are."""
        return self._compiled is not None

    def interpret(self) -> None:
        """Undo `compile`."""
        self._compiled = None

    def release(self) -> None:
        """Let go of the module's own tensors, for lanes bring theirs; compiled code may look at them.

        A search of the width would keep them all otherwise.
        """
        if not self.compiled:
            for tensor in (*self.module.parameters(), *self.module.buffers()):
                tensor.data = tensor.new_empty(0)

    @contextmanager
    def mode(self, training: bool, active: Mapping[str, bool], alike: int = 1) -> Iterator[None]:
        """Layers train or evaluate within this.

        active: names the dropout layers in which lanes drop. alike: so many neighbours have equal masks.
        """
        self.module.train(training)
        for name, layer in self.dropouts.items():
            # Compiled anew for each combination otherwise; where nothing is dropped, masks are 1.
            layer.active = active[name] or self.compiled
            layer.alike = 1 if self.compiled else alike
        yield

    def _lane(self, parameters: Tensors, buffers: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
        """One lane's forward pass."""
        state = {**parameters, **buffers}
        for layer in self.dropouts.values():
            layer.calls = 0
        with self._autocast(x):
            outputs: Tensor = functional_call(self.module, state, (x,), tie_weights=self._tied)
        assigned = {name: state[name] for name, was in buffers.items() if state[name] is not was}
        return outputs.to(x.dtype), assigned

    def _autocast(self, x: Tensor) -> AbstractContextManager[None]:
        """For one forward pass: what it remembers of the weights in bfloat16 is not of the next step's."""
        return torch.autocast(x.device.type, torch.bfloat16) if self.bfloat16 else nullcontext()


class Fused(Program):
    """All lanes in one forward and one backward pass, by vmap.

    It covers the forward pass alone, and autograd takes the gradient over operations that are batched
    already: at 64 lanes, batch 32, this takes two thirds of the time of `vmap(grad_and_value(...))`. Lanes do
    not meet, so the gradient of the losses' sum is each lane's own.
    """

    def __init__(self, module: nn.Module, task: Task, bfloat16: bool = False) -> None:
        super().__init__(module, task, bfloat16)
        self._alone = OneByOne(module, task, bfloat16)
        self._lanes: Forward = vmap(self._lane, in_dims=(0, 0, 0))
        self._shared: Forward = vmap(self._lane, in_dims=(0, 0, None))

    def gradients(self, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors) -> Tensor:
        """See `Program`."""
        if len(batch.x) == 1:  # a third of the time without vmap; compiled, it would be compiled once more
            return self._alone.gradients(parameters, buffers, batch, out)
        outputs, assigned = (self._compiled or self._lanes)(parameters, buffers, batch.x)
        _assign(buffers, assigned)
        loss = losses(self.task, outputs, batch.y, batch.smoothing)
        _write_gradients(loss.sum(), parameters, out)
        return loss.detach()

    @torch.no_grad()
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Program`."""
        outputs, assigned = self._shared(parameters, buffers, x)
        _assign(buffers, assigned)
        return outputs

    def compile(self) -> None:
        """See `Program`. Once for all numbers of lanes."""
        self._compiled = any_lanes(compiled(self._lanes))


class OneByOne(Program):
    """One lane after the other: for modules that vmap cannot trace, or that gain nothing by it.

    What a module draws from torch's generator (functional dropout, for instance) starts at a seed of the
    lane's own.
    """

    lanewise = True

    def gradients(self, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors) -> Tensor:
        """See `Program`."""
        with side_by_side(batch.x.device, len(batch.x)) as aside:
            loss = []
            for lane in range(len(batch.x)):
                with aside(lane):
                    loss.append(self._gradients_of(lane, parameters, buffers, batch, out))
        return torch.cat(loss)

    def _gradients_of(
        self, lane: int, parameters: Tensors, buffers: Tensors, batch: Batch, out: Tensors
    ) -> Tensor:
        """One lane's training pass. → its loss, [1]"""
        leaves = {name: stacked[lane].detach().requires_grad_() for name, stacked in parameters.items()}
        with self._seeded(batch.seeds[lane], batch.x.device):
            outputs = self._run(self._compiled or self._lane, leaves, buffers, lane, batch.x[lane])
        smoothing = None if batch.smoothing is None else batch.smoothing[lane : lane + 1]
        own = losses(self.task, outputs[None], batch.y[lane][None], smoothing)
        _write_gradients(own[0], leaves, {name: stacked[lane] for name, stacked in out.items()})
        return own.detach()

    def _seeded(self, seed: int, device: torch.device) -> AbstractContextManager[None]:
        """What is recorded draws nothing, so that no generator needs a seed."""
        return nullcontext() if self.recorded else seeded(seed, device)

    @torch.no_grad()
    def outputs(self, parameters: Tensors, buffers: Tensors, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """See `Program`."""
        found = []
        for lane, seed in enumerate(seeds):
            with seeded(seed, x.device):
                own = {name: stacked[lane] for name, stacked in parameters.items()}
                found.append(self._run(self._lane, own, buffers, lane, x))
        return torch.stack(found)

    def compile(self) -> None:
        """See `Program`."""
        self._compiled = compiled(self._lane)

    def _run(self, forward: Forward, parameters: Tensors, buffers: Tensors, lane: int, x: Tensor) -> Tensor:
        own = {name: stacked[lane] for name, stacked in buffers.items()}
        if self.channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        outputs, assigned = forward(parameters, own, x)
        _assign(own, assigned)
        return outputs


def _write_gradients(loss: Tensor, parameters: Tensors, out: Tensors) -> None:
    gradients = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
    for place, gradient in zip(out.values(), gradients, strict=True):
        place.copy_(gradient)


def _assign(buffers: Tensors, assigned: Tensors) -> None:
    for name, tensor in assigned.items():
        buffers[name].copy_(tensor.detach())


def compiled(passes: Callable[..., Any]) -> Callable[..., Any]:
    """As one graph, or not at all."""
    import torch._dynamo  # a second more, where nothing is compiled

    torch._dynamo.config.recompile_limit = MOST_COMPILED
    return torch.compile(passes, fullgraph=True)


def any_lanes(passes: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled `passes`, whose arguments are tensors with the lanes first, and dictionaries of such.

    The number of lanes is all that varies; `dynamic=True` takes equal sizes for the same one.
    """
    from torch._dynamo import mark_dynamic  # a second more, where nothing is compiled

    def called(*arguments: Tensor | Tensors) -> Any:
        for argument in arguments:
            for tensor in argument.values() if isinstance(argument, dict) else (argument,):
                mark_dynamic(tensor, 0)
        return passes(*arguments)

    return called
