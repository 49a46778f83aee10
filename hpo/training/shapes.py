"""Shapes: what must be equal for two trials of a study to train fused."""

import json
import math

from hpo.config import Hyperparameters, StudyConfig, TrialSettings

_FREE = set(Hyperparameters.model_fields) - {"batch_size"} | {"dropout"}
"""Parameters in which lanes of one shape may differ."""


def shape_key(settings: TrialSettings) -> str:
    """Batch size, and the architecture's options but dropout."""
    options = {name: value for name, value in settings.options.items() if name != "dropout"}
    return json.dumps({"batch_size": settings.hyperparameters.batch_size, **options}, sort_keys=True)


def number_of_shapes(config: StudyConfig) -> float:
    """How many shapes a study's trials may have: infinitely many where a range is continuous."""
    grids = [parameter.grid() for name, parameter in config.search.items() if name not in _FREE]
    return math.prod(math.inf if grid is None else len(grid) for grid in grids)
