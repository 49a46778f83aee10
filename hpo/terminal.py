"""What the terminal shows: renderables, which only `hpo.cli` prints."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.config import StudyConfig
from hpo.search.status import Status

if TYPE_CHECKING:  # they import torch, which costs seconds
    from hpo.results.conclude import Conclusion
    from hpo.results.metrics import TestMetrics

ROWS = 12
"""Running trials shown."""


def number(value: object) -> str:
    """A figure as people read it: four significant digits, small ones in powers of ten."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def params(values: Mapping[str, Any]) -> str:
    """`name=value` of each parameter."""
    return ", ".join(f"{name}={number(value)}" for name, value in values.items())


def time_left(status: Status) -> str:
    """The time that the rest takes at the present pace."""
    if not status.per_hour:
        return "-"
    seconds = round((status.waiting + status.running) / status.per_hour * 3600)
    hours, minutes = divmod(seconds // 60, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {seconds % 60:02} s"
        if minutes
        else f"{seconds} s"
    )


def status_line(status: Status) -> str:
    """One line, for logs and pipes."""
    best = f", best {number(status.best.value)} (trial {status.best.number})" if status.best else ""
    return (
        f"{status.study}: {status.finished}/{status.total} finished ({status.complete} complete, "
        f"{status.pruned} pruned, {status.failed} failed), {status.running} running{best}"
    )


def live(status: Status, config: StudyConfig) -> RenderableType:
    """The live view of a study: counts, best, pace, and a row for each running trial."""
    counts = Table.grid(padding=(0, 2))
    counts.add_row(
        Text(status.study, style="bold"),
        Text(status.state),
        Text(f"{status.complete} complete", style="green"),
        Text(f"{status.pruned} pruned", style="yellow"),
        Text(f"{status.failed} failed", style="red" if status.failed else "dim"),
        Text(f"{status.running} running", style="cyan"),
        Text(f"{status.waiting} waiting", style="dim"),
    )
    pace = "-" if status.per_hour is None else f"{status.per_hour:,.0f}"
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_row("progress", ProgressBar(total=max(1, status.total), completed=status.finished, width=40))
    facts.add_row("trials per hour", f"{pace}   time left {time_left(status)}")
    if status.best:
        facts.add_row(
            f"best {config.metric}",
            Text(f"{number(status.best.value)}  (trial {status.best.number})", style="bold"),
        )
        facts.add_row("with", params(status.best.params))
    return Group(counts, facts, _running(status, config))


def _running(status: Status, config: StudyConfig) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for heading in ("trial", "epoch", config.metric, "parameters"):
        table.add_column(heading, no_wrap=heading != "parameters", overflow="ellipsis")
    for row in status.rows[:ROWS]:
        value = "-" if row.value is None else number(row.value)
        table.add_row(str(row.number), f"{row.epoch}/{config.training.epochs}", value, params(row.params))
    if len(status.rows) > ROWS:
        table.add_row("…", f"{len(status.rows) - ROWS} more", "", "")
    return table


def winner(conclusion: "Conclusion", config: StudyConfig) -> RenderableType:
    """The winner and its test metrics."""
    result, best = conclusion.result, conclusion.result.winner
    title = f"{config.name}: the winner is trial {best.number}"
    table = Table(title=title, title_justify="left", min_width=60, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for name, value in best.params.items():
        table.add_row(name, number(value), "")
    table.add_section()
    table.add_row(f"validation {config.metric} in the search", number(best.value), "")
    if best.mean is not None:
        table.add_row(f"re-evaluated on {best.n} fresh splits", number(best.mean), _interval(best.interval))
    table.add_section()
    for name in test_metrics(result.test):
        value = getattr(result.test, name)
        interval = _interval(getattr(result.test, f"{name}_interval", None))
        table.add_row(f"test {name}", "undefined" if value is None else number(value), interval)
    table.add_row("test examples", str(result.test.n), "")
    return table


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"95 %: {number(interval[0])} to {number(interval[1])}"


def test_metrics(test: "TestMetrics") -> list[str]:
    """Names of the scalar metrics that a study of this kind is judged by."""
    if test.task == "classification":
        return ["accuracy", "precision", "recall", "f1", "roc_auc"]
    return ["rmse", "mae", "r2"]


def run_json(status: Status, conclusion: "Conclusion") -> dict[str, Any]:
    """What `hpo run --json` prints last."""
    test = conclusion.result.test
    chosen = conclusion.result.winner
    return {
        "study": status.study,
        "trials": {"complete": status.complete, "pruned": status.pruned, "failed": status.failed},
        "best": None if status.best is None else vars(status.best),
        "winner": {key: getattr(chosen, key) for key in ("number", "params", "value", "mean")},
        "test": {name: getattr(test, name) for name in test_metrics(test)},
        "seconds": round(conclusion.search_seconds + conclusion.result.seconds, 2),
        "out": conclusion.out,
    }
