"""Which way a network's lanes run, and in which numbers: what comes to the same results, and fast."""

import logging
from typing import TYPE_CHECKING

import structlog
from torch import nn

from hpo.errors import TrialError
from hpo.training.chain import Chain
from hpo.training.compiling import compile_if_it_pays
from hpo.training.device_data import DeviceData
from hpo.training.layout import convolutions_2d
from hpo.training.memory import out_of_memory
from hpo.training.precision import computes_in_bfloat16
from hpo.training.probe import Probe, Results, reason
from hpo.training.program import Fused, OneByOne, Program

if TYPE_CHECKING:
    from hpo.training.architecture import Architecture

log = structlog.get_logger()

LONG = 0.02
"""Seconds of a lane's step from which on fusing is not tried: it saves about a millisecond of Python."""
MARGIN = 1.25
"""Times as fast as one by one that fused lanes must be, so that noise seldom decides."""
_MOST_TIMED, _TIMED = 16, 0.05
"""Lanes that are timed fused, at most; and seconds that they would take one by one."""


def program_of(architecture: "Architecture", module: nn.Module, data: DeviceData, batch_size: int) -> Program:
    """A fast one of the programs that come to what lanes alone come to.

    The clock chooses between fused and one by one alone. A chain is not timed: from width 64 to 2,048 and
    batch 64 to 512 it never took longer than lane by lane.

    Raises:
        TrialError: the network does not run on the data, or its outputs have the wrong shape.
        RuntimeError: memory ran out.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise TrialError(f"architecture {architecture.name!r} has no parameters to train")
    try:
        return _Choice(architecture, module, data, batch_size).program()
    except Exception as error:
        if isinstance(error, TrialError) or out_of_memory(error):
            raise
        raise TrialError(
            f"architecture {architecture.name!r} does not run: {type(error).__name__}: {error}"
        ) from error


class _Choice:
    def __init__(
        self, architecture: "Architecture", module: nn.Module, data: DeviceData, batch_size: int
    ) -> None:
        self.architecture = architecture
        self.module = module
        self.data = data
        self.probe = Probe(module, data, batch_size)
        option = architecture.config.training.precision
        self.bfloat16 = computes_in_bfloat16(option, module, data.device, data.dtype)
        self.expected = self._expected()

    def program(self) -> Program:
        program = self._interpreted()
        why_not = compile_if_it_pays(program, self.probe, self.architecture.config, self.architecture.trials)
        if why_not is not None:
            asked = self.architecture.config.training.compile == "on"
            self._say(logging.WARNING if asked else logging.INFO, "a network is not compiled", reason=why_not)
        return program

    def _interpreted(self) -> Program:
        chain = None if self.bfloat16 else Chain.of(self.module, self.data.task)
        if chain is not None and self._is_as_alone(chain):
            return self._recorded(chain)
        alone = self._recorded(self._one_by_one())
        seconds = self.probe.seconds(alone, 1)
        if seconds > LONG:
            self._say_one_by_one(seconds, "not tried")
            return alone
        fused = Fused(self.module, self.data.task, self.bfloat16)
        why_not = self._difference(fused)
        if why_not is not None:
            self._say(logging.WARNING, "the architecture trains lane by lane", reason=why_not)
            return alone
        lanes = max(2, min(_MOST_TIMED, int(_TIMED / seconds)))
        fused_seconds = self.probe.seconds(self._recorded(fused), lanes)
        if alone.recorded:  # side by side
            seconds = self.probe.seconds(alone, lanes)
        if fused_seconds * MARGIN <= seconds:
            return fused
        self._say_one_by_one(seconds, f"{1000 * fused_seconds:.1f} ms")
        return alone

    def _is_as_alone(self, chain: Chain) -> bool:
        """With all rows of a batch: how many there are decides how a chain computes."""
        alone = OneByOne(self.module, self.data.task, self.bfloat16)
        expected = self.probe.results(alone, self.probe.rows)
        return self.probe.difference(chain, expected, self.probe.rows) is None

    def _recorded(self, program: Program) -> Program:
        """`program`, whose steps are recorded where a GPU can."""
        if self.data.device.type != "cuda" or self.architecture.config.training.compile == "off":
            return program
        program.recorded = True
        why_not = self.probe.recorded_difference(program)
        if why_not is not None:
            program.recorded = False
            self._say(logging.INFO, "training steps are not recorded as CUDA graphs", reason=why_not)
        return program

    def _one_by_one(self) -> Program:
        """With channels last where a CPU convolves (ARCHITECTURE.md has times), or tensor cores do."""
        alone = OneByOne(self.module, self.data.task, self.bfloat16)
        if not convolutions_2d(self.module) or not (self.data.device.type == "cpu" or self.bfloat16):
            return alone
        last = OneByOne(self.module, self.data.task, self.bfloat16, channels_last=True)
        # What views an activation as rows of features, say, does not run so.
        return last if self._difference(last) is None else alone

    def _expected(self) -> Results:
        """What lanes alone come to, in bfloat16 where that is asked for and runs."""
        try:
            expected = self.probe.results(OneByOne(self.module, self.data.task, self.bfloat16))
        except Exception as error:
            if out_of_memory(error) or not self.bfloat16:
                raise
            return self._in_float32(error)
        if self.bfloat16:
            self._say(logging.INFO, "the architecture computes in bfloat16")
        return expected

    def _in_float32(self, error: Exception) -> Results:
        self.bfloat16 = False
        expected = self._expected()  # raises where it does not run at all
        if self.architecture.config.training.precision == "bfloat16":
            raise TrialError(
                f"architecture {self.architecture.name!r} does not run in bfloat16 (training.precision): "
                f"{type(error).__name__}: {error}"
            ) from error
        self._say(logging.INFO, "the architecture computes in float32", reason=reason(error))
        return expected

    def _difference(self, program: Program) -> str | None:
        return self.probe.difference(program, self.expected)

    def _say_one_by_one(self, seconds: float, fused: str) -> None:
        event = "lanes train one by one, which is faster"
        self._say(logging.INFO, event, fused=fused, alone=f"{1000 * seconds:.1f} ms")

    def _say(self, level: int, event: str, **details: str) -> None:
        """Once for all networks of an architecture."""
        if event not in self.architecture.said:
            self.architecture.said.add(event)
            log.log(level, event, architecture=self.architecture.name, **details)
