"""Running programs of one network on real examples: what they come to, and how long they take.

Shapes: K lanes, B examples of a batch.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hpo.training.device_data import DeviceData
from hpo.training.layout import Tensors, constants, joined
from hpo.training.memory import out_of_memory
from hpo.training.program import Batch, Program
from hpo.training.recording import record, run_aside, unsynchronized
from hpo.training.streams import generators

LANES, ROWS = 2, 16
"""That are compared; of a smaller batch all rows, and of a chain too."""
TOLERANCE = {False: (0.05, 0.05), True: (0.75, 0.1)}
"""Of the size of a gradient, and of any other tensor, by root mean square; in bfloat16 or not. Between
channels first and last, gradients of vgg16 differ by 0.013, in bfloat16 by 0.43, and outputs by 0.004: which
of nearly equal pixels a pooling takes hangs on rounding. A gradient that is missing differs by 0.95 or more.
"""
FLOOR = 0.05
"""Part of the usual size that is added to it: some gradients are rounding alone, those of a bias before batch
norm for instance."""
NOISE = 0.01
"""Of the weights' root mean square, by which lanes differ."""
LEAST_RUNS, RUNS = 2, 10
"""Of what is timed; the first warms up."""
BUDGET = 0.1
"""Seconds after which there are no more than the fewest runs."""


class Results(NamedTuple):
    """What lanes come to in one step."""

    gradients: list[Tensor]
    """[K, ...] each."""
    others: list[Tensor]
    """Losses [K], buffers [K, ...] each, and outputs [K, B, outputs] in evaluation."""


class Probe:
    """Examples of a data set's first fold, and lanes that have nearly the weights of one network."""

    def __init__(self, module: nn.Module, data: DeviceData, batch_size: int) -> None:
        self.module = module
        self.data = data
        self.steps, self.rows = data.steps(batch_size)

    def results(self, program: Program, rows: int = ROWS) -> Results:
        """What two lanes of different weights, examples and dropout masks come to.

        Raises:
            ValueError: the outputs have the wrong shape, or the network changes its input.
            Exception: whatever else the network raises.
        """
        step = _Step(program, self, LANES, min(self.rows, rows))
        examples = step.x[0].clone()
        with program.mode(training=False, active=dict.fromkeys(program.dropouts, True)):
            outputs = program.outputs(step.parameters, step.buffers, examples, range(LANES))
        valid = (len(examples), self.data.outputs)
        if outputs.shape[1:] != valid:
            shape = tuple(outputs.shape[1:])
            raise ValueError(f"its output for {len(examples)} examples has shape {shape}, not {valid}")
        if not torch.equal(examples, step.x[0]):
            raise ValueError("it changes its input in place, which others read too; it must work on a copy")
        step.run()
        return step.results(outputs)

    def difference(self, program: Program, expected: Results, rows: int = ROWS) -> str | None:
        """Why `program` will not do: it raises, or comes to other results. None where it will.

        Raises:
            RuntimeError: memory ran out, which says nothing of the program.
        """
        try:
            return _difference(self.results(program, rows), expected, program.bfloat16)
        except Exception as error:  # vmap raises what it cannot do in many ways
            if out_of_memory(error):
                raise
            return reason(error)

    def recorded_difference(self, program: Program) -> str | None:
        """Why steps of `program` cannot be recorded (it waits for the device, say). None where they can.

        What was recorded is replayed on other examples, and with buffers as they were.

        Raises:
            RuntimeError: memory ran out, which says nothing of the program.
        """
        rows, device = min(self.rows, ROWS), self.data.device
        expected, step = (_Step(program, self, LANES, rows, first) for first in (0, 1))
        try:
            before = generators(device)
            with unsynchronized(device):
                run_aside(step.run, device)
            if generators(device) != before:
                return "it draws random numbers of its own"
            replay = record(step.run, device, shared=False)
            for mine, its in zip(step.read(), expected.read(), strict=True):
                mine.copy_(its)
            replay()
            expected.run()
            return _difference(step.results(), expected.results(), program.bfloat16)
        except Exception as error:
            if out_of_memory(error):
                raise
            return reason(error)

    def seconds(self, program: Program, lanes: int) -> float:
        """Of one step, for each lane: the shortest of a few, as other processes only add to it."""
        step = _Step(program, self, lanes, self.rows)
        run = step.run
        if program.recorded:
            run_aside(run, self.data.device)
            run = record(run, self.data.device)
        taken: list[float] = []
        while len(taken) < LEAST_RUNS or (len(taken) < RUNS and sum(taken) < BUDGET):
            self._wait()
            began = time.perf_counter()
            run()
            self._wait()
            taken.append(time.perf_counter() - began)
        return min(taken) / lanes

    def _wait(self) -> None:
        if self.data.device.type == "cuda":
            torch.cuda.synchronize(self.data.device)


