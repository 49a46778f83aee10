"""The winner of a study as the subject of an explanation: trained without the examples that explain it."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
from torch import Tensor, nn

from hpo.config import StudyConfig
from hpo.data import preprocessing
from hpo.data.parts import HeldOut, held_out
from hpo.data.prepared import Fold, PreparedData
from hpo.data.table import as_images
from hpo.errors import HpoError
from hpo.results.finalize import FinalResult
from hpo.results.lanes import Progress, Watch, silent, train_lanes
from hpo.results.metrics import ClassificationMetrics
from hpo.results.subject import InUnit, RawTable, Subject, background, raw_table
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData, best_device
from hpo.training.lane import Lane, LaneKey


def study_subject(
    config: StudyConfig, prepared: PreparedData, result: FinalResult, progress: Progress | None = None
) -> Subject:
    """The winner of a recorded `result`, trained anew on a part of train + validation, and the other part.

    The exported model has seen all of train + validation, on which it is therefore too seldom wrong, and the
    test part, which is opened once, stays sealed.

    Raises:
        HpoError: the training was not finite.
    """
    split = held_out(config, prepared, result.seed)
    module = _trained(config, prepared, result, split.fold, progress or silent)
    if prepared.task == "regression":
        module = InUnit(module, split.fold.target_mean, split.fold.target_scale)
    device = best_device()
    features = _validation(split)
    train = _sample_of_training(split.fold)
    flat = train.ndim == 2
    return Subject(
        name=config.name,
        task=prepared.task,
        classes=prepared.classes,
        module=module.eval().to(device),
        features=features.to(device),
        targets=split.fold.validation.targets,
        baseline=(train.mean(0) if flat else background(train)).to(device),
        baseline_text="the mean of the training rows"
        if flat
        else "the median pixel of the pictures' borders",
        about=_about(config, result, split.fold),
        table=_table(split) if flat else None,
        normalization=split.fold.normalization,
    )


def _trained(
    config: StudyConfig, prepared: PreparedData, result: FinalResult, fold: Fold, tell: Progress
) -> nn.Module:
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    settings, epochs = config.settings(result.winner.params), result.epochs
    cohort = Cohort(
        architecture,
        DeviceData((fold,), prepared.task, prepared.outputs),
        config.metric,
        settings,
        epochs,
    )
    lane = Lane(LaneKey(result.winner.lane_number, 0, result.seed), settings)
    ((key, last),), cohort = train_lanes(cohort, [lane], epochs, Watch(tell, "training", epochs))
    if last is None or not math.isfinite(last.train_loss):
        raise HpoError(
            f"study {config.name!r}: the loss of its winner, {result.winner.name}, was not finite when it "
            "was trained without the examples to explain it on"
        )
    return cohort.module(key)


def _validation(split: HeldOut) -> Tensor:
    images = as_images(split.raw.features)
    if images is not None and split.fold.normalization is not None:
        return preprocessing.normalized(images, split.fold.normalization)
    return split.fold.validation.features


def _sample_of_training(fold: Fold, most: int = 2000) -> Tensor:
    """Features of some training examples, as the network reads them."""
    part = fold.train
    if part.rows is None or fold.normalization is None:
        return part.features[:most]
    images = part.features.index_select(0, part.rows[:most])
    return preprocessing.normalized(images.numpy(), fold.normalization)


def _table(split: HeldOut) -> RawTable:
    named = isinstance(split.raw.features, pd.DataFrame)
    encode: Callable[[Any], Tensor] = partial(
        preprocessing.transform, split.preprocessing, reference=split.reference if named else None
    )
    return raw_table(split.raw.features, split.preprocessing, encode, split.reference if named else None)


def _about(config: StudyConfig, result: FinalResult, fold: Fold) -> tuple[str, ...]:
    train, validation = len(fold.train), len(fold.validation)
    test = result.test
    reached = (
        f"accuracy of {test.accuracy:.3f}"
        if isinstance(test, ClassificationMetrics)
        else f"RMSE of {test.rmse:.4g}"
    )
    return (
        f"Explained is the winner of the study, {result.winner.name} ({config.architecture}), "
        f"trained anew with its values and seed {result.seed} on {train:,} examples of train + validation. "
        f"The other {validation:,}, by which it is explained, are new to it.",
        "The exported model has learned from all of them; it reached a test "
        f"{reached} on {test.n:,} examples. The test part stays sealed.",
    )
