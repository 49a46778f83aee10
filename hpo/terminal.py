"""What the terminal shows: renderables, which only `hpo.cli` prints."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.config import StudyConfig
from hpo.search.status import Status

if TYPE_CHECKING:  # they import torch, which costs seconds
    from hpo.results.conclude import Conclusion
    from hpo.results.metrics import TestMetrics


def number(value: object) -> str:
    """A figure as people read it: four significant digits, small ones in powers of ten."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


def figure(value: float) -> str:
    """A figure that keeps its width while it changes: four significant digits, zeros among them."""
    return f"{value:#.4g}".removesuffix(".") if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.2e}"


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


@dataclass(frozen=True)
class LiveView:
    """The live view of a study: counts, best, pace, and as many running trials as fit on the screen."""

    status: Status
    config: StudyConfig

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = Group(_counts(self.status), _facts(self.status, self.config))
        yield head
        room = options.size.height - len(console.render_lines(head, options)) - 3
        if self.status.rows and room > 0:
            yield Text()
            yield _running(self.status, self.config, options.max_width, room)


def _counts(status: Status) -> Columns:
    counts = [
        (status.study, "bold"),
        (_STATES.get(status.state, status.state), "default"),
        (f"{status.complete} complete", "green"),
        (f"{status.pruned} pruned", "yellow"),
        (f"{status.failed} failed", "red" if status.failed else "dim"),
        (f"{status.running} running", "cyan"),
        (f"{status.waiting} waiting", "dim"),
    ]
    return Columns([Text(text, style) for text, style in counts], padding=(0, 2))


_STATES = {"waiting": "waiting for workers", "paused": "waiting for workers"}
"""Nothing runs: workers take seconds to start."""


def _facts(status: Status, config: StudyConfig) -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    progress = Table.grid(padding=(0, 2))
    total = max(1, status.total)
    bar = ProgressBar(total, status.finished, width=30, complete_style="cyan", finished_style="cyan")
    progress.add_row(bar, f"{status.finished}/{status.total}")
    facts.add_row("progress", progress)
    if status.per_hour and status.running:
        facts.add_row("pace", f"{status.per_hour:,.0f} trials per hour, {time_left(status)} left")
    if status.best:
        found = f"{figure(status.best.value)}  (trial {status.best.number})"
        facts.add_row(f"best {config.metric}", Text(found, style="bold"))
        facts.add_row("with", params(status.best.params))
    return facts


def _running(status: Status, config: StudyConfig, width: int, height: int) -> Table:
    """A row for each running trial, and a column for each parameter as long as they fit into `width`."""
    epochs = config.training.epochs
    columns = {
        "trial": [str(row.number) for row in status.rows],
        "epoch": [f"{row.epoch}/{epochs}" for row in status.rows],
        config.metric: ["" if row.value is None else figure(row.value) for row in status.rows],
    }
    for name in config.search:
        columns[name] = [number(row.params[name]) if name in row.params else "" for row in status.rows]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    shown: list[list[str]] = []
    used = 0
    for name, cells in columns.items():
        used += max(map(cell_len, [name, *cells])) + 2
        if used - 2 > width and len(shown) >= 3:
            break
        shown.append(cells)
        table.add_column(name, no_wrap=True, justify="right")
    height -= len(status.rows) > height  # the line that says how many are left out
    for row in itertools.islice(zip(*shown, strict=True), max(0, height)):
        table.add_row(*row)
    if len(status.rows) > height:
        table.caption = Text(f"and {len(status.rows) - height} more running", "dim")
        table.caption_justify = "left"
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
