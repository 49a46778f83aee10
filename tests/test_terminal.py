"""What the terminal shows."""

import io
import time
from dataclasses import replace
from typing import Any

import pytest
from conftest import study_of
from rich.console import Console
from rich.live import Live

from hpo import terminal
from hpo.search.pace import Pace
from hpo.search.records import Holder
from hpo.search.status import Best, RunningRow, Status
from hpo.search.training import Measured

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
WORKERS = (Holder("vm-4711-ab12cd34", 13, 0.3), Holder("vm-4712-ab12cd34", 12, 16.4))
MIDDLE = Status(
    study="quickstart",
    state="running",
    waiting=104,
    running=25,
    complete=20,
    pruned=51,
    failed=0,
    best=Best(1, PARAMS, 0.98823),
    rows=ROWS,
    pace=Pace(24893.2, 19010.4),
    workers=WORKERS,
    folds=1,
    measured=Measured(13, 16, 9.128),
)
NOTHING: dict[str, Any] = {"running": 0, "complete": 0, "pruned": 0, "rows": (), "workers": (), "best": None}
START = replace(MIDDLE, state="waiting", waiting=200, pace=Pace(None, None), measured=None, **NOTHING)


def shown(status: Status, width: int, height: int = 24) -> list[str]:
    console = Console(record=True, width=width, height=height, force_terminal=True, file=io.StringIO())
    console.print(terminal.LiveView(status, CONFIG))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_live_view_has_counts_lanes_pace_best_and_a_row_for_each_running_trial() -> None:
    lines = shown(MIDDLE, 100)
    assert lines[0] == "quickstart  running"
    assert lines[1].startswith("progress") and lines[1].endswith("71/200")
    assert lines[2:9] == [
        "trials         20 complete, 51 pruned, 0 failed, 25 running, 104 waiting",
        "lanes          25 in use of 26",
        "speed-up       9.1 over single trials, measured at start with 16 fused lanes",
        "pace           24,893 trials per hour, 19 s left (19,010 overall)",
        "workers        vm-4711: 13 trials, vm-4712: 12 trials (silent for 16 s)",
        "best accuracy  0.9882  (trial 1)",
        "with           dropout=0.3819, batch_size=128, optimizer=adam, learning_rate=3.10e-04",
    ]
    assert lines[10] == "trial  epoch  accuracy  dropout  batch_size  optimizer  momentum  learning_rate"
    assert lines[11] == "    0   0/30             0.3819         128       adam                 3.10e-04"
    assert lines[12] == "    1   1/30    0.8001   0.3819         128       adam                 3.10e-04"


def test_where_fusing_gains_nothing_it_says_so() -> None:
    lines = shown(replace(MIDDLE, measured=Measured(1, 1, 1.0)), 100)
    assert lines[4] == "speed-up       none: trials train one by one"


def test_nothing_of_it_is_wider_than_80_columns() -> None:
    lines = shown(MIDDLE, 80)
    assert [line.split("  ")[0] for line in lines[2:9]] == [
        *("trials", "lanes", "speed-up", "pace", "workers", "best accuracy", "with")
    ]
    plain = shown(replace(MIDDLE, study="mlp-diabetes", waiting=104000, complete=20000, failed=777), 80)
    assert [line.split("  ")[0] for line in plain[2:5]] == ["trials", "lanes", "speed-up"]


def test_without_a_measurement_lanes_have_no_room_and_no_speed_up_is_told() -> None:
    lines = shown(replace(MIDDLE, measured=None, folds=5), 80)
    assert lines[3] == "lanes          125 in use"
    assert not any(line.startswith("speed-up") for line in lines)


def test_the_overall_pace_is_told_by_itself_where_nothing_runs() -> None:
    lines = shown(replace(MIDDLE, state="stopped", running=0, rows=(), workers=()), 80)
    assert "pace           19,010 trials per hour over the whole search" in lines
    assert not any(line.startswith(("lanes", "workers")) for line in lines)


def test_many_workers_take_one_line() -> None:
    crowd = tuple(Holder(f"machine-{n}-{4711 + n}-ab12cd34", 1, 0.0) for n in range(100))
    [line] = [line for line in shown(replace(MIDDLE, workers=crowd), 80) if line.startswith("workers")]
    assert line == "workers        machine-0-4711: 1 trial, machine-1-4712: 1 trial and 98 more"
    [line] = [line for line in shown(replace(MIDDLE, workers=crowd), 30, 50) if line.startswith("workers")]
    assert line == "workers        100"


def test_a_low_screen_keeps_counts_and_running_trials() -> None:
    lines = shown(MIDDLE, 80, 12)
    assert [line.split("  ")[0] for line in lines[1:6]] == [
        *("progress", "trials", "lanes", "pace", "best accuracy")
    ]
    assert sum("/30" in line for line in lines) >= 2 and len(lines) < 12


@pytest.mark.parametrize("width", [40, 60, 100, 200])
@pytest.mark.parametrize("height", [12, 16, 24, 50])
def test_the_live_view_fits_any_screen(width: int, height: int) -> None:
    lines = shown(MIDDLE, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    rows = [line for line in lines if "/30" in line]
    if len(rows) < 25 and (height, width) != (12, 40):
        assert lines[-1] == f"and {25 - len(rows)} more running"
    if height == 50 and width >= 60:
        assert len(rows) == 25
    elif height == 24:
        assert len(rows) >= 5


def test_before_the_first_trial_it_says_what_it_waits_for_and_no_figures() -> None:
    lines = shown(START, 100)
    assert lines[0] == "quickstart  waiting for workers"
    assert lines[1].endswith("0/200")
    assert lines[2:] == ["trials         0 complete, 0 pruned, 0 failed, 0 running, 200 waiting"]


def test_the_live_view_takes_no_noticeable_time() -> None:
    console = Console(width=100, height=40, force_terminal=True, file=io.StringIO())
    with Live(console=console, auto_refresh=False) as view:
        started = time.process_time()
        for _ in range(10):
            view.update(terminal.LiveView(MIDDLE, CONFIG), refresh=True)
        assert time.process_time() - started < 2.0


def test_a_status_is_one_line() -> None:
    assert terminal.status_line(MIDDLE) == (
        "quickstart: 71/200 finished (20 complete, 51 pruned, 0 failed), 25 running, "
        "24,893 trials per hour, best 0.9882 (trial 1)"
    )
    assert ", 25 running on 75 lanes, 24,893 " in terminal.status_line(replace(MIDDLE, folds=3))
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
    assert terminal.time_left(replace(MIDDLE, pace=Pace(per_hour, per_hour))) == left
