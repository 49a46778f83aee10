"""A cohort: the lanes of one shape key that one worker trains together."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hpo.config import Metric, TrialSettings
from hpo.errors import TrialError
from hpo.training.architecture import Architecture
from hpo.training.averages import averaging, with_averages
from hpo.training.choice import program_of
from hpo.training.device_data import DeviceData
from hpo.training.lane import EpochResult, Lane, LaneKey, LaneState
from hpo.training.program import Program
from hpo.training.shapes import shape_key
from hpo.training.stack import Member, Stack
from hpo.training.streams import seeded, stream
from hpo.training.structure import structure
from models.layers import stackable

_EXPORTED = ("average", "parameters", "buffers")
"""Where a lane's state may have a tensor of its network: the first that there is counts."""


class Cohort:
    """Lanes that train side by side, fused where `torch.func.vmap` can trace the network.

    A lane's results depend on its key and settings alone, within rounding, whatever the other lanes are and
    wherever it was begun. Lanes of one shape key can still differ in structure (a builder that leaves the
    dropout out at rate 0, say); those that are equal are fused with each other.
    """

    def __init__(
        self,
        architecture: Architecture,
        data: DeviceData,
        metric: Metric,
        settings: TrialSettings,
        epochs: int,
    ) -> None:
        """An empty cohort for lanes of the shape key of `settings` that train for `epochs` in all."""
        self.architecture = architecture
        self.data = data
        self.metric = metric
        self.shape_key = shape_key(settings)
        self.batch_size = settings.hyperparameters.batch_size
        self.epochs = epochs
        self._stacks: dict[Hashable, Stack] = {}
        self._lanes: dict[LaneKey, tuple[Lane, Stack]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def keys(self) -> tuple[LaneKey, ...]:
        """The lanes, in the order in which they were added."""
        return tuple(self._lanes)

    @property
    def fuses(self) -> bool:
        """Whether there are lanes that run fused, or recorded side by side, so that more of them may gain."""
        programs = [stack.program for stack in self._stacks.values()]
        return any(program.recorded or not program.lanewise for program in programs)

    def add(self, lanes: Sequence[Lane], states: Mapping[LaneKey, LaneState] | None = None) -> None:
        """Take in `lanes`: all of them or, when this raises, none. Those with a state go on from it.

        Raises:
            TrialError: the architecture cannot be built with a lane's options, or does not run on the data.
            ValueError: a lane is there already, is of another shape key, or has a fold that is not there.
        """
        for lane in lanes:
            self._check(lane)
        self._take([self._build(lane, (states or {}).get(lane.key)) for lane in lanes])

    def add_copies(self, settings: TrialSettings, keys: Sequence[LaneKey]) -> None:
        """Take in lanes of the same settings, as `add` does; all begin with the weights of the first.

        For measurements: where networks are small, to build each takes longer than to train them.
        """
        lanes = [Lane(key, settings) for key in keys]
        for lane in lanes:
            self._check(lane)
        kind, program, first = self._build(lanes[0], None)
        self._take([(kind, program, Member(lane, 0, first.row)) for lane in lanes])

    def drop(self, keys: Collection[LaneKey]) -> None:
        """Let lanes go.

        Raises:
            KeyError: there is no such lane.
        """
        for key in keys:
            _, stack = self._lanes.pop(key)
            stack.drop(key)
        self._stacks = {structure: stack for structure, stack in self._stacks.items() if len(stack)}

    def train_epoch(self, stop: Callable[[], bool] = lambda: False) -> dict[LaneKey, EpochResult]:
        """Every lane goes on by one epoch and is evaluated on its fold's validation part.

        A loss that is not finite is a lane's own: it is reported, and no other lane is changed by it.

        Raises:
            Interrupted: `stop`, asked before each step, said so; the lanes are of no more use.
        """
        results = {}
        for stack in self._stacks.values():
            trained = stack.train_epoch(stop)
            values = stack.evaluate(self.metric)
            for key, (epoch, loss) in trained.items():
                results[key] = EpochResult(epoch, loss, values[key])
        return {key: results[key] for key in self._lanes}

    def state(self, key: LaneKey) -> LaneState:
        """All that a lane needs to go on in another cohort, on the CPU."""
        _, stack = self._lanes[key]
        return stack.state(key)

    def predict(self, features: Tensor) -> Tensor:
        """What every lane predicts, in the order of `keys`.

        features: [N, *input_shape] → [K, N, outputs]: logits or, for a regression, the targets' own unit.
        """
        found: dict[LaneKey, Tensor] = {}
        for stack in self._stacks.values():
            found.update(stack.predict(features))
        return torch.stack([found[key] for key in self._lanes])

    def module(self, key: LaneKey) -> nn.Module:
        """The lane's network on the CPU, of ordinary layers, in eval mode.

        A regression's predicts standardized targets: (y - target_mean) / target_scale of the lane's fold.
        """
        lane, stack = self._lanes[key]
        module = self._fresh(lane)
        state = stack.state(key).tensors
        with torch.no_grad():
            for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                names = [f"{group}.{name}" for group in _EXPORTED]
                own = [state[found] for found in names if found in state]
                if own:
                    tensor.copy_(own[0])
        return module.eval()

    def _check(self, lane: Lane) -> None:
        if lane.key in self._lanes:
            raise ValueError(f"{lane.key} is in this cohort already")
        if shape_key(lane.settings) != self.shape_key:
            raise ValueError(f"{lane.key} has shape key {shape_key(lane.settings)}, not {self.shape_key}")
        if not 0 <= lane.key.fold < len(self.data.sizes):
            raise ValueError(f"{lane.key}: the data has folds 0 to {len(self.data.sizes) - 1}")

    def _take(self, built: Sequence[tuple[Hashable, Program, Member]]) -> None:
        for kind, program, member in built:
            if kind not in self._stacks:
                self._stacks[kind] = self._stack(program)
            self._stacks[kind].add(member)
            self._lanes[member.lane.key] = member.lane, self._stacks[kind]

    def _stack(self, program: Program) -> Stack:
        # Not for the epochs that this cohort trains: a schedule that is cut short is not compressed.
        return Stack(program, self.data, self.batch_size, self.architecture.config.training.epochs)

    def _fresh(self, lane: Lane) -> nn.Module:
        with seeded(stream(lane.key, "weights"), torch.device("cpu")):
            return self.architecture.build(lane.settings.options)

    def _build(self, lane: Lane, state: LaneState | None) -> tuple[Hashable, Program, Member]:
        module = stackable(self._fresh(lane).to(self.data.dtype))
        kind = (structure(module), self.data.steps(self.batch_size)[1])
        if kind not in self.architecture.programs:
            module = module.to(self.data.device)
            self.architecture.programs[kind] = program_of(
                self.architecture, module, self.data, self.batch_size
            )
        program = self.architecture.programs[kind]
        hyperparameters = lane.settings.hyperparameters
        row = {name: tensor.to(self.data.device) for name, tensor in program.layout.row(module).items()}
        if averaging([hyperparameters]):
            row = with_averages(row, program.layout)
        if program.module is module:
            program.release()
        if state is None:
            return kind, program, Member(lane, 0, row)
        for name, tensor in program.layout.named(row, hyperparameters).items():
            if name not in state.tensors or state.tensors[name].shape != tensor.shape:
                raise TrialError(f"the state of {lane.key} does not fit its architecture: {name!r}")
            tensor.copy_(state.tensors[name])
        return kind, program, Member(lane, state.epoch, row)
