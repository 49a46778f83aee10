"""A comparison in words and figures: the rows of its table, sentences, and JSON for scripts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpo.results.compare import Compared, Comparison, Pair
from hpo.results.latency import BATCHES
from hpo.results.metrics import ClassificationMetrics
from hpo.results.paired import LEVEL, AccuracyTest
from hpo.results.summary import duration, interval_text, number
from hpo.results.values import METRIC_LABELS

SHOWN = {
    "classification": ("accuracy", "precision", "recall", "f1", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
}


@dataclass(frozen=True)
class Cell:
    """What one study has in a row."""

    text: str
    note: str = ""
    """An interval or a spread."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    label: str
    cells: Sequence[Cell]


def rows(comparison: Comparison) -> list[Row]:
    """The table: a line for each figure, a cell for each study."""
    studies = comparison.studies
    first = studies[0]
    names = SHOWN[first.result.test.task]
    table = [
        Row("architecture", [Cell(study.config.architecture) for study in studies]),
        *(Row(f"test {METRIC_LABELS[name]}", [_metric(study, name) for study in studies]) for name in names),
        Row(f"{METRIC_LABELS[names[0]]} over seeds", [_seeds(study, names[0]) for study in studies]),
        Row("parameters", [Cell(f"{study.result.parameters:,}") for study in studies]),
        Row("FLOPs, forward", [Cell(_flops(study.flops)) for study in studies]),
        Row("training time", [Cell(duration(study.training_seconds)) for study in studies]),
        Row("search time", [Cell(duration(study.search_seconds)) for study in studies]),
    ]
    table += [
        Row(f"latency, batch {batch}", [_latency(study, batch) for study in studies]) for batch in BATCHES
    ]
    if any(len(study.result.openings) > 1 for study in studies):
        table.append(Row("test set opened", [Cell(_times(len(study.result.openings))) for study in studies]))
    return table


def _metric(study: Compared, name: str) -> Cell:
    test = study.result.test
    if name == "accuracy" and isinstance(test, ClassificationMetrics):
        return Cell(number(name, test.accuracy), interval_text(name, test.accuracy_interval))
    return Cell(number(name, test.scalars()[name]))


def _seeds(study: Compared, name: str) -> Cell:
    over = study.result.seeds[name]
    spread = "" if over.std is None else f"± {number(name, over.std)}, "
    return Cell(number(name, over.mean), f"{spread}{over.n} seed{'s' * (over.n != 1)}")


