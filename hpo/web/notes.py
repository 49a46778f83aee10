"""The note of a study, as markdown: what is searched, how it stands, how to join in; made at each look."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpo.config import CsvData, FolderData, Folds, IdxData, StudyConfig, UserData
from hpo.search.status import RESULT, Status
from hpo.space import Choices, Range
from hpo.terminal import number, params, time_left
from hpo.web.watched import StudyRow, Watched

MARK = "## The study now"
"""Where our part of a study's note begins; what stands before it is the user's."""
_KEY = re.compile(r"dashboard:(?:(-?\d+):)?note_(ver|str:(\d+))")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~!$])")


def is_note(key: str, value: Any) -> bool:
    """Whether a study's system attribute is a part of a note: its version, or a piece of its text."""
    named = _KEY.fullmatch(key)
    return bool(named) and isinstance(value, int if key.endswith("_ver") else str)


def stored_notes(row: StudyRow) -> dict[str, Any]:
    """Of what dashboards store with a study, the notes: forms and artifacts would serve to change things."""
    return {key: value for key, value in row.system_attrs.items() if is_note(key, value)}


def whole_notes(row: StudyRow) -> dict[int | None, tuple[int, str]]:
    """Version and text of each note, by its trial's id; the study's own by None."""
    stored = stored_notes(row)
    chunks: dict[int | None, list[tuple[int, str]]] = {}
    versions: dict[int | None, int] = {}
    for key, value in stored.items():
        named = _KEY.fullmatch(key)
        assert named
        trial = int(named[1]) if named[1] else None
        if named[2] == "ver":
            versions[trial] = value
        else:
            chunks.setdefault(trial, []).append((int(named[3]), value))
    return {
        trial: (version, "".join(text for _, text in sorted(chunks.get(trial, []))))
        for trial, version in versions.items()
    }


def study_note(study: Watched, hint: str = "") -> dict[str, Any]:
    """The study's note as the page takes it: the user's own, then ours.

    hint: of what the page leaves out.
    """
    version, theirs = whole_notes(study.row).get(None, (0, ""))
    theirs = theirs.partition(MARK)[0].rstrip()
    lines = [] if study.config is None else list(_lines(study.config, study))
    if hint:
        lines.append(f"*{hint}*")
    ours = "\n\n".join([MARK, *lines]) if lines else ""
    return {"version": version, "body": "\n\n".join(part for part in (theirs, ours) if part)}


def _lines(config: StudyConfig, study: Watched) -> Iterator[str]:
    what = f"{config.direction} the validation {plain(config.metric)} of `{code(config.architecture)}`"
    yield f"**Goal:** {what} on {_data(config)}."
    if study.status is not None:
        yield _state(study.status)
        yield _best(study.status)
    if RESULT in study.row.attrs:
        yield from _result(study.row.attrs[RESULT])
    yield _space(config)
    how = f"sampler `{config.sampler.name}`, pruner `{config.pruner.name}`, {_validation(config)}"
    yield f"**Search:** {how}, up to {config.training.epochs} epochs a trial."
    if study.status is not None and study.status.state not in {"searched", "finished"}:
        yield (
            f"**To join in** with another worker, where the data are: `hpo worker {code(study.row.name)}`, "
            "with `HPO_STORAGE` set to this database. In a terminal the same is shown by "
            f"`hpo status {code(study.row.name)} --watch`."
        )


def _data(config: StudyConfig) -> str:
    data = config.data
    if isinstance(data, CsvData | IdxData | FolderData):
        return f"`{code(Path(data.path).name)}`"
    return f"`{code(data.source if isinstance(data, UserData) else data.name)}`"


def _validation(config: StudyConfig) -> str:
    if isinstance(config.validation, Folds):
        return f"{config.validation.folds} folds"
    return f"{config.validation.fraction:.0%} of the rows to validate on"


def _state(status: Status) -> str:
    counts = (
        f"{status.finished:,} of {status.total:,} trials finished ({status.complete:,} complete, "
        f"{status.pruned:,} pruned, {status.failed:,} failed), {status.running:,} running, "
        f"{status.waiting:,} waiting."
    )
    lines = [f"**State:** {status.state}. {counts}"]
    if status.running:
        room = f" of {status.room}" if status.room else ""
        workers = ", ".join(f"{code(worker.name)} ({worker.trials})" for worker in status.workers)
        lines.append(f"{status.lanes:,} lanes in use{room}; workers and their trials: `{workers or '-'}`.")
        if status.pace.lately:
            lines.append(f"{status.pace.lately:,.0f} trials an hour, {time_left(status)} left.")
    elif status.pace.overall:
        lines.append(f"{status.pace.overall:,.0f} trials an hour over the whole search.")
    if status.measured and status.measured.fused > 1:
        gain = f"{status.measured.speed_up:.1f} times as fast as single ones"
        lines.append(f"{status.measured.fused} fused lanes were {gain}.")
    return " ".join(lines)


def _best(status: Status) -> str:
    if status.best is None:
        return "**Best so far:** none, no trial is complete."
    best = status.best
    return f"**Best so far:** {number(best.value)} (trial {best.number}), with `{code(params(best.params))}`."


def _result(stored: Any) -> Iterator[str]:
    """What finalizing came to; nothing where another version recorded it in another way."""
    result = stored.get("result", {}) if isinstance(stored, Mapping) else {}
    test, winner = result.get("test"), result.get("winner")
    if not isinstance(test, Mapping) or not isinstance(winner, Mapping):
        return
    names = ("accuracy", "f1", "roc_auc") if test.get("task") == "classification" else ("rmse", "mae", "r2")
    known = {name: test[name] for name in names if isinstance(test.get(name), float)}
    figures = ", ".join(f"{name} {number(value)}" for name, value in known.items())
    found = winner.get("number")
    which = "the configuration's defaults" if found is None else f"trial {found}"
    yield (f"**Tested once:** the winner is {which}; on {test.get('n')} held-out examples: {plain(figures)}.")
    report = Path(str(stored.get("out", ""))) / "report.html"
    yield f"**Report:** `{code(str(report))}`, where it was finalized."


def _space(config: StudyConfig) -> str:
    rows = [f"| `{code(name)}` | {plain(_values(found))} |" for name, found in config.search.items()]
    return "\n".join(["**Space:**", "", "| parameter | values |", "|---|---|", *rows])


def _values(parameter: Range | Choices) -> str:
    when = ""
    if parameter.when:
        when = f", when {params(parameter.when)}"
    if isinstance(parameter, Choices):
        return ", ".join(map(number, parameter.choices)) + when
    steps = ", logarithmic" if parameter.log else f", in steps of {parameter.step}" if parameter.step else ""
    return f"{number(parameter.low)} to {number(parameter.high)}{steps}{when}"


def plain(text: str) -> str:
    """Text that markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))


def code(text: str) -> str:
    """Text inside of backticks: nothing but a backtick, or a bar in a table, means anything there."""
    return " ".join(str(text).split()).replace("`", "'").replace("|", "¦")
