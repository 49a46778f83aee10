"""Finalized studies side by side: what was recorded with each, paired tests, and what a forward pass costs.

Nothing but the studies' database is read: the test part stays sealed, and no results folder is needed.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from hpo.config import StudyConfig
from hpo.errors import HpoError, UsageError
from hpo.results.conclude import Conclusion, recorded
from hpo.results.finalize import FinalResult
from hpo.results.latency import BATCHES, Hardware, Latency, latencies
from hpo.results.metrics import ClassificationMetrics
from hpo.results.paired import AccuracyTest, ErrorTest, holm, mcnemar, squared_errors
from hpo.results.predictions import Predictions
from hpo.search.records import StudyRecord
from hpo.search.submission import config_of
from hpo.training.architecture import Architecture
from hpo.training.cost import forward_flops
from hpo.training.device_data import best_device


@dataclass(frozen=True)
class Compared:
    """One of the studies."""

    config: StudyConfig
    result: FinalResult
    search_seconds: float
    flops: int
    latency: Mapping[int, Latency]
    """By batch size."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def training_seconds(self) -> float:
        """Of one retraining of the winner: what all took together, shared among them."""
        return self.result.retraining_seconds / self.config.final.seeds


@dataclass(frozen=True)
class Pair:
    """Two of the studies on the same test examples."""

    first: str
    second: str
    test: AccuracyTest | ErrorTest
    corrected: float
    """The p value, Holm-corrected for the number of pairs."""


@dataclass(frozen=True)
class Comparison:
    """Studies of one task that were tested on the same examples."""

    studies: Sequence[Compared]
    pairs: Sequence[Pair]
    paired_on: int
    """Examples that the pairs were tested on."""
    hardware: Hardware

    @property
    def classification(self) -> bool:
        return isinstance(self.studies[0].result.test, ClassificationMetrics)


def compare(records: Sequence[StudyRecord]) -> Comparison:
    """Compare studies, in their order.

    Raises:
        HpoError: one is not finalized, or was by a version that did not record its predictions.
        UsageError: they are not two or more different ones, or differ in their task, their classes or their
            test examples.
    """
    if len({record.name for record in records}) < max(2, len(records)):
        raise UsageError("STUDY…: must name two or more studies, each once")
    known = _finalized(records)
    predictions = _comparable({record.name: known[record.name].result for record in records})
    configs = [config_of(record) for record in records]
    results = [known[record.name].result for record in records]
    device = torch.device(best_device())
    modules = [_module(config, result) for config, result in zip(configs, results, strict=True)]
    flops = [_flops(config, module, results[0]) for config, module in zip(configs, modules, strict=True)]
    try:
        times = latencies(modules, results[0].input_shape, device)
    except (RuntimeError, MemoryError) as error:  # in batches of one they have all run
        raise HpoError(f"the networks cannot be timed in batches of {BATCHES[-1]}: {error}") from error
    studies = [
        Compared(config, known[config.name].result, known[config.name].search_seconds, flops[n], times[n])
        for n, config in enumerate(configs)
    ]
    return Comparison(studies, paired(predictions), next(iter(predictions.values())).n, Hardware.of(device))


def _finalized(records: Sequence[StudyRecord]) -> dict[str, Conclusion]:
    known = {record.name: recorded(record) for record in records}
    if missing := [name for name, conclusion in known.items() if conclusion is None]:
        raise HpoError(
            f"{_named(missing, 'is', 'are')} not finalized: "
            + ", ".join(f"`hpo finalize {name}`" for name in missing)
        )
    return {name: conclusion for name, conclusion in known.items() if conclusion is not None}


def _comparable(results: Mapping[str, FinalResult]) -> dict[str, Predictions]:
    """The predictions of each study, if they are of the same examples."""
    found = {name: result.predictions for name, result in results.items()}
    if missing := [name for name, predictions in found.items() if predictions is None]:
        commands = ", ".join(f"`hpo finalize {name} --again`" for name in missing)
        raise HpoError(
            f"{_named(missing, 'was', 'were')} finalized by an earlier version, which did not record the "
            f"model's predictions: {commands} does, and opens the test set once more, on record"
        )
    (first, one), *others = results.items()
    for name, other in others:
        for what, mine, its in (
            ("the task", one.test.task, other.test.task),
            ("the classes", _classes(one), _classes(other)),
            ("the shape of an example", one.input_shape, other.input_shape),
            ("the test set", _test_set(one), _test_set(other)),
        ):
            if mine != its:
                raise UsageError(
                    f"studies {first!r} and {name!r} cannot be compared: {what} of the first: {_text(mine)}; "
                    f"of the second: {_text(its)}. All must have been tested on the same examples"
                )
    return {name: predictions for name, predictions in found.items() if predictions is not None}


def _named(names: Sequence[str], one: str, several: str) -> str:
    listed = ", ".join(map(repr, names))
    return f"study {listed} {one}" if len(names) == 1 else f"studies {listed} {several}"


def _classes(result: FinalResult) -> list[str]:
    return [found.name for found in result.test.classes] if result.test.task == "classification" else []


def _test_set(result: FinalResult) -> str:
    assert result.predictions is not None
    return f"{result.test.n} examples with SHA-256 {result.predictions.test[:12]}"


def _text(value: object) -> str:
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return shown if len(shown) <= 100 else f"{shown[:99]}…"


def _module(config: StudyConfig, result: FinalResult) -> nn.Module:
    """The winner's network with fresh weights, on which neither time nor operations depend."""
    outputs = len(_classes(result)) or 1
    options = config.settings(result.winner.params).options
    return Architecture(config, result.input_shape, outputs).build(options)


def _flops(config: StudyConfig, module: nn.Module, result: FinalResult) -> int:
    try:
        return forward_flops(module, result.input_shape)
    except Exception as error:  # the user's module may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise HpoError(f"study {config.name!r}: its network does not run here: {reason}") from error


def paired(predictions: Mapping[str, Predictions]) -> list[Pair]:
    """Each two of the studies, tested on the examples that both have predicted."""
    tests = {}
    for (first, one), (second, other) in itertools.combinations(predictions.items(), 2):
        (predicted, targets), (others, _) = one.arrays(), other.arrays()
        tests[first, second] = (
            mcnemar(predicted == targets, others == targets)
            if one.dtype == "<i4"
            else squared_errors(predicted, others, targets)
        )
    corrected = holm([test.p for test in tests.values()])
    return [
        Pair(first, second, test, p)
        for ((first, second), test), p in zip(tests.items(), corrected, strict=True)
    ]