def _flops(flops: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return str(flops)


def _latency(study: Compared, batch: int) -> Cell:
    found = study.latency[batch]
    return Cell(f"{found.median:.3g} ms", f"{found.low:.3g} to {found.high:.3g}")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def notes(comparison: Comparison) -> list[str]:
    """What the table's figures mean."""
    hardware = comparison.hardware
    threads = (
        "" if hardware.threads is None else f", {hardware.threads} thread{'s' * (hardware.threads != 1)}"
    )
    rounds = min(found.rounds for study in comparison.studies for found in study.latency.values())
    interval = (
        ["The interval of the accuracy is 95 % (Wilson): the uncertainty of a test set of this size."]
        if comparison.classification
        else []
    )
    examples = f"{comparison.studies[0].result.test.n:,} held-out examples"
    return [
        f"All were tested on the same {examples}. Test figures are the exported model's; over seeds: mean ± "
        "standard deviation of all retrainings.",
        *interval,
        "FLOPs: matrix products and convolutions of one example, a multiply-add counted as two. Training "
        "time: one retraining of the winner on train + validation, where it was finalized (those that ran "
        "side by side share their time). Search time: from the first trial's start to the last one's end.",
        f"Latency: forward pass in float32, median and quartiles of {rounds} rounds, in one process by "
        f"turns, measured now on {hardware.device}{threads}, torch {hardware.torch_version}.",
    ]


def sentence(comparison: Comparison, pair: Pair) -> str:
    """Whether a pair differs by more than noise."""
    told = _accuracy if isinstance(pair.test, AccuracyTest) else _errors
    corrected = len(comparison.pairs) > 1
    p = f"{_p(pair.test.p)}; {_p(pair.corrected)} corrected for {len(comparison.pairs)} pairs"
    return told(comparison, pair, p if corrected else _p(pair.test.p))


def _accuracy(comparison: Comparison, pair: Pair, p: str) -> str:
    test = pair.test
    assert isinstance(test, AccuracyTest)
    better, worse, more, fewer, sign = pair.first, pair.second, test.only_first, test.only_second, 1
    if fewer > more:
        better, worse, more, fewer, sign = worse, better, fewer, more, -1
    if more + fewer == 0:
        return f"{better} and {worse}: no difference, they are right on the very same examples."
    low, high = sorted(sign * end for end in test.interval)
    counts = f"of {comparison.paired_on:,} examples {better} alone is right on {more:,}, {worse} on {fewer:,}"
    gain = f"accuracy {sign * test.difference:+.3f}, 95 %: {low:+.3f} to {high:+.3f}"
    if pair.corrected < LEVEL:
        return f"{better} is better than {worse}, by more than noise: {counts} ({gain}; {p})."
    return f"{better} and {worse}: the difference may be noise: {counts} ({gain}; {p})."


def _errors(comparison: Comparison, pair: Pair, p: str) -> str:
    better, worse = pair.first, pair.second
    if pair.test.difference > 0:
        better, worse = worse, better
    if pair.test.difference == 0 and pair.test.p == 1:
        return f"{better} and {worse}: no difference, their squared errors are the same on average."
    by_name = {study.name: study.result.test.scalars()["rmse"] for study in comparison.studies}
    counts = f"RMSE {number('rmse', by_name[better])} against {number('rmse', by_name[worse])}"
    if pair.corrected < LEVEL:
        return f"{better} is better than {worse}, by more than noise: {counts} ({p})."
    return f"{better} and {worse}: the difference may be noise: {counts} ({p})."


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def about_tests(comparison: Comparison) -> list[str]:
    """How the pairs were tested, and what the tests do not say."""
    name = "McNemar's test, exact" if comparison.classification else "a paired t-test of the squared errors"
    corrected = (
        f", after Holm's correction for {len(comparison.pairs)} pairs" if len(comparison.pairs) > 1 else ""
    )
    return [
        f"Pairs: {name}, of the exported models on {comparison.paired_on:,} shared test examples; more than "
        f"noise means p < {LEVEL}{corrected}. What another seed would change stands in the row over seeds.",
        "Whoever chooses a model by this table chooses by the test set: its figures are then a little too "
        "good.",
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for scripts; times in seconds, latencies in milliseconds."""
    return {
        "studies": [_study_json(study) for study in comparison.studies],
        "pairs": [
            {"first": pair.first, "second": pair.second}
            | pair.test.model_dump(mode="json")
            | {
                "p_corrected": pair.corrected,
                "more_than_noise": pair.corrected < LEVEL,
                "text": sentence(comparison, pair),
            }
            for pair in comparison.pairs
        ],
        "paired_on": comparison.paired_on,
        "hardware": asdict(comparison.hardware),
    }


def _study_json(study: Compared) -> dict[str, Any]:
    result = study.result
    test = result.test
    interval = (
        {"accuracy_interval": list(test.accuracy_interval)} if isinstance(test, ClassificationMetrics) else {}
    )
    return {
        "study": study.name,
        "architecture": study.config.architecture,
        "winner": {"number": result.winner.number, "params": result.winner.params},
        "test": test.scalars() | interval | {"n": test.n},
        "seeds": {name: statistics.model_dump() for name, statistics in result.seeds.items()},
        "openings": list(result.openings),
        "parameters": result.parameters,
        "flops": study.flops,
        "training_seconds": study.training_seconds,
        "search_seconds": study.search_seconds,
        "latency": {str(batch): asdict(latency) for batch, latency in study.latency.items()},
        "confusions": [found.model_dump(exclude={"images"}) for found in result.confusions],
    }
