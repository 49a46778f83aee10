"""What `hpo run` and `hpo finalize` tell of a winner: a table, and JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpo.config import StudyConfig
from hpo.search.status import Status
from hpo.terminal import number

if TYPE_CHECKING:  # they import torch, which costs seconds
    from hpo.results.conclude import Conclusion
    from hpo.results.finalize import FinalResult
    from hpo.results.metrics import TestMetrics


def shown(conclusion: "Conclusion", config: StudyConfig) -> RenderableType:
    """The winner, what the search had said of it, its test metrics, and what it does not beat."""
    from hpo.results.summary import found_nothing, unbeaten

    result = conclusion.result
    told = [*found_nothing(config, result), *unbeaten(config, result)]
    return Group(_table(conclusion, config), *map(Text, told))


def _table(conclusion: "Conclusion", config: StudyConfig) -> Table:
    result, best = conclusion.result, conclusion.result.winner
    title = f"{config.name}: the winner is {best.name}"
    table = Table(title=title, title_justify="left", min_width=60, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, value in best.params.items():
        table.add_row(name, number(value), "")
    table.add_section()
    for row in _validated(result, config):
        table.add_row(*row)
    table.add_section()
    for row in _tested(result, config):
        table.add_row(*row)
    return table


def _validated(result: "FinalResult", config: StudyConfig) -> Iterator[tuple[str, str, str]]:
    """The search's score, the re-evaluated mean, what selection had made of luck; and the others' means."""
    from hpo.results.candidates import selection_cost

    best = result.winner
    if best.value is not None:
        yield f"validation {config.metric} in the search", number(best.value), ""
    if best.mean is not None:
        splits = "split" if best.n == 1 else "splits"
        yield f"re-evaluated on {best.n} fresh {splits}", number(best.mean), _interval(best.interval)
    cost = selection_cost(config, best)
    if cost is not None:
        yield "lost to selection", number(cost), ""
    for other in result.candidates:
        if other.number is None and best.number is not None and other.mean is not None:
            yield "the defaults, re-evaluated", number(other.mean), _interval(other.interval)
    for baseline in result.baselines:
        if baseline.mean is not None:
            yield f"{baseline.name}, same splits", number(baseline.mean), _interval(baseline.interval)


def _tested(result: "FinalResult", config: StudyConfig) -> Iterator[tuple[str, str, str]]:
    test = result.test
    for name in _metrics(test):
        value = test.scalars()[name]
        yield f"test {name}", "undefined" if value is None else number(value), _interval(test.interval(name))
    if test.task == "classification" and test.calibration is not None:
        yield "test calibration error (ECE)", number(test.calibration.ece), ""
    spread = result.seeds.get(config.metric)
    if spread is not None and spread.n > 1:
        within = _interval(spread.interval)
        yield f"test {config.metric}, mean of {spread.n} seeds", number(spread.mean), within
    for baseline in result.baselines:
        value = baseline.test.get(config.metric)
        if value is not None:
            yield f"test {config.metric} of {baseline.name}", number(value), ""
    yield "test examples", str(test.n), ""
    if len(result.openings) > 1:
        yield "test set opened", f"{len(result.openings)} times", "the figures are a little too good"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"95 %: {number(interval[0])} to {number(interval[1])}"


def _metrics(test: "TestMetrics") -> list[str]:
    """Names of the scalar metrics that a study of this kind is judged by."""
    if test.task == "classification":
        return ["accuracy", "precision", "recall", "f1", "roc_auc"]
    return ["rmse", "mae", "r2"]


_OF_CANDIDATES = ("number", "params", "value", "mean", "interval", "shrunk")


def _defaults_json(result: "FinalResult") -> dict[str, Any] | None:
    """The defaults' re-evaluation; None in results of before there was one."""
    found = [candidate for candidate in result.candidates if candidate.number is None]
    return {key: getattr(found[0], key) for key in _OF_CANDIDATES[1:]} if found else None


def run_json(status: Status, conclusion: "Conclusion", config: StudyConfig) -> dict[str, Any]:
    """What `hpo run --json` prints last."""
    from hpo.results.candidates import selection_cost

    result = conclusion.result
    test, chosen = result.test, result.winner
    return {
        "study": status.study,
        "trials": {"complete": status.complete, "pruned": status.pruned, "failed": status.failed},
        "best": None if status.best is None else vars(status.best),
        "winner": {key: getattr(chosen, key) for key in _OF_CANDIDATES}
        | {"lost_to_selection": selection_cost(config, chosen)},
        "defaults": _defaults_json(result),
        "test": {name: getattr(test, name) for name in _metrics(test)},
        "intervals": {name: test.interval(name) for name in _metrics(test)},
        "ece": test.calibration.ece if test.task == "classification" and test.calibration else None,
        "seeds": {name: spread.model_dump(mode="json") for name, spread in result.seeds.items()},
        "baselines": [baseline.model_dump(mode="json") for baseline in result.baselines],
        "openings": list(result.openings),
        "seconds": round(conclusion.search_seconds + conclusion.result.seconds, 2),
        "out": conclusion.out,
    }
