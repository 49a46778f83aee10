"""From a study's configuration to its prepared data, by way of the cache."""

import hashlib
import json
from pathlib import Path
from typing import Any

from hpo.config import AUGMENTATION, StudyConfig
from hpo.data.cache import VERSION, default_folder, load
from hpo.data.prepared import PreparedData
from hpo.data.source import Source, open_source
from hpo.errors import DataError


def prepare(config: StudyConfig, cache: Path | None = None) -> PreparedData:
    """The study's data, ready to train on: from the cache, or else read, cleaned, split and cached.

    On a hit the raw data are read for their fingerprint only, and the sealed test file is not opened.
    Processes may race; a damaged cache is prepared again.

    Args:
        config: the study.
        cache: the folder of all prepared data; by default `hpo.data.cache.default_folder()`.

    Raises:
        DataError: the data are missing or unusable, or the cache cannot be written; they are no images, which
            the study would distort.
        UserCodeError: the function named as `data.source` cannot be loaded.
    """
    source = open_source(config)
    key = _fingerprint(config, source)
    folder = (cache or default_folder()) / key
    found = load(folder)
    if found is None:
        from hpo.data.parts import build  # here, as scikit-learn takes a second of every worker's start

        found = build(config, source, key, folder)
    _check_augmentation(config, found)
    return found


def _check_augmentation(config: StudyConfig, prepared: PreparedData) -> None:
    """Of the user's own arrays the study file does not tell whether they are images."""
    wanted = [f"search.{name}" for name in AUGMENTATION if name in config.search]
    wanted += [f"training.{name}" for name in AUGMENTATION if getattr(config.training, name)]
    if wanted and len(prepared.input_shape) not in {2, 3}:
        raise DataError(
            f"{config.data.source}: its examples have the shape {list(prepared.input_shape)}, but "
            f"{', '.join(wanted)} need images, [channels, height, width] or [height, width]"
        )


def fingerprint(config: StudyConfig) -> str:
    """SHA-256 of the raw content and of all configuration that shapes the parts.

    Paths and names of functions are not in it: equal content elsewhere is the same data.

    Raises:
        DataError: the raw data cannot be read.
        UserCodeError: the function named as `data.source` cannot be loaded.
    """
    return _fingerprint(config, open_source(config))


def _fingerprint(config: StudyConfig, source: Source) -> str:
    data = config.data.model_dump(mode="json", exclude={"path", "options", "task", "download"})
    if data.get("examples") is None:  # all of them, as before there was this key
        data.pop("examples", None)
    shaping: dict[str, Any] = {
        "version": VERSION,
        "content": source.content,
        "data": data | {"source": type(config.data).__name__},
        "validation": config.validation.model_dump(mode="json"),
        "task": config.task,
        "seed": config.training.seed,
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
