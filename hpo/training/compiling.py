"""`training.compile`: whether a program's training passes are compiled by `torch.compile`."""

from hpo.config import StudyConfig
from hpo.training.chain import Chain
from hpo.training.memory import give_back_freed_memory
from hpo.training.probe import Probe, reason
from hpo.training.program import Program
from hpo.training.shapes import number_of_shapes

PAYS_FROM = 1800.0
"""Seconds that this process would take for all its steps of one shape, from which on `auto` tries to compile.
That takes 20 to 70 s, while pruned trials end early, so a tenth of what is left must be saved."""
LEAST_GAIN = 1.1
"""Times as fast as before, for `auto` to stay with what it compiled."""
_LANES = 16
"""That are timed."""


def compile_if_it_pays(program: Program, probe: Probe, config: StudyConfig, trials: float) -> str | None:
    """Compile `program` where the study says so and the result is the same; else leave it as it is.

    `auto` looks for a shape of which enough is to be trained and, when it is compiled, is faster. On a CPU it
    tries chains alone: convolutions are slower compiled.

    trials: that this process expects, side by side; 0 where there is no telling.

    Returns: why it is not compiled, where that was tried.
    """
    option = config.training.compile
    try:
        if option == "on":
            why_not = _compile(program, probe)
        elif option == "auto" and _may_pay(program, probe, config, trials):
            before = _seconds(program, probe)
            why_not = _compile(program, probe) or _gains_too_little(program, probe, before)
        else:
            return None
    except Exception as error:  # noqa: BLE001  (a compiler that is not there, or no memory for so many lanes)
        why_not = reason(error)
        give_back_freed_memory()
    if why_not is not None:
        program.interpret()
    return why_not


def _may_pay(program: Program, probe: Probe, config: StudyConfig, trials: float) -> bool:
    steps = lane_steps(config, trials, probe.steps)
    if steps == 0 or (probe.data.device.type != "cuda" and not isinstance(program, Chain)):
        return False
    # One lane by itself takes longest: where even that would not pay, no memory is taken for more of them.
    return all(steps * probe.seconds(program, lanes) > PAYS_FROM for lanes in (1, _lanes(program)))


def _compile(program: Program, probe: Probe) -> str | None:
    """Compile, and answer why that will not do. With all rows of a batch: others would compile anew."""
    expected = probe.results(program, probe.rows)
    program.compile()
    return probe.difference(program, expected, probe.rows)


def _gains_too_little(program: Program, probe: Probe, before: float) -> str | None:
    gain = before / _seconds(program, probe)
    return None if gain > LEAST_GAIN else f"its steps are only {gain:.2f} times as fast"


def _seconds(program: Program, probe: Probe) -> float:
    return probe.seconds(program, _lanes(program))


def _lanes(program: Program) -> int:
    return 1 if program.lanewise and not program.recorded else _LANES


def lane_steps(config: StudyConfig, trials: float, steps: int) -> float:
    """How many steps of single lanes so many trials take of one shape, if all shapes are as frequent.

    steps: of an epoch.
    """
    return trials * config.folds * config.training.epochs * steps / number_of_shapes(config)
