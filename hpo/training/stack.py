"""Lanes of one structure, their tensors stacked: one row a lane.

Shapes: K lanes, P trainable parameters of a lane, flattened; B examples of a batch, S steps of an epoch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hpo.config import Hyperparameters, Metric
from hpo.errors import Interrupted
from hpo.training.augmentation import Augmentation
from hpo.training.averages import Averages, averaging, evaluated, with_averages, without_averages
from hpo.training.course import Course
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey, LaneState
from hpo.training.layout import Tensors, joined, stacked
from hpo.training.optimizers import ORDER, Optimizers, Rows
from hpo.training.program import Batch, Program
from hpo.training.recording import Recorder, of_step
from hpo.training.schedules import Schedules
from hpo.training.scores import score
from hpo.training.streams import alike, dropout_keys, sample_order, stream

EVALUATION_ROWS = {"cpu": 256, "cuda": 2048}
"""Examples that a lane evaluates at once, at least: without gradients they take less memory than a batch."""


@dataclass(eq=False)
class Member:
    """A lane of a stack; `row` holds its tensors until they are stacked."""

    lane: Lane
    epoch: int
    row: Tensors | None
    index: int = -1
    """Of its row among the stacked ones."""


class Stack:
    """Lanes that run as one program. They come and go at no cost until the next epoch begins."""

    def __init__(self, program: Program, data: DeviceData, batch_size: int, epochs: int) -> None:
        """epochs: of a whole training, for schedules."""
        self.epochs = epochs
        self.program = program
        self.layout = program.layout
        self.data = data
        self.batch_size = batch_size
        self._members: dict[LaneKey, Member] = {}
        self._rows: Tensors = {}
        self._changed = False
        self._recorder: Recorder | None = None
        """Of the steps since lanes came or went."""

    def __len__(self) -> int:
        return len(self._members)

    @property
    def keys(self) -> list[LaneKey]:
        """The lanes in the order of their rows."""
        self._settle()
        return list(self._members)

    def add(self, member: Member) -> None:
        """Take in a lane."""
        self._members[member.lane.key] = member
        self._changed = True

    def drop(self, key: LaneKey) -> None:
        """Let a lane go."""
        del self._members[key]
        self._changed = True

    def state(self, key: LaneKey) -> LaneState:
        """All that the lane needs to go on elsewhere, on the CPU."""
        member = self._members[key]
        row = member.row or {name: tensor[member.index] for name, tensor in self._rows.items()}
        named = self.layout.named(row, member.lane.settings.hyperparameters)
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
        return LaneState(member.epoch, tensors)

    def train_epoch(self, stop: Callable[[], bool]) -> dict[LaneKey, tuple[int, float]]:
        """One epoch of every lane; answers their epochs so far and mean losses.

        Raises:
            Interrupted: `stop` said so before the epoch's end.
        """
        self._settle()
        steps = self.data.steps(self.batch_size)[0]
        run = self._begin(steps)
        with self.program.mode(training=True, active=self._active, alike=self._alike):
            for step in range(steps):
                if stop():
                    raise Interrupted(f"{len(self)} lanes stopped before step {step + 1} of {steps}")
                run(step)
        losses = (self._total / steps).tolist()
        for member in self._members.values():
            member.epoch += 1
        return {
            key: (member.epoch, loss)
            for (key, member), loss in zip(self._members.items(), losses, strict=True)
        }

    def _begin(self, steps: int) -> Callable[[int], None]:
        """Lay out an epoch; answers what makes each of its steps, one after the other."""
        course = self._laid_out(list(self._members.values()), steps)
        self._total.zero_()
        if not self.program.recorded:
            self._course = course
            return self._step
        if self._recorder is None:
            self._course = course
            self._recorder = Recorder(self._step, self.data.device)
        else:
            self._course.load(course)
        recorder = self._recorder
        recorder.begin()
        return lambda step: recorder()  # noqa: ARG005  (it counts on the device)

    def _step(self, step: int | Tensor) -> None:
        """One step of every lane; see `of_step`."""
        course = self._course
        self._buffers.update(zip(self._keys, of_step(course.keys, step), strict=True))
        x, y = self.data.batch(of_step(course.rows, step))
        x = self._augmentation(x, course.distortions, step)
        seeds = [seed + step for seed in course.seeds] if isinstance(step, int) else course.seeds
        batch = Batch(x, y, seeds, self._smoothing)
        self._total += self.program.gradients(self._parameters, self._buffers, batch, self._gradients)
        self._optimizers.step([of_step(terms, step) for terms in course.terms])
        self._averages.update(of_step(course.numbers, step))

    def evaluate(self, metric: Metric) -> dict[LaneKey, float]:
        """`metric` of every lane on its fold's validation part; nan where that is empty."""
        values = dict.fromkeys(self.keys, torch.nan)
        for fold, lanes in self._by_fold().items():
            part = self.data.validation[fold]
            if len(part):
                scores = score(metric, self._outputs(part.features, lanes), part.targets)
                values.update(zip(lanes, scores.tolist(), strict=True))
        return values

    def predict(self, features: Tensor) -> dict[LaneKey, Tensor]:
        """Outputs of every lane, on the CPU. features: [N, *input_shape] → [N, outputs] each"""
        self._settle()
        placed = self.data.placed(features)
        found: dict[LaneKey, Tensor] = {}
        for lanes in self._by_fold().values():
            found.update(zip(lanes, self._outputs(placed, lanes).cpu(), strict=True))
        return found

    def _by_fold(self) -> dict[int, list[LaneKey]]:
        """Lanes by their fold: those of one see the same examples, normalized alike."""
        folds: dict[int, list[LaneKey]] = {}
        for key in self._members:
            folds.setdefault(key.fold, []).append(key)
        return folds

    def _outputs(self, features: Tensor, lanes: Sequence[LaneKey]) -> Tensor:
        """Of lanes of one fold, in the targets' own unit. They share the examples.

        features: [N, *input_shape] → [K, N, outputs]
        """
        weights, buffers = evaluated(self._rows, self._buffers)
        members = [self._members[key] for key in lanes]
        if len(members) < len(self._members):
            index = torch.tensor([member.index for member in members], device=self.data.device)
            weights = weights.index_select(0, index)
            buffers = {name: tensor.index_select(0, index) for name, tensor in buffers.items()}
        parameters = self.layout.parameters(weights)
        seeds = [stream(member.lane.key, "evaluation", member.epoch) for member in members]
        with self.program.mode(training=False, active=self._active):
            chunks = torch.split(features, max(EVALUATION_ROWS[self.data.device.type], 2 * self.batch_size))
            outputs = [
                self.program.outputs(parameters, buffers, self.data.inputs(chunk, lanes[0].fold), seeds)
                for chunk in chunks
            ]
        return self.data.original(torch.cat(outputs, 1), [key.fold for key in lanes])

    def _laid_out(self, members: Sequence[Member], steps: int) -> Course:
        """The next epoch of every lane."""
        device, batch = self.data.device, self.data.steps(self.batch_size)[1]
        lanes = [(member.lane.key, member.epoch + 1) for member in members]
        orders = [sample_order(key, epoch, self.data.sizes[key.fold], steps * batch) for key, epoch in lanes]
        starts = torch.tensor([self.data.starts[key.fold] for key, _ in lanes])
        done = torch.tensor([member.epoch * steps for member in members], dtype=torch.float64)
        numbers = (done + torch.arange(1, steps + 1)[:, None]).to(device)
        return Course(
            rows=(torch.stack(orders) + starts[:, None]).view(-1, steps, batch).transpose(0, 1).to(device),
            keys=dropout_keys(lanes, steps, len(self._keys)).to(device),
            seeds=[stream(key, "torch", epoch) for key, epoch in lanes],
            numbers=numbers,
            terms=self._optimizers.laid_out(numbers, self._schedules.factors(numbers - 1)),
            distortions=self._augmentation.drawn(lanes, steps, batch),
        )

    def _settle(self) -> None:
        """Stack the rows of the lanes that are there, sorted by optimizer."""
        if not self._changed:
            return
        members = sorted(self._members.values(), key=_kind)
        self._settle_averages(members)
        sources = [member for member in members if member.row is None]
        fresh = [member.row for member in members if member.row is not None]
        places = iter(range(len(sources))), iter(range(len(sources), len(members)))
        order = [next(places[member.row is not None]) for member in members]
        if members:
            self._rows = stacked(self._rows, [member.index for member in sources], fresh, order)
        for index, member in enumerate(members):
            member.row, member.index = None, index
        self._members = {member.lane.key: member for member in members}
        self._changed = False
        self._prepare()

    def _settle_averages(self, members: Sequence[Member]) -> None:
        """All rows have averages if one lane does, else none."""
        fits = without_averages
        if averaging([member.lane.settings.hyperparameters for member in members]):
            fits = partial(with_averages, layout=self.layout)
        for member in members:
            member.row = fits(member.row) if member.row is not None else None
        self._rows = fits(self._rows) if self._rows else {}

    def _prepare(self) -> None:
        """What each step uses, as views of the rows."""
        weights = self._rows["weights"]
        views = self.layout.parameters(weights.detach())
        self._parameters = {name: view.requires_grad_() for name, view in views.items()}
        self._buffers = {
            name.removeprefix("buffers."): tensor
            for name, tensor in self._rows.items()
            if name.startswith("buffers.")
        }
        self._active = {
            name: bool((self._buffers[joined(name, "scale")] != 1).any()) for name in self.program.dropouts
        }
        self._alike = alike([(member.lane, member.epoch) for member in self._members.values()])
        self._keys = [joined(name, "key") for name in self.program.dropouts]
        self._total = torch.zeros(len(self._members), dtype=weights.dtype, device=weights.device)
        self._recorder = None
        first, second = self._rows["first"], self._rows["second"]
        self._gradients, parts = self.layout.gradients(weights)
        lanes = [member.lane.settings.hyperparameters for member in self._members.values()]
        rows = [Rows(weights[:, at], gradients, first[:, at], second[:, at]) for at, gradients in parts]
        self._optimizers = Optimizers(lanes, rows)
        self._prepare_lanes(lanes)

    def _prepare_lanes(self, lanes: Sequence[Hyperparameters]) -> None:
        """What each step uses of the lanes' hyperparameters."""
        dtype, device = self.data.dtype, self.data.device
        self._averages = Averages(self._rows, lanes)
        self._schedules = Schedules(lanes, self.data.steps(self.batch_size)[0], self.epochs, device)
        self._augmentation = Augmentation(lanes, self.data.shape, dtype, device)
        smoothing = [lane.label_smoothing for lane in lanes]
        self._smoothing = torch.tensor(smoothing, dtype=dtype, device=device) if any(smoothing) else None


def _kind(member: Member) -> int:
    return ORDER.index(member.lane.settings.hyperparameters.optimizer)
