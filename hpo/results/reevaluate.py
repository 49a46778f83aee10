"""Candidates trained anew, on common fresh seeds and splits of train + validation."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from hpo.config import StudyConfig
from hpo.data.prepared import Fold, PreparedData
from hpo.errors import TrialError
from hpo.results.candidates import DEFAULTS, Candidate, Entrant, assess
from hpo.results.lanes import Progress, Watch, in_chunks, train_lanes
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.cost import Limits
from hpo.training.device_data import DeviceData
from hpo.training.lane import EpochResult, Lane, LaneKey
from hpo.training.shapes import shape_key


def fresh_seeds(config: StudyConfig) -> list[int]:
    """`config.final.seeds` seeds that the search has not used; the same for the same configuration."""
    drawn = np.random.SeedSequence([config.training.seed, 0xF1A1]).generate_state(2 * config.final.seeds + 8)
    distinct = dict.fromkeys(int(seed) >> 1 for seed in drawn)
    return [seed for seed in distinct if seed != config.training.seed][: config.final.seeds]


def overlap_of(folds: Sequence[Fold]) -> float:
    """Validation rows per training row, by which the values of random splits depend on each other."""
    return len(folds[0].validation) / len(folds[0].train)


def reevaluate(
    config: StudyConfig,
    prepared: PreparedData,
    architecture: Architecture,
    entered: Sequence[Entrant],
    folds: Sequence[Fold],
    tell: Progress,
) -> list[Candidate]:
    """Train each entrant once for each fresh seed, on the fold of that seed."""
    data = DeviceData(tuple(folds), prepared.task, prepared.outputs)
    failures = _untrainable(config, architecture, entered)
    groups = _groups(config, [entrant for entrant in entered if entrant.number not in failures])
    watch = Watch(tell, "re-evaluating", sum(len(lanes) * epochs for (_, epochs), lanes in groups.items()))
    values: dict[int, list[float]] = {}
    for (_, epochs), lanes in groups.items():
        make = partial(Cohort, architecture, data, config.metric, lanes[0].settings, epochs)
        try:
            for trained, _ in in_chunks(lanes, lambda chunk: train_lanes(make(), chunk, epochs, watch)):  # noqa: B023
                _collect(config, trained, values, failures)
        except Exception as error:
            if any(lane.key.trial != DEFAULTS for lane in lanes):
                raise
            failures[DEFAULTS] = f"they could not be trained: {error}"
    return assess(config, entered, values, failures, overlap_of(folds))


def _untrainable(
    config: StudyConfig, architecture: Architecture, entered: Sequence[Entrant]
) -> dict[int, str]:
    """Why the defaults cannot be trained, by their number: unlike the trials, nobody has tried them."""
    limits = Limits(config.constraints, architecture) if config.constraints else None
    failures = {}
    for entrant in entered:
        if entrant.number == DEFAULTS:
            settings = config.settings(entrant.params)
            try:
                architecture.build(settings.options)
                violation = limits.violation(settings) if limits else ""
            except TrialError as error:
                violation = str(error)
            if violation:
                failures[DEFAULTS] = violation
    return failures


def _groups(config: StudyConfig, entered: Sequence[Entrant]) -> dict[tuple[str, int], list[Lane]]:
    """Lanes that train together: a lane of each entrant for each fresh seed, on the fold of that seed."""
    groups: dict[tuple[str, int], list[Lane]] = {}
    for entrant in entered:
        settings = config.settings(entrant.params)
        groups.setdefault((shape_key(settings), entrant.epochs), []).extend(
            Lane(LaneKey(entrant.number, fold, seed), settings)
            for fold, seed in enumerate(fresh_seeds(config))
        )
    return groups


def _collect(
    config: StudyConfig,
    trained: Sequence[tuple[LaneKey, EpochResult | None]],
    values: dict[int, list[float]],
    failures: dict[int, str],
) -> None:
    for key, last in trained:
        if last is None or not math.isfinite(last.value):
            what = "training loss" if last is None else config.metric
            failures.setdefault(key.trial, f"its {what} was not finite with seed {key.seed}")
        else:
            values.setdefault(key.trial, []).append(last.value)
