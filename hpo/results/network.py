"""The network of a bundle: a safetensors file whose metadata say how to build the module."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import models
from hpo.config import Task
from hpo.data.prepared import Normalization
from hpo.errors import BundleError, UsageError
from hpo.results.bundle_folder import sha256
from hpo.results.metrics import Record
from hpo.usercode import file_of, is_user_function, load_function

Builder = Callable[..., nn.Module]

USER_FILE = "architecture.py"
"""The bundle's copy of the user's architecture."""


METADATA = "network"
"""The entry of the file's metadata that holds a `Network` as JSON."""


class Network(Record):
    """All that a network is beside its weights."""

    architecture: str
    """Registered, or the user's `path/to/file.py:build`."""
    architecture_sha256: str | None
    """Of the user's file."""
    options: dict[str, Any]
    input_shape: tuple[int, ...]
    """Of one example."""
    outputs: int
    task: Task
    target_mean: float
    target_scale: float
    """A regressor's outputs are standardized targets; 0 and 1 for a classifier."""
    normalization: Normalization | None
    """Of images alone."""

    def save(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Write weights and metadata: one entry, since safetensors keeps several in no order."""
        save_file(tensors, path, {METADATA: self.model_dump_json()})

    @property
    def is_users(self) -> bool:
        """Whether its architecture is the user's own."""
        return is_user_function(self.architecture)


def load_network(path: Path) -> tuple[Network, dict[str, Tensor]]:
    """A network's description and weights.

    Raises:
        BundleError: the file is no safetensors file, or not one of a bundle.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path}: is no safetensors file: {error}") from error
    try:
        return Network.model_validate_json(metadata.get(METADATA, "")), tensors
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or METADATA
        raise BundleError(f"{path}: its metadata do not describe a network: {place}") from error


def build(
    path: Path, network: Network, tensors: dict[str, Tensor], architecture: Builder | str | None
) -> nn.Module:
    """The module, in evaluation mode on the CPU, with the weights of the file at `path`.

    architecture: the user's `path/to/file.py:build`, or the function itself, for a network of the user's.

    Raises:
        UsageError: the architecture is needed and not given, is another file than the network was built
            by, or is not needed.
        BundleError: the weights do not fit.
    """
    builder = _builder(path.parent, network, architecture)
    state = torch.random.get_rng_state()
    try:
        module = builder(network.input_shape, network.outputs, **network.options)
        module.load_state_dict(tensors)
    except Exception as error:  # (the user's function may raise anything)
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{path}: its weights do not fit {network.architecture!r} with the options {network.options}: "
            f"{reason}"
        ) from error
    finally:
        torch.random.set_rng_state(state)
    return module.eval()


def _builder(folder: Path, network: Network, architecture: Builder | str | None) -> Builder:
    if not network.is_users:
        if architecture is not None:
            raise UsageError(
                f"{folder}: its network is hpo's own {network.architecture!r}; leave architecture out"
            )
        if network.architecture not in models.ARCHITECTURES:
            raise BundleError(
                f"{folder}: its network is {network.architecture!r}, which this version of hpo does not "
                f"have; it has {', '.join(models.ARCHITECTURES)}"
            )
        return models.builder(network.architecture)
    function = network.architecture.rpartition(":")[2]
    own = f"{folder / USER_FILE}:{function}"
    if architecture is None:
        raise UsageError(
            f"{folder}: its network is built by the user's own {network.architecture!r}, and loading a "
            f"bundle runs no code from it; read {folder / USER_FILE}, and if you trust it say "
            f"--architecture {own} (in Python: load_bundle(…, architecture={own!r}))"
        )
    if callable(architecture):
        return architecture
    found = sha256(file_of(architecture, Path()))
    if found != network.architecture_sha256:
        raise UsageError(
            f"architecture {architecture!r}: is not the file that the network of {folder} was built by "
            f"(SHA-256 {found[:12]}…, not {str(network.architecture_sha256)[:12]}…); {own} is"
        )
    return load_function(architecture, Path())
