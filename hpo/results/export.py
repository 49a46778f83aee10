"""Writing a bundle: everything that rebuilds the winner without the study, and what it is worth.

What its files are stands in `hpo.results.bundle_folder`.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
import torch
from pydantic import BaseModel
from safetensors.torch import save_file

from hpo.config import StudyConfig
from hpo.data.prepared import Normalization, PreparedData
from hpo.errors import BundleError, HpoError
from hpo.results.bundle_folder import (
    REPORT,
    check_replaceable,
    checked,
    sha256,
    staged,
    write_json,
    write_manifest,
)
from hpo.results.environment import environment
from hpo.results.finalize import Finalized, FinalResult
from hpo.results.model_card import is_image, model_card
from hpo.results.network import USER_FILE, Network
from hpo.results.weights import tensors_of
from hpo.usercode import file_of, is_user_function
from hpo.yamltext import write_yaml


def export(
    folder: Path,
    config: StudyConfig,
    prepared: PreparedData,
    finalized: Finalized,
    study_summary: Mapping[str, Any],
    report: str | None = None,
) -> None:
    """Write the results folder beside and rename it to `folder`; an earlier one of this study is replaced.

    study_summary: JSON-able facts about the search, such as its counts of trials; kept in best.json.
    report: the page for report.html.

    Raises:
        HpoError: `folder` holds something else than results of this study, or cannot be written.
    """
    target = folder.resolve()
    try:
        check_replaceable(target, config.name)
        with staged(target) as staging:
            _write_records(staging, config, prepared, finalized, study_summary)
            write_study_files(staging, config, finalized.result, target)
            _write_model(staging, config, prepared, finalized)
            _write_predictions(staging / "predictions.safetensors", prepared, finalized.result)
            if report is not None:
                (staging / REPORT).write_text(report, encoding="utf-8")
            write_manifest(staging, config.name)
    except OSError as error:
        raise HpoError(f"results folder {target}: cannot be written: {error}") from error


def is_complete(folder: Path, result: FinalResult) -> bool:
    """Whether `folder` holds all files of this very result, undamaged, and its report."""
    try:
        manifest = checked(folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (BundleError, OSError, ValueError):
        return False
    predictions = result.predictions is None or "predictions.safetensors" in manifest["files"]
    return bool(metrics == _metrics(result) and predictions and (folder / REPORT).is_file())


def _write_records(
    staging: Path,
    config: StudyConfig,
    prepared: PreparedData,
    finalized: Finalized,
    study_summary: Mapping[str, Any],
) -> None:
    made = environment(config, prepared, finalized)
    write_json(staging / "best.json", _best(config, finalized, study_summary))
    write_json(staging / "metrics.json", _metrics(finalized.result))
    write_json(staging / "labels.json", _labels(prepared))
    write_json(staging / "environment.json", made)
    card = model_card(config, prepared, finalized, made)
    (staging / "README.md").write_text(card, encoding="utf-8")


def _dump(model: BaseModel) -> Any:
    return model.model_dump(mode="json")


def _best(config: StudyConfig, finalized: Finalized, study_summary: Mapping[str, Any]) -> dict[str, Any]:
    winner = finalized.result.winner
    return {
        "study": config.name,
        "number": winner.number,
        "params": winner.params,
        "metric": config.metric,
        "value": winner.value,
        "mean": winner.mean,
        "interval": winner.interval,
        "shrunk": winner.shrunk,
        "summary": dict(study_summary),
    }


def _metrics(result: FinalResult) -> dict[str, Any]:
    return {
        "openings": list(result.openings),
        "test": _dump(result.test),
        "seeds": {name: _dump(statistics) for name, statistics in result.seeds.items()},
        "candidates": [_dump(candidate) for candidate in result.candidates],
        "fresh_seeds": list(result.fresh_seeds),
        "baselines": [_dump(baseline) for baseline in result.baselines],
    }


def _labels(prepared: PreparedData) -> dict[str, Any]:
    return {
        "task": prepared.task,
        "classes": list(prepared.classes),
        "features": list(prepared.feature_names),
        "input_shape": list(prepared.input_shape),
    }


def write_study_files(staging: Path, config: StudyConfig, result: FinalResult, target: Path) -> None:
    """config.yaml and best.yaml, for a folder that will be `target`: their paths are relative to it."""
    for name, content, what in (
        ("config.yaml", config.model_dump(mode="json"), "The resolved study"),
        (
            "best.yaml",
            winner_config(config, result),
            f"{result.winner.name[0].upper()}{result.winner.name[1:]}, the winner of",
        ),
    ):
        data = content["data"]
        for section, key in ((data, "path"), (data, "source"), (content, "architecture")):
            if key == "path" or is_user_function(section[key]):
                _move(section, key, config.folder, target)
        (staging / name).write_text(f"# {what} {config.name}.\n{write_yaml(content)}", encoding="utf-8")


def winner_config(config: StudyConfig, result: FinalResult) -> dict[str, Any]:
    """The study file of a study whose only trial has the winner's parameters, for the folder of `config`.

    The winner's values stand in `training` and `options`. A study file must search something, so the
    learning rate stands in `search` too, with the winner's as its only choice. Where the learning rate
    follows a schedule over all epochs, an epoch before the last is found again by `select: best_epoch`.
    """
    winner = result.winner
    settings = config.settings(winner.params)
    hyperparameters = settings.hyperparameters.model_dump(mode="json")
    trained: dict[str, Any] = {"seed": result.seed}
    if settings.hyperparameters.schedule == "constant" and not settings.hyperparameters.warmup:
        trained |= {"epochs": result.epochs, "select": "last"}
    else:
        trained |= {"epochs": config.training.epochs, "select": config.training.select}
    return config.model_dump(mode="json") | {
        "name": f"{config.name[:95]}-best",
        "options": settings.options,
        "search": {"learning_rate": {"choices": [hyperparameters["learning_rate"]]}},
        "training": hyperparameters | trained,
        "trials": 1,
        "sampler": {"name": "grid"},
        "pruner": {"name": "none"},
        "final": {"top": 1, "seeds": config.final.seeds},
        "warm_start": None,
    }


def _move(section: dict[str, Any], key: str, start: Path, target: Path) -> None:
    """Write a path that is relative to `start` as one that is relative to `target`."""
    if key in section and not Path(section[key]).is_absolute():
        section[key] = Path(os.path.relpath((start / section[key]).resolve(), target)).as_posix()


def _write_model(staging: Path, config: StudyConfig, prepared: PreparedData, finalized: Finalized) -> None:
    own = file_of(config.architecture, config.folder) if is_user_function(config.architecture) else None
    if own is not None:
        shutil.copyfile(own, staging / USER_FILE)
    network = Network(
        architecture=config.architecture,
        architecture_sha256=sha256(staging / USER_FILE) if own else None,
        options=config.settings(finalized.result.winner.params).options,
        input_shape=prepared.input_shape,
        outputs=prepared.outputs,
        task=prepared.task,
        target_mean=finalized.target_mean,
        target_scale=finalized.target_scale,
        normalization=_normalization(config, prepared, finalized.preprocessing),
    )
    network.save(staging / "model.safetensors", tensors_of(finalized.module))
    skops.io.dump(finalized.preprocessing, staging / "preprocessing.skops")


def _normalization(config: StudyConfig, prepared: PreparedData, scaler: Any) -> Normalization | None:
    """From the flattened images' scaler, which repeats a channel's numbers for each of its pixels."""
    if not is_image(config):
        return None
    means, deviations = (
        np.reshape(values, (prepared.input_shape[0], -1))[:, 0] for values in (scaler.mean_, scaler.scale_)
    )
    return Normalization(tuple(means.tolist()), tuple(deviations.tolist()))


def _write_predictions(path: Path, prepared: PreparedData, result: FinalResult) -> None:
    """From the recorded result, so that a folder that is written again has the tested model's own."""
    if result.predictions is None:
        return
    predicted, targets = (torch.from_numpy(array.copy()) for array in result.predictions.arrays())
    metadata = {"test": result.predictions.test, "classes": json.dumps(prepared.classes)}
    save_file({"predicted": predicted, "targets": targets}, path, metadata)
