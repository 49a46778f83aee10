"""How a study stands, as the terminal shows it: renderables, which only `hpo.cli` prints."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.config import StudyConfig
from hpo.search.status import Status


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
    if not status.pace.lately:
        return "-"
    seconds = round((status.waiting + status.running) / status.pace.lately * 3600)
    hours, minutes = divmod(seconds // 60, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {seconds % 60:02} s"
        if minutes
        else f"{seconds} s"
    )


def _infeasible(status: Status) -> str:
    return f" ({status.infeasible} beyond constraints)" if status.infeasible else ""


def status_line(status: Status) -> str:
    """One line, for logs and pipes."""
    best = f", best {number(status.best.value)} (trial {status.best.number})" if status.best else ""
    lanes = f" on {status.lanes} lanes" if status.folds > 1 and status.running else ""
    pace = status.pace.lately if status.running else None
    per_hour = f", {pace:,.0f} trials per hour" if pace else ""
    return (
        f"{status.study}: {status.finished}/{status.total} finished ({status.complete} complete, "
        f"{status.pruned} pruned{_infeasible(status)}, {status.failed} failed), {status.running} running"
        f"{lanes}{per_hour}{best}"
    )


@dataclass(frozen=True)
class LiveView:
    """The live view of a study: counts, best, pace, and as many running trials as fit on the screen."""

    status: Status
    config: StudyConfig

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        facts = _facts(self.status, self.config, options.max_width)
        for name in (None, *_LEAST):
            facts = {label: fact for label, fact in facts.items() if label != name}
            head = Group(_title(self.status), _table(facts, cell_len(_best(self.config))))
            room = options.size.height - len(console.render_lines(head, options)) - 3
            if room >= min(ENOUGH, len(self.status.rows)):
                break
        yield head
        if self.status.rows and room > 0:
            yield Text()
            yield _running(self.status, self.config, options.max_width, room)


ENOUGH = 6
"""Lines of running trials that matter more than the facts in `_LEAST`."""
_LEAST = ("workers", "speed-up", "with")
"""What is left out, in this order, where the screen is too low for both."""
_STATES = {"waiting": "waiting for workers", "paused": "waiting for workers"}
"""Nothing runs: workers take seconds to start."""
SILENT = 15.0
"""Seconds without a sign of life that are worth telling: a worker gives one every 7.5 s."""


def _title(status: Status) -> Text:
    return Text.assemble((status.study, "bold"), "  ", _STATES.get(status.state, status.state))


def _best(config: StudyConfig) -> str:
    return f"best {config.metric}"


def _table(facts: Mapping[str, RenderableType], longest: int) -> Table:
    """The facts; their column does not move when the one with the longest label comes."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=longest)
    for label, fact in facts.items():
        table.add_row(label, fact)
    return table


def _facts(status: Status, config: StudyConfig, width: int) -> dict[str, RenderableType]:
    """What is known of a study, by label."""
    facts: dict[str, RenderableType] = {"progress": _progress(status), "trials": _counts(status)}
    if status.running:
        facts["lanes"] = f"{status.lanes} in use" + (f" of {status.room}" if status.room else "")
    if status.measured:
        fused, gain = status.measured.fused, f"{status.measured.speed_up:.1f} over single trials"
        facts["speed-up"] = (
            f"{gain}, measured at start with {fused} fused lanes"
            if fused > 1
            else "none: trials train one by one"
        )
    if status.pace.overall:
        facts["pace"] = _pace(status)
    if status.workers:
        facts["workers"] = _workers(status, width - cell_len(_best(config)) - 2)
    if status.best:
        found = f"{figure(status.best.value)}  (trial {status.best.number})"
        facts[_best(config)] = Text(found, style="bold")
        facts["with"] = params(status.best.params)
    return facts


def _progress(status: Status) -> Table:
    progress = Table.grid(padding=(0, 2))
    total = max(1, status.total)
    bar = ProgressBar(total, status.finished, width=30, complete_style="cyan", finished_style="cyan")
    progress.add_row(bar, f"{status.finished}/{status.total}")
    return progress


def _counts(status: Status) -> Text:
    counts = [
        (f"{status.complete} complete", "green"),
        (f"{status.pruned} pruned{_infeasible(status)}", "yellow"),
        (f"{status.failed} failed", "red" if status.failed else "dim"),
        (f"{status.running} running", "cyan"),
        (f"{status.waiting} waiting", "dim"),
    ]
    return Text(", ").join(Text(text, style) for text, style in counts)


def _pace(status: Status) -> str:
    overall = f"{status.pace.overall:,.0f}"
    if not status.running or not status.pace.lately:
        return f"{overall} trials per hour over the whole search"
    lately = f"{status.pace.lately:,.0f}"
    before = "" if lately == overall else f" ({overall} overall)"
    return f"{lately} trials per hour, {time_left(status)} left{before}"


def _workers(status: Status, width: int) -> str:
    """Each worker with its trials, as long as they fit on one line."""
    told: list[str] = []
    for holder in status.workers:
        host_and_process = holder.name.rpartition("-")[0] or holder.name
        silence = f" (silent for {holder.silent_seconds:.0f} s)" if holder.silent_seconds > SILENT else ""
        trials = f"{holder.trials} trial{'s' * (holder.trials != 1)}"
        told.append(f"{host_and_process}: {trials}{silence}")
    for shown in range(len(told), 0, -1):
        others = f" and {len(told) - shown} more" if shown < len(told) else ""
        line = ", ".join(told[:shown]) + others
        if cell_len(line) <= width:
            return line
    return f"{len(told)}"


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
