"""The results folder: everything that rebuilds the winner without the study, and what it is worth.

    best.yaml             a study file whose search space is the winner alone
    best.json             trial number, parameters, the search's value and the re-evaluated mean
    metrics.json          test metrics, their spread over seeds, all candidates, openings of the test part
    model.safetensors     weights; the metadata say how to build the module
    preprocessing.skops   the fitted transformer from raw columns to features
    labels.json           class names by index, feature names
    predictions.safetensors  what the model said of each test example, and what is true
    report.html           the report, where there is one

A folder without metrics.json is not complete: it is written last and removed first. No file holds a pickle:
opening them runs no code.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import skops.io
import torch
import yaml
from pydantic import BaseModel
from safetensors.torch import save_file

from hpo.config import StudyConfig
from hpo.data.prepared import PreparedData
from hpo.errors import HpoError
from hpo.results.finalize import Finalized, FinalResult
from hpo.usercode import is_user_function

FILES = (
    "best.yaml",
    "best.json",
    "model.safetensors",
    "preprocessing.skops",
    "labels.json",
    "predictions.safetensors",
    "report.html",
    "metrics.json",
)
"""What this project writes into a results folder, in this order; other files in it are the user's own."""
LAST = FILES[-1]
FORMAT = "1"


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
        with _staged(target) as staging:
            _write_json(staging / "best.json", _best(config, finalized, study_summary))
            _write_best_yaml(staging / "best.yaml", config, finalized, target)
            _write_json(staging / "metrics.json", _metrics(finalized.result))
            _write_json(staging / "labels.json", _labels(prepared))
            _write_model(staging / "model.safetensors", config, prepared, finalized)
            _write_predictions(staging / "predictions.safetensors", prepared, finalized.result)
            skops.io.dump(finalized.preprocessing, staging / "preprocessing.skops")
            if report is not None:
                (staging / "report.html").write_text(report, encoding="utf-8")
    except OSError as error:
        raise HpoError(f"results folder {target}: cannot be written: {error}") from error


def is_complete(folder: Path, result: FinalResult) -> bool:
    """Whether `folder` holds all files of this very result."""
    try:
        metrics = json.loads((folder / LAST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    expected = [name for name in FILES if result.predictions or not name.startswith("predictions")]
    return metrics == _metrics(result) and all((folder / name).is_file() for name in expected)


def check_replaceable(folder: Path, study: str) -> None:
    """Refuse a folder that `export` would: to be asked before the search, not after the test.

    Raises:
        HpoError: `folder` cannot be made, or holds something else than results of `study`.
    """
    target = folder.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HpoError(f"results folder {target}: cannot be written: {error.strerror}") from error
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    found = _study_of(target / "best.json")
    if found != study:
        holds = "something else" if found is None else f"results of study {found!r}"
        raise HpoError(f"results folder {target}: holds {holds}; choose another one for study {study!r}")


def _study_of(best: Path) -> str | None:
    try:
        content = json.loads(best.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not ours, then
        return None
    name = content.get("study") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` whose files take their places there when the block ends well, and go when not.

    The process may be killed at any point: `target` lacks the `LAST` file then, or is as it was, or as it is
    to be.
    """
    staging = target.parent / f".{target.name}.new"
    if staging.exists():  # of a process that was killed
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    try:
        yield staging
        if target.exists() and any(target.iterdir()):
            _replace_files(staging, target)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_files(staging: Path, target: Path) -> None:
    (target / LAST).unlink(missing_ok=True)
    for name in FILES:
        if (staging / name).exists():
            (staging / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


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
    }


def _labels(prepared: PreparedData) -> dict[str, Any]:
    return {
        "task": prepared.task,
        "classes": list(prepared.classes),
        "features": list(prepared.feature_names),
        "input_shape": list(prepared.input_shape),
    }


def winner_config(config: StudyConfig, finalized: Finalized) -> dict[str, Any]:
    """The study file of a study whose only trial has the winner's parameters, for the folder of `config`.

    The winner's values stand in `training` and `options`. A study file must search something, so the
    learning rate stands in `search` too, with the winner's as its only choice. Where the learning rate
    follows a schedule over all epochs, an epoch before the last is found again by `select: best_epoch`.
    """
    winner = finalized.result.winner
    settings = config.settings(winner.params)
    hyperparameters = settings.hyperparameters.model_dump(mode="json")
    trained: dict[str, Any] = {"seed": finalized.result.seed}
    if settings.hyperparameters.schedule == "constant" and not settings.hyperparameters.warmup:
        trained |= {"epochs": finalized.result.epochs, "select": "last"}
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


def _write_best_yaml(path: Path, config: StudyConfig, finalized: Finalized, target: Path) -> None:
    content = winner_config(config, finalized)
    data = content["data"]
    for section, key in ((data, "path"), (data, "source"), (content, "architecture")):
        if key == "path" or is_user_function(section[key]):
            _move(section, key, config.folder, target)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    header = f"# Trial {finalized.result.winner.number}, the winner of study {config.name}.\n"
    path.write_text(header + text, encoding="utf-8")


def _move(section: dict[str, Any], key: str, start: Path, target: Path) -> None:
    """Write a path that is relative to `start` as one that is relative to `target`."""
    if key in section and not Path(section[key]).is_absolute():
        section[key] = Path(os.path.relpath((start / section[key]).resolve(), target)).as_posix()


def _write_model(path: Path, config: StudyConfig, prepared: PreparedData, finalized: Finalized) -> None:
    options = config.settings(finalized.result.winner.params).options
    metadata = {
        "format": FORMAT,
        "architecture": config.architecture,
        "options": json.dumps(options),
        "input_shape": json.dumps(prepared.input_shape),
        "outputs": str(prepared.outputs),
        "task": prepared.task,
        "classes": json.dumps(prepared.classes),
        "target_mean": repr(finalized.target_mean),
        "target_scale": repr(finalized.target_scale),
    }
    # Clones: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.clone().contiguous() for name, tensor in finalized.module.state_dict().items()}
    save_file(tensors, path, metadata)


def _write_predictions(path: Path, prepared: PreparedData, result: FinalResult) -> None:
    """From the recorded result, so that a folder that is written again has the tested model's own."""
    if result.predictions is None:
        return
    predicted, targets = (torch.from_numpy(array.copy()) for array in result.predictions.arrays())
    metadata = {"test": result.predictions.test, "classes": json.dumps(prepared.classes)}
    save_file({"predicted": predicted, "targets": targets}, path, metadata)
