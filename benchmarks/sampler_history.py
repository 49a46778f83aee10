"""What it costs the search that a sampler sees at most `SHOWN` trials: capped against uncapped, in one run.

usage: python benchmarks/sampler_history.py [--objectives bowl ripples decoy] [--trials 2500] [--seeds 4]
                                            [--shown 1000] [--in-flight 128] [--rows 114]

Trials are sampled by TPE as a worker does it, so many in flight and finished in the order in which they
began, but train nothing: an objective with a known optimum stands for the network, and what is observed is
the share of `rows` validation rows that a network of this accuracy gets right, which is binomial. Until as
many trials have begun as are shown, both are the same search: it runs once, and then both go on from there
with the same seeds. The winner is the trial with the best observed value; its regret is the optimum less its
true value. The smallest regret of all trials is what was found, whether noise hides it or not. Milliseconds
a draw count from where the two part. Random search, with as many trials, tells what is little and what is
much. A run of the default size takes four to five minutes of one core, one of a quarter of it
(`--trials 625 --shown 250 --in-flight 32`) six seconds a seed and objective.
"""

import argparse
import contextlib
import copy
import math
import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo.config import StudyConfig
from hpo.search.advice import SHOWN
from hpo.search.database import Database
from hpo.search.history import History
from hpo.search.records import Claim, StudyRecord
from hpo.search.samplers import default_in_flight, make_sampler
from hpo.search.snapshot import Snapshot
from hpo.space import Value, suggest

SPACE = {
    "dropout": {"low": 0.0, "high": 0.7},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "depth": {"low": 1, "high": 6},
    "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
}
OPTIMUM = 0.85
"""The accuracy of each objective at its best point."""
Point = dict[str, Value]


def bowl(params: Point) -> float:
    """One smooth maximum: what TPE is made for."""
    return OPTIMUM - 0.3 * squared_distance(params, rate=1e-2)


def ripples(params: Point) -> float:
    """The learning rate that is best depends on the optimizer, and every direction is wavy (Rastrigin)."""
    rate = {"adam": 3e-3, "rmsprop": 6e-4, "sgd": 5e-2}[str(params["optimizer"])]
    waves = sum(1 - math.cos(6 * math.pi * offset) for offset in offsets(params, rate))
    return OPTIMUM - 0.3 * squared_distance(params, rate) - 0.02 * waves


def decoy(params: Point) -> float:
    """A broad hill of height 0.80 far from a narrow one of 0.85: old trials are what tells them apart."""
    broad = 0.80 - 0.2 * sum((offset - 0.4) ** 2 for offset in offsets(params, rate=1e-3))
    narrow = OPTIMUM - 0.8 * squared_distance(params, rate=1e-3)
    return max(broad, narrow)


OBJECTIVES: dict[str, Callable[[Point], float]] = {"bowl": bowl, "ripples": ripples, "decoy": decoy}


def offsets(params: Point, rate: float) -> list[float]:
    """How far each number is from its best, in shares of its range; the best learning rate is `rate`."""
    return [
        (float(params["dropout"]) - 0.21) / 0.7,
        math.log10(float(params["learning_rate"]) / rate) / 3,
        math.log10(float(params["weight_decay"]) / 1e-4) / 4,
        (int(params["depth"]) - 3) / 5,
    ]


def squared_distance(params: Point, rate: float) -> float:
    """Of `offsets`; an optimizer other than adam costs 0.1."""
    return sum(offset**2 for offset in offsets(params, rate)) + 0.1 * (params["optimizer"] != "adam")


