"""Where and from what a model was made: versions, hardware, data, seeds."""

import os
import platform
from typing import Any

import torch

from hpo.config import StudyConfig, UserData
from hpo.data.prepared import PreparedData
from hpo.results.bundle_folder import sha256
from hpo.results.finalize import Finalized
from hpo.results.latency import Hardware
from hpo.results.machine import versions
from hpo.results.reevaluate import fresh_seeds
from hpo.results.weights import digest
from hpo.usercode import file_of, is_user_function


def environment(config: StudyConfig, prepared: PreparedData, finalized: Finalized) -> dict[str, Any]:
    """What environment.json says, of the machine that trained these very weights: the one at hand."""
    hardware = Hardware.of(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        "versions": versions(),
        "hardware": {
            "system": f"{platform.system()} {platform.machine()}",
            "device": hardware.device,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "data": {"fingerprint": prepared.fingerprint, "sizes": prepared.sizes},
        "seeds": {
            "study": config.training.seed,
            "exported": finalized.result.seed,
            "fresh": fresh_seeds(config),
        },
        "configuration": config.digest(),
        "weights": {"tested": finalized.result.weights, "here": digest(finalized.module)},
        "user_files": user_files(config),
    }


def user_files(config: StudyConfig) -> dict[str, str]:
    """SHA-256 of the user's own files, by their `path/to/file.py:function`."""
    source = config.data.source if isinstance(config.data, UserData) else ""
    names = [name for name in (config.architecture, source) if is_user_function(name)]
    return {name: sha256(file_of(name, config.folder)) for name in names}
