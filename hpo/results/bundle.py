"""A finished model to use: loaded from its bundle alone, without running code that lies in it."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import structlog
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.compose import ColumnTransformer
from torch import Tensor, nn

from hpo.config import StudyConfig, Task
from hpo.data import preprocessing
from hpo.data.fitted import load_fitted
from hpo.data.prepared import Normalization
from hpo.data.table import Features
from hpo.data.unseen import Columns, Unseen, read_array
from hpo.data.unseen_images import read_pixels
from hpo.errors import BundleError, DataError
from hpo.results.bundle_folder import checked, read_json
from hpo.results.network import Builder, Network, build, load_network
from hpo.yamltext import YamlError, read_yaml

log = structlog.get_logger()

BATCH = 1024
"""Examples of one forward pass."""
Inputs = pd.DataFrame | NDArray[Any] | str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Bundle:
    """A model with all that it needs. Shapes: N examples; C classes, or 1 number."""

    folder: Path
    config: StudyConfig
    """The study that it comes from, resolved; its folder is the bundle's."""
    network: Network
    module: nn.Module
    """In evaluation mode, on the CPU. A regressor's outputs are standardized targets: see `outputs`."""
    preprocessing: Any
    """The fitted scikit-learn transformer; of images it takes them flattened."""
    classes: tuple[str, ...]
    """By index; empty for regression."""
    feature_names: tuple[str, ...]
    """Of the raw columns; empty for images and for arrays without names."""

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.network.task

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example, as the module takes it."""
        return self.network.input_shape

    @property
    def normalization(self) -> Normalization | None:
        """Of images alone: the statistics of their channels."""
        return self.network.normalization

    @property
    def columns(self) -> Columns | None:
        """What it takes of a table, where its columns have names."""
        if not isinstance(self.preprocessing, ColumnTransformer):
            return None
        return Columns.of(self.preprocessing, self.config)

    def features(self, raw: Features) -> Tensor:
        """What the module takes of clean raw rows: [N, *input_shape] float32."""
        if self.normalization is not None:
            return preprocessing.normalized(np.asarray(raw), self.normalization)
        return preprocessing.transform(self.preprocessing, raw)

    @torch.no_grad()
    def outputs(self, features: Tensor) -> Tensor:
        """Logits [N, C], or numbers in the target's own unit [N, 1], of features [N, *input_shape]."""
        if not len(features):
            return torch.empty(0, self.network.outputs)
        outputs = torch.cat([self.module(part) for part in torch.split(features, BATCH)])
        return outputs * self.network.target_scale + self.network.target_mean

    def predict(self, inputs: Inputs) -> pd.DataFrame:
        """What the model says of raw rows: a row for each, in their order.

        inputs: a DataFrame with the study's columns (in any order, others are ignored); an array of examples
        (images as uint8); or a path, or several: CSV files, .npy files, image files and folders of these.

        The columns: `file` and `line` for paths; `predicted`, a class or a number, None where a row cannot be
        predicted; `p(CLASS)` for each class; `note`, which says why not, and what is odd about a row.

        Raises:
            DataError: a file is missing or no table, a column is missing, or an array has another shape.
        """
        if isinstance(inputs, pd.DataFrame | np.ndarray):
            return self.predict_unseen(self._unseen(inputs)).set_axis(
                inputs.index if isinstance(inputs, pd.DataFrame) else pd.RangeIndex(len(inputs))
            )
        from hpo.results.bundle_input import predict_files

        paths = [inputs] if isinstance(inputs, str | Path) else inputs
        return predict_files(self, [Path(path) for path in paths])

    def _unseen(self, inputs: pd.DataFrame | NDArray[Any]) -> Unseen:
        columns = self.columns
        if isinstance(inputs, pd.DataFrame) and columns is not None:
            return columns.read("the table", inputs)
        array = inputs.to_numpy() if isinstance(inputs, pd.DataFrame) else inputs
        if columns is not None:
            raise DataError(f"an array has no column names; the model takes {', '.join(self.feature_names)}")
        if self.normalization is not None:
            return read_pixels("the array", array, self.config, self.input_shape)
        return read_array("the array", array, self.input_shape)

    def predict_unseen(self, unseen: Unseen) -> pd.DataFrame:
        """`predict` for rows that have been read."""
        some = unseen.usable.any()  # scikit-learn transforms no table without rows
        outputs = self.outputs(self.features(unseen.features) if some else torch.empty(0))
        finite = outputs.isfinite().all(dim=1).numpy()
        usable, notes = unseen.usable.copy(), list(unseen.notes)
        for row in np.flatnonzero(usable)[~finite]:
            usable[row] = False
            notes[row] = "; ".join([*filter(None, [notes[row]]), "the network's output is not finite"])
        return self._said(outputs[torch.from_numpy(finite)], usable, notes)

    def _said(self, outputs: Tensor, usable: NDArray[np.bool_], notes: list[str]) -> pd.DataFrame:
        predicted = np.full(len(usable), None, dtype=object)
        columns: dict[str, Any] = {}
        if self.task == "regression":
            predicted[usable] = outputs.reshape(-1).double().tolist()
        else:
            probabilities = np.full((len(usable), len(self.classes)), np.nan)
            if usable.any():
                probabilities[usable] = torch.softmax(outputs.double(), dim=1).numpy()
                predicted[usable] = np.asarray(self.classes, dtype=object)[outputs.argmax(dim=1).numpy()]
            columns |= {f"p({name})": probabilities[:, index] for index, name in enumerate(self.classes)}
        said = pd.Series(predicted, dtype=object)  # or pandas makes nan of None
        return pd.DataFrame({"predicted": said} | columns | {"note": np.asarray(notes, dtype=object)})


