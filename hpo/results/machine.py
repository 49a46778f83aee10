"""The machine and the versions that a result is of, by what they are."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from hpo.results.latency import Hardware
from hpo.training.device_data import best_device

PACKAGES = ("hpo", "torch", "numpy", "pandas", "scikit-learn", "skops", "safetensors", "optuna")


def versions() -> dict[str, str]:
    """Of Python, and of the packages that a result depends on."""
    return {"python": platform.python_version()} | {name: version_of(name) for name in PACKAGES}


def version_of(package: str) -> str:
    """The installed version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"


def here() -> dict[str, str]:
    """This machine and what runs on it, as words."""
    hardware = Hardware.of(torch.device(best_device()))
    return {
        "hardware": f"{hardware.device}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
    }
