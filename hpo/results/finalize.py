"""The honest winner: re-evaluate the best trials, retrain one, open the test part once."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import structlog
import torch
from optuna.trial import FrozenTrial
from torch import Tensor, nn

from hpo.config import StudyConfig
from hpo.data.cache import sealed_digest
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepared import FinalTraining, Fold, Part, PreparedData
from hpo.errors import HpoError
from hpo.results.candidates import Candidate, assess, best_trials, choose, epochs_of
from hpo.results.confusions import Confusion, confusions
from hpo.results.lanes import Progress, Watch, in_chunks, silent, train_lanes
from hpo.results.metrics import Record, TestMetrics, evaluate
from hpo.results.predictions import Predictions
from hpo.results.seeds import SeedStatistics, over_seeds
from hpo.results.weights import digest
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey
from hpo.training.shapes import shape_key

log = structlog.get_logger()

EVALUATION_BATCH = 1024


class FinalResult(Record):
    """What finalizing a study came to; stored with it."""

    winner: Candidate
    candidates: list[Candidate]
    """In the search's order, the winner among them."""
    test: TestMetrics
    """Of the exported model."""
    seeds: dict[str, SeedStatistics]
    """By metric, over all retrained models."""
    seed: int
    """The exported model's: training.seed, unless its training was not finite."""
    failed_seeds: list[int]
    """Whose retraining was not finite."""
    epochs: int
    parameters: int
    """Trained numbers in the exported model."""
    seconds: float
    weights: str = ""
    """SHA-256 of the exported model's weights."""
    openings: tuple[str, ...] = ()
    """When the study's test part was opened, in UTC; this time is the last."""
    input_shape: tuple[int, ...] = ()
    """Of one example, as the exported model takes it."""
    retraining_seconds: float = 0.0
    """All retrainings of the winner together."""
    predictions: Predictions | None = None
    """The exported model's; None in results of before they were recorded."""
    confusions: tuple[Confusion, ...] = ()
    """The class pairs that the exported model confuses most."""


@dataclass(frozen=True)
class Finalized:
    """A finished study's result and the model to export."""

    result: FinalResult
    module: nn.Module
    """In evaluation mode, on the CPU. A regressor's outputs are standardized targets."""
    preprocessing: Any
    """The fitted scikit-learn transformer from raw columns to features."""
    target_mean: float
    target_scale: float


def finalize(
    config: StudyConfig,
    prepared: PreparedData,
    trials: Sequence[FrozenTrial],
    on_open: Callable[[], None],
    progress: Progress | None = None,
) -> Finalized:
    """Re-evaluate the best of `trials`, retrain the winner on train + validation, test it.

    `on_open` is called once, when everything is trained and before the sealed test part is read: what it
    raises keeps the part sealed. Equal arguments give equal results.

    Raises:
        HpoError: there is no complete trial, or no candidate or retraining stayed finite.
    """
    began = time.monotonic()
    tell = progress or silent
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    candidates = _reevaluate(config, prepared, architecture, best_trials(config, trials), tell)
    winner = choose(config, candidates)
    training = final_training(config, prepared)
    retrained = _retrain(config, prepared, architecture, winner, training, tell)
    on_open()
    test = open_sealed(prepared, training)
    outputs = retrained.outputs(test)
    tested = _test(prepared, outputs, test)
    exported, answers = tested[retrained.seed], outputs[retrained.seed]
    result = FinalResult(
        winner=winner,
        candidates=candidates,
        test=exported,
        seeds=over_seeds(tested.values()),
        seed=retrained.seed,
        failed_seeds=[seed for seed in _seeds_of_winner(config) if seed not in tested],
        epochs=winner.epochs,
        parameters=sum(parameter.numel() for parameter in retrained.module.parameters()),
        seconds=time.monotonic() - began,
        weights=digest(retrained.module),
        input_shape=prepared.input_shape,
        retraining_seconds=retrained.seconds,
        predictions=Predictions.of(prepared.task, answers, test.targets, sealed_digest(prepared)),
        confusions=confusions(exported, answers, test, training.normalization),
    )
    return Finalized(
        result, retrained.module, training.preprocessing, training.target_mean, training.target_scale
    )


def rebuild(
    config: StudyConfig, prepared: PreparedData, result: FinalResult, progress: Progress | None = None
) -> Finalized:
    """The model of a recorded `result` once more: retrained, the test part sealed.

    On the same kind of machine it comes to the same weights, unless its lanes are now fused that then trained
    one by one, or the other way round (ARCHITECTURE.md, Training); if not, that is logged.

    Raises:
        HpoError: on this machine the training that the result is of was not finite.
    """
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    training = final_training(config, prepared)
    retrained = _retrain(config, prepared, architecture, result.winner, training, progress or silent)
    if retrained.seed != result.seed:
        raise HpoError(
            f"study {config.name!r}: its winner, trial {result.winner.number}, was exported as trained with "
            f"seed {result.seed}, whose retraining here is not finite"
        )
    if result.weights and digest(retrained.module) != result.weights:
        log.warning(
            "the retrained winner is not to the bit the one that was tested: "
            "another machine, way of training or version of hpo",
            study=config.name,
        )
    return Finalized(
        result, retrained.module, training.preprocessing, training.target_mean, training.target_scale
    )