class Search:
    """A study in memory: begins trials and finishes them, without training or a database."""

    def __init__(self, objective: str, seed: int, options: argparse.Namespace, sampler: str = "tpe") -> None:
        self.objective = OBJECTIVES[objective]
        self.options = options
        self.config = StudyConfig.model_validate(
            {
                "name": "benchmark",
                "data": {"source": "sklearn", "name": "breast_cancer"},
                "search": SPACE,
                "training": {"seed": seed},
                "trials": options.trials,
                "sampler": sampler,
            }
        )
        self.in_flight = min(options.in_flight, default_in_flight(self.config))
        record = StudyRecord(1, "benchmark", StudyDirection.MAXIMIZE, {})
        self.snapshot = Snapshot(record, History(Database("sqlite:///unopened.db"), 1))
        self.running: deque[int] = deque()
        self.true: dict[int, float] = {}
        self.draws: list[float] = []
        """Seconds of processor time."""

    def fork(self) -> "Search":
        """A search that goes on from here by itself."""
        other = copy.copy(self)
        history = History(self.snapshot.history.database, 1)
        history.finished, history.running = copy.deepcopy(
            (self.snapshot.history.finished, self.snapshot.history.running)
        )
        other.snapshot = Snapshot(self.snapshot.record, history)
        for number in self.running:
            other.snapshot.adopt(Claim(number, number, 1, alone=False))
        other.running, other.true, other.draws = self.running.copy(), dict(self.true), []
        return other

    def run(self, until: int, shown: int | None) -> None:
        """Begin trials up to number `until`, the sampler seeing at most `shown` of them."""
        for number in range(len(self.true), until):
            if len(self.running) == self.in_flight:
                self.finish(self.running.popleft())
            self.begin(number, shown)

    def begin(self, number: int, shown: int | None) -> None:
        """Draw a trial's parameters."""
        self.snapshot.adopt(Claim(number, number, 1, alone=False))
        started = time.process_time()
        study = Study("benchmark", self.snapshot, make_sampler(self.config, number))
        with self.snapshot.at_most(shown) if shown else contextlib.nullcontext():
            params = suggest(Trial(study, number), self.config.search)
        self.draws.append(time.process_time() - started)
        self.true[number] = self.objective(params)
        self.running.append(number)

    def finish(self, number: int) -> None:
        """Observe a trial's value; its noise depends on the seed and its number alone."""
        draw = np.random.default_rng([self.config.training.seed, number])
        right = draw.binomial(self.options.rows, min(max(self.true[number], 0.0), 1.0))
        self.snapshot.finish(number, TrialState.COMPLETE, float(right / self.options.rows))

    def result(self) -> "Result":
        """Finish what is running, and sum up."""
        while self.running:
            self.finish(self.running.popleft())
        trials = self.snapshot.history.trials
        winner = max(trials, key=observed)
        return Result(
            observed(winner),
            OPTIMUM - self.true[winner.number],
            OPTIMUM - max(self.true.values()),
            statistics.fmean(self.draws) * 1000,
            statistics.fmean(self.draws[-100:]) * 1000,
        )


class Result(NamedTuple):
    """Of one search."""

    best: float
    """The best observed value."""
    regret: float
    """Of the trial that has it."""
    smallest: float
    """Regret of the trial that is truly best."""
    draw: float
    """Milliseconds, mean since the two searches parted."""
    last: float
    """Milliseconds, mean of the last hundred draws."""


def observed(trial: FrozenTrial) -> float:
    """A finished trial's value."""
    assert trial.value is not None
    return trial.value


def compare(objective: str, seed: int, options: argparse.Namespace) -> dict[str, Result]:
    """The results of the capped and of the uncapped search, and of random search."""
    common = Search(objective, seed, options)
    common.run(options.shown, None)
    capped, uncapped = common.fork(), common.fork()
    capped.run(options.trials, options.shown)
    uncapped.run(options.trials, None)
    blind = Search(objective, seed, options, "random")
    blind.run(options.trials, None)
    return {"capped": capped.result(), "uncapped": uncapped.result(), "random": blind.result()}


def table(results: list[dict[str, Result]]) -> Iterator[str]:
    """Lines: the median, least and most of each search; capped less uncapped by seed."""
    for name in results[0]:
        columns = list(zip(*(result[name] for result in results), strict=True))
        draws = "".join(f"{statistics.median(column):10.1f}" for column in columns[3:])
        yield f"  {name:12}" + "".join(map(spread, columns[:3])) + draws
    differences = [[result["capped"][i] - result["uncapped"][i] for result in results] for i in range(3)]
    yield f"  {'difference':12}" + "".join(map(spread, differences))
    better, worse = (sum(sign * number > 0 for number in differences[2]) for sign in (-1, 1))
    yield f"  capped finds better points with {better} seeds, worse ones with {worse}"


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):9.4f} ({min(values):7.4f} …{max(values):7.4f})"


def main() -> None:
    """Run each objective and print its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--objectives", nargs="+", default=["ripples"], choices=list(OBJECTIVES))
    parser.add_argument("--trials", type=int, default=2500)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--shown", type=int, default=SHOWN)
    parser.add_argument("--in-flight", type=int, default=128, help="at most the study's own cap")
    parser.add_argument("--rows", type=int, default=114, help="of the validation part")
    options = parser.parse_args()
    if options.shown >= options.trials:
        parser.error(f"--shown {options.shown}: must be below --trials {options.trials}, or nothing differs")
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(
        f"{options.trials} trials, {options.shown} shown, n = {options.seeds}; "
        "median (least … most); ms a draw, and of the last hundred"
    )
    heads = ("best observed", "regret of the winner", "smallest regret")
    print(f"{'':14}" + "".join(f"{head:>28}" for head in heads) + f"{'ms':>10}{'last':>10}")
    for objective in options.objectives:
        started = time.process_time()
        results = [compare(objective, seed, options) for seed in range(options.seeds)]
        print(f"{objective} ({time.process_time() - started:.0f} s of processor time)")
        print("\n".join(table(results)), flush=True)


if __name__ == "__main__":
    main()