class _Step:
    """Training passes of K lanes of one program, on B examples each.

    x: [K, B, *input_shape], y: [K, B]. Lanes differ in all that they may differ in, so that those that are
    mixed up show it. Nothing is drawn from torch's own generator.
    """

    def __init__(self, program: Program, probe: Probe, lanes: int, batch: int, first: int = 0) -> None:
        """first: example of the first lane."""
        self.program = program
        weights = torch.stack([program.layout.row(probe.module)["weights"]] * lanes)
        _add_noise(program.layout.parameters(weights))
        self.parameters = {
            name: view.requires_grad_() for name, view in program.layout.parameters(weights).items()
        }
        self.gradients = program.layout.parameters(torch.empty_like(weights))
        self.buffers: Tensors = {
            name: torch.stack([tensor] * lanes) for name, tensor in constants(probe.module).items()
        }
        each = torch.arange(lanes, device=probe.data.device)
        for name in program.dropouts:
            self.buffers[joined(name, "key")] = each.int()
        self.losses = weights.new_zeros(lanes)
        rows = torch.arange(first, first + batch, device=probe.data.device) + each[:, None]
        self.x, self.y = probe.data.batch(rows % probe.data.sizes[0])

    def run(self) -> None:
        """One pass."""
        program = self.program
        with program.mode(training=True, active=dict.fromkeys(program.dropouts, True)):
            batch = Batch(self.x, self.y, range(len(self.x)))
            self.losses.copy_(program.gradients(self.parameters, self.buffers, batch, self.gradients))

    def read(self) -> list[Tensor]:
        """What a pass reads besides weights."""
        return [self.x, self.y, *self.buffers.values()]

    def results(self, *outputs: Tensor) -> Results:
        """What the last pass came to."""
        return Results(list(self.gradients.values()), [self.losses, *self.buffers.values(), *outputs])


def _add_noise(parameters: Tensors) -> None:
    """Of each lane's own, to what layers initialize with zeros too, so that gradients pass everywhere."""
    scale = NOISE * _rms(list(parameters.values()))
    for lane in range(len(next(iter(parameters.values())))):
        generator = torch.Generator().manual_seed(lane)
        for stacked in parameters.values():
            noise = torch.randn(stacked.shape[1:], generator=generator, dtype=stacked.dtype)
            stacked[lane].add_(noise.to(stacked.device), alpha=scale)


def reason(error: Exception) -> str:
    """One line for a log."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"


def _rms(tensors: Sequence[Tensor]) -> float:
    """The root mean square of all their finite numbers."""
    squares = sum(float(tensor.double().nan_to_num(0, 0, 0).square().sum()) for tensor in tensors)
    return float((squares / sum(tensor.numel() for tensor in tensors)) ** 0.5)


def _difference(results: Results, expected: Results, bfloat16: bool) -> str | None:
    of_gradients, of_others = TOLERANCE[bfloat16]
    same = _close(results.others, expected.others, of_others, 1.0)
    same = same and _close(results.gradients, expected.gradients, of_gradients, _rms(expected.gradients))
    return None if same else "its results differ"


def _close(results: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float, usual: float) -> bool:
    """Of each tensor as a whole: single elements hang on which of two nearly equal ones a pooling takes."""
    for result, other in zip(results, expected, strict=True):
        known = other.isfinite()
        if not torch.equal(result.isfinite(), known):
            return False
        difference = torch.where(known, result.double() - other.double(), 0.0)
        if _rms([difference]) > tolerance * (_rms([other]) + FLOOR * usual):
            return False
    return True