def fresh_seeds(config: StudyConfig) -> list[int]:
    """`config.final.seeds` seeds that the search has not used; the same for the same configuration."""
    drawn = np.random.SeedSequence([config.training.seed, 0xF1A1]).generate_state(2 * config.final.seeds + 8)
    distinct = dict.fromkeys(int(seed) >> 1 for seed in drawn)
    return [seed for seed in distinct if seed != config.training.seed][: config.final.seeds]


def _seeds_of_winner(config: StudyConfig) -> list[int]:
    return [config.training.seed, *fresh_seeds(config)][: config.final.seeds]


def _reevaluate(
    config: StudyConfig,
    prepared: PreparedData,
    architecture: Architecture,
    trials: Sequence[FrozenTrial],
    tell: Progress,
) -> list[Candidate]:
    """Train each of `trials` once for each fresh seed, on that seed's own split of train + validation."""
    seeds = fresh_seeds(config)
    folds = fresh_folds(config, prepared, seeds)
    data = DeviceData(folds, prepared.task, prepared.outputs)
    groups: dict[tuple[str, int], list[Lane]] = {}
    for trial in trials:
        settings, epochs = config.settings(trial.params), epochs_of(config, trial)
        groups.setdefault((shape_key(settings), epochs), []).extend(
            Lane(LaneKey(trial.number, fold, seed), settings) for fold, seed in enumerate(seeds)
        )
    watch = Watch(tell, "re-evaluating", sum(len(lanes) * epochs for (_, epochs), lanes in groups.items()))
    values: dict[int, list[float]] = {}
    failures: dict[int, str] = {}
    for (_, epochs), lanes in groups.items():
        make = partial(Cohort, architecture, data, config.metric, lanes[0].settings, epochs)
        for trained, _ in in_chunks(lanes, lambda chunk: train_lanes(make(), chunk, epochs, watch)):  # noqa: B023
            for key, last in trained:
                if last is None or not math.isfinite(last.value):
                    what = "training loss" if last is None else config.metric
                    failures.setdefault(key.trial, f"its {what} was not finite with seed {key.seed}")
                else:
                    values.setdefault(key.trial, []).append(last.value)
    return assess(config, trials, values, failures, len(folds[0].validation) / len(folds[0].train))


@dataclass(frozen=True)
class _Retrained:
    """The winner's models, one for each seed whose training stayed finite."""

    cohorts: list[Cohort]
    seed: int
    module: nn.Module
    """Of `seed`."""
    training: FinalTraining
    seconds: float
    """All of them together."""

    def outputs(self, test: Part) -> dict[int, Tensor]:
        """[N, outputs] by seed, of models whose are finite; the exported one's as its user will call it."""
        outputs = {self.seed: self._module_outputs(test.features)}
        for cohort in self.cohorts:
            parts = [cohort.predict(part) for part in torch.split(test.features, EVALUATION_BATCH)]
            for key, lane_outputs in zip(cohort.keys, torch.cat(parts, dim=1), strict=True):
                if key.seed != self.seed and bool(lane_outputs.isfinite().all()):
                    outputs[key.seed] = lane_outputs
        return outputs

    @torch.no_grad()
    def _module_outputs(self, features: Tensor) -> Tensor:
        outputs = torch.cat([self.module(part) for part in torch.split(features, EVALUATION_BATCH)])
        return outputs * self.training.target_scale + self.training.target_mean


def _retrain(
    config: StudyConfig,
    prepared: PreparedData,
    architecture: Architecture,
    winner: Candidate,
    training: FinalTraining,
    tell: Progress,
) -> _Retrained:
    """Train the winner on all of train + validation, once for each seed."""
    began = time.monotonic()
    nothing = Part(training.train.features[:0], training.train.targets[:0])
    fold = Fold(training.train, nothing, training.target_mean, training.target_scale, training.normalization)
    data = DeviceData((fold,), prepared.task, prepared.outputs)
    settings = config.settings(winner.params)
    lanes = [Lane(LaneKey(winner.number, 0, seed), settings) for seed in _seeds_of_winner(config)]
    watch = Watch(tell, "retraining", len(lanes) * winner.epochs)
    make = partial(Cohort, architecture, data, config.metric, settings, winner.epochs)
    chunks = in_chunks(lanes, lambda chunk: train_lanes(make(), chunk, winner.epochs, watch))
    cohorts = [cohort for _, cohort in chunks]
    finite = [(cohort, key) for cohort in cohorts for key in cohort.keys]
    if not finite:
        raise HpoError(
            f"study {config.name!r}: the loss of its winner, trial {winner.number}, was not finite in any of "
            f"{len(lanes)} retrainings on train + validation; the test part was not opened"
        )
    cohort, key = min(finite, key=lambda found: lanes.index(Lane(found[1], settings)))
    return _Retrained(cohorts, key.seed, cohort.module(key).eval(), training, time.monotonic() - began)


def _test(prepared: PreparedData, outputs: dict[int, Tensor], test: Part) -> dict[int, TestMetrics]:
    """Metrics by seed."""
    try:
        return {
            seed: evaluate(prepared.task, scores, test.targets, prepared.classes)
            for seed, scores in outputs.items()
        }
    except ValueError as error:
        raise HpoError(f"the retrained winner cannot be tested: {error}") from error