def load_bundle(folder: str | Path, architecture: Builder | str | None = None) -> Bundle:
    """The model in `folder`, which `hpo run` or `hpo export` wrote. No code that lies in it is run.

    architecture: for a network of the user's own, `path/to/file.py:build` with the very file that it was
    built by, or the function itself; the bundle has a copy of the file, to be read first.

    Raises:
        BundleError: the folder is no bundle, or a file is missing, damaged, or not what it should be.
        UsageError: `architecture` is needed and not given, or not needed, or another file.
    """
    place = Path(folder)
    checked(place)
    network, tensors = load_network(place / "model.safetensors")
    config = _config(place)
    classes, feature_names = _labels(place / "labels.json", network)
    fitted = _fitted(place / "preprocessing.skops")
    _compare_versions(place / "environment.json")
    module = build(place / "model.safetensors", network, tensors, architecture)
    return Bundle(place, config, network, module, fitted, classes, feature_names)


def _config(folder: Path) -> StudyConfig:
    """Without `load_study`, which would import an architecture of the user's."""
    path = folder / "config.yaml"
    try:
        return StudyConfig.model_validate(read_yaml(path.read_text(encoding="utf-8"))).at(folder)
    except (YamlError, ValidationError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        raise BundleError(f"{path}: is no study file that this version of hpo reads: {text}") from error


def _labels(path: Path, network: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    content = read_json(path)
    found = []
    for key in ("classes", "features"):
        names = content.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BundleError(f"{path}: {key}: must be a list of names")
        found.append(tuple(names))
    wanted = network.outputs if network.task == "classification" else 0
    if len(found[0]) != wanted:
        raise BundleError(f"{path}: has {len(found[0])} classes, but the network has {wanted}")
    return found[0], found[1]


def _fitted(path: Path) -> Any:
    try:
        return load_fitted(path.read_bytes())
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error


def _compare_versions(path: Path) -> None:
    """scikit-learn promises nothing of what another version has fitted."""
    versions = read_json(path).get("versions")
    made = versions.get("scikit-learn") if isinstance(versions, dict) else None
    here = importlib.metadata.version("scikit-learn")
    if made != here:
        log.warning(
            "the bundle's preprocessing was fitted by another version of scikit-learn", its=made, here=here
        )
