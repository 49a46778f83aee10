"""The honest winner: re-evaluate the best trials, retrain one, open the test part once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from optuna.trial import FrozenTrial
from pydantic import Field
from torch import Tensor, nn

from hpo.config import StudyConfig
from hpo.data.cache import sealed_digest
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepared import Part, PreparedData
from hpo.errors import HpoError
from hpo.results.baselines import Baseline, Baselines
from hpo.results.bootstrap import intervals, intervals_of_means, resample
from hpo.results.candidates import Candidate, choose, entrants
from hpo.results.confusions import Confusion, confusions
from hpo.results.lanes import Progress, silent
from hpo.results.machine import here
from hpo.results.metrics import Record, TestMetrics, evaluate
from hpo.results.predictions import Predictions
from hpo.results.reevaluate import fresh_seeds, reevaluate
from hpo.results.retrain import retrain, seeds_of_winner
from hpo.results.seeds import SeedStatistics, over_seeds
from hpo.results.weights import digest
from hpo.training.architecture import Architecture

log = structlog.get_logger()


class FinalResult(Record):
    """What finalizing a study came to; stored with it."""

    winner: Candidate
    candidates: list[Candidate]
    """In the search's order, last the defaults; the winner is among them."""
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
    machine: dict[str, str] = Field(default_factory=dict)
    """That finalized, and its versions; empty in results of before they were recorded."""
    baselines: tuple[Baseline, ...] = ()
    """scikit-learn's models on the same splits and test examples."""
    fresh_seeds: tuple[int, ...] = ()
    """Of the re-evaluations and their splits, in the order of each candidate's values."""


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
    """Re-evaluate the best of `trials` and the defaults, retrain the winner on train + validation, test it.

    `on_open` is called once, when everything is trained and before the sealed test part is read: what it
    raises keeps the part sealed. Equal arguments give equal results.

    Raises:
        HpoError: there is no complete trial, or no candidate or retraining stayed finite.
    """
    began = time.monotonic()
    tell = progress or silent
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    entered = entrants(config, trials)
    folds = fresh_folds(config, prepared, fresh_seeds(config))
    candidates = reevaluate(config, prepared, architecture, entered, folds, tell)
    winner = choose(config, candidates)
    training = final_training(config, prepared)
    retrained = retrain(config, prepared, architecture, winner, training, tell)
    baselines = Baselines(config, prepared, folds, training, tell)
    on_open()
    test = open_sealed(prepared, training)
    outputs = retrained.outputs(test)
    exported, answers = retrained.seed, outputs[retrained.seed]
    tested, over_all_seeds = _test(config, prepared, outputs, test, exported)
    result = FinalResult(
        winner=winner,
        candidates=candidates,
        fresh_seeds=tuple(fresh_seeds(config)),
        test=tested,
        seeds=over_all_seeds,
        seed=exported,
        failed_seeds=[seed for seed in seeds_of_winner(config) if seed not in outputs],
        epochs=winner.epochs,
        parameters=sum(parameter.numel() for parameter in retrained.module.parameters()),
        seconds=time.monotonic() - began,
        weights=digest(retrained.module),
        input_shape=prepared.input_shape,
        retraining_seconds=retrained.seconds,
        predictions=Predictions.of(prepared.task, answers, test.targets, sealed_digest(prepared)),
        confusions=confusions(tested, answers, test, training.normalization),
        baselines=baselines.beside(winner, test),
        machine=here(),
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
    retrained = retrain(config, prepared, architecture, result.winner, training, progress or silent)
    if retrained.seed != result.seed:
        raise HpoError(
            f"study {config.name!r}: its winner, {result.winner.name}, was exported as trained with "
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


def _test(
    config: StudyConfig, prepared: PreparedData, outputs: dict[int, Tensor], test: Part, exported: int
) -> tuple[TestMetrics, dict[str, SeedStatistics]]:
    """Metrics of the exported model, and statistics over all; with intervals."""
    try:
        tested = {
            seed: evaluate(prepared.task, scores, test.targets, prepared.classes)
            for seed, scores in outputs.items()
        }
    except ValueError as error:
        raise HpoError(f"the retrained winner cannot be tested: {error}") from error
    examples, models = ((config.training.seed, purpose) for purpose in (0xB007, 0x5EED))
    resampled = resample(prepared.task, outputs, test.targets, examples)
    over_examples = {"intervals": intervals(resampled[exported])}
    means = intervals_of_means(resampled, models)
    return tested[exported].model_copy(update=over_examples), over_seeds(tested.values(), means)
