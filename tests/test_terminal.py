"""What the terminal shows."""

import io
import time
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import study_of
from rich.console import Console
from rich.live import Live

from hpo import terminal
from hpo.search.status import Best, RunningRow, Status

CONFIG = study_of(
    "name: quickstart\nsearch: {dropout: {low: 0.0, high: 0.7}, batch_size: {choices: [16, 32]},"
    " optimizer: {choices: [adam, sgd]}, momentum: {choices: [0.5, 0.9], when: {optimizer: sgd}},"
    " learning_rate: {low: 0.0001, high: 0.1, log: true}}"
)
PARAMS: dict[str, Any] = {
    "dropout": 0.38192,
    "batch_size": 128,
    "optimizer": "adam",
    "learning_rate": 3.1e-4,
}
ROWS = tuple(RunningRow(n, n, 0.8 + n / 7001 if n else None, PARAMS) for n in range(25))
MIDDLE = Status("quickstart", "running", 104, 25, 20, 51, 0, Best(1, PARAMS, 0.98823), ROWS, 24893.2)
START = Status("quickstart", "waiting", 200, 0, 0, 0, 0, None, (), None)


def shown(status: Status, width: int, height: int = 24) -> list[str]:
    console = Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())
    console.print(terminal.LiveView(status, CONFIG))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_live_view_has_counts_best_pace_and_a_row_for_each_running_trial() -> None:
    lines = shown(MIDDLE, 100)
    assert lines[0] == "quickstart  running  20 complete  51 pruned  0 failed  25 running  104 waiting"
    assert lines[1].startswith("progress") and lines[1].endswith("71/200")
    assert lines[2] == "pace           24,893 trials per hour, 19 s left"
    assert lines[3] == "best accuracy  0.9882  (trial 1)"
    assert lines[4] == "with           dropout=0.3819, batch_size=128, optimizer=adam, learning_rate=3.10e-04"
    assert lines[6] == "trial  epoch  accuracy  dropout  batch_size  optimizer  momentum  learning_rate"
    assert lines[7] == "    0   0/30             0.3819         128       adam                 3.10e-04"
    assert lines[8] == "    1   1/30    0.8001   0.3819         128       adam                 3.10e-04"


@pytest.mark.parametrize("width", [40, 60, 100, 200])
@pytest.mark.parametrize("height", [16, 24, 50])
def test_the_live_view_fits_any_screen(width: int, height: int) -> None:
    lines = shown(MIDDLE, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    rows = [line for line in lines if "/30" in line]
    if len(rows) < 25:
        assert lines[-1] == f"and {25 - len(rows)} more running"
    if height == 50:
        assert len(rows) == 25
    elif height == 24:
        assert len(rows) > 8


def test_before_the_first_trial_it_says_what_it_waits_for_and_no_figures() -> None:
    lines = shown(START, 100)
    assert lines[0].startswith("quickstart  waiting for workers  0 complete")
    assert lines[1].endswith("0/200") and len(lines) == 2


def test_the_live_view_takes_no_noticeable_time() -> None:
    console = Console(width=100, height=40, force_terminal=True, file=io.StringIO())
    with Live(console=console, auto_refresh=False) as view:
        started = time.process_time()
        for _ in range(10):
            view.update(terminal.LiveView(MIDDLE, CONFIG), refresh=True)
        assert time.process_time() - started < 2.0


def test_a_status_is_one_line() -> None:
    assert terminal.status_line(MIDDLE) == (
        "quickstart: 71/200 finished (20 complete, 51 pruned, 0 failed), 25 running, best 0.9882 (trial 1)"
    )
    assert terminal.status_line(START) == (
        "quickstart: 0/200 finished (0 complete, 0 pruned, 0 failed), 0 running"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (1.0, "1"),
        (12345.6, "1.235e+04"),
        (123456.7, "1.23e+05"),
        (0.0001, "1.00e-04"),
        (0.0, "0"),
        (-0.5, "-0.5"),
        (64, "64"),
        (True, "True"),
        ("adam", "adam"),
        (None, "None"),
    ],
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert terminal.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.8, "0.8000"), (1.0, "1.000"), (0.0, "0.000"), (2900.0, "2900"), (5e-5, "5.00e-05")]
)
def test_a_figure_keeps_its_width_while_it_changes(value: float, text: str) -> None:
    assert terminal.figure(value) == text


@pytest.mark.parametrize(
    ("per_hour", "left"),
    [(None, "-"), (129 * 3600, "1 s"), (129 * 60, "1 min 00 s"), (129, "1 h 00 min"), (12.9, "10 h 00 min")],
)
def test_the_time_left_is_what_the_rest_takes_at_this_pace(per_hour: float | None, left: str) -> None:
    status = SimpleNamespace(waiting=104, running=25, per_hour=per_hour)
    assert terminal.time_left(status) == left  # type: ignore[arg-type]
