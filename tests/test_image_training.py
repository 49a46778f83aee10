"""Images on the device, and from a study file to a tested, exported model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
import torch
import yaml
from image_files import SHAPE, drawn, pixels, study, write_idx
from safetensors import safe_open
from safetensors.torch import load_file

import models
from hpo.config import Hyperparameters, TrialSettings
from hpo.data.normalization import Moments
from hpo.data.prepare import fingerprint, prepare
from hpo.data.prepared import Fold, Part
from hpo.data.preprocessing import TRUSTED, image_scaler, normalized
from hpo.results.metrics import evaluate
from hpo.studyfile import load_study
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey

IDX: dict[str, Any] = {"source": "idx", "path": "."}


# --- the device


def reference(fold: Fold, part: Part) -> np.ndarray:
    assert fold.normalization is not None
    return (pixels(part) - fold.normalization.means[0]) / fold.normalization.deviations[0]


def test_images_stay_in_uint8_on_the_device_and_are_normalized_by_their_fold(tmp_path: Path) -> None:
    write_idx(tmp_path)
    folds = prepare(study(tmp_path, IDX, validation={"folds": 3}), tmp_path / "cache").folds
    data = DeviceData(folds, "classification", 3, device="cpu")
    assert data.features.dtype == data.validation[0].features.dtype == torch.uint8
    assert len(data.features) == 30  # not once for each fold
    picked = torch.tensor([4, 0, 19])
    features, targets = data.batch(torch.stack([picked + start for start in data.starts]))
    assert (features.shape, features.dtype) == ((3, 3, 1, *SHAPE), torch.float32)
    for index, fold in enumerate(folds):
        np.testing.assert_allclose(features[index], reference(fold, fold.train)[picked], atol=1e-5)
        assert torch.equal(targets[index], fold.train.targets[picked])
        inputs = data.inputs(data.validation[index].features, index)
        np.testing.assert_allclose(inputs, reference(fold, fold.validation), atol=1e-5)


def test_training_on_images_equals_training_on_the_same_numbers_in_float32(tmp_path: Path) -> None:
    write_idx(tmp_path, each=20)
    config = study(tmp_path, IDX, validation={"folds": 2}, options={"width": 8, "depth": 1})
    prepared = prepare(config, tmp_path / "cache")
    floats = [
        Fold(
            *(
                Part(torch.from_numpy(reference(fold, part)).float(), part.targets)
                for part in (fold.train, fold.validation)
            )
        )
        for fold in prepared.folds
    ]
    settings = TrialSettings(Hyperparameters(batch_size=8, learning_rate=1e-2), {"width": 8, "depth": 1})
    results = []
    for folds in (prepared.folds, floats):
        data = DeviceData(folds, "classification", 3, device="cpu")
        architecture = Architecture(config, prepared.input_shape, prepared.outputs)
        cohort = Cohort(architecture, data, "loss", settings, 2)
        cohort.add([Lane(LaneKey(0, fold, 0), settings) for fold in range(2)])
        results.append([(r.train_loss, r.value) for _ in range(2) for r in cohort.train_epoch().values()])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)


def test_each_lane_predicts_from_images_that_are_normalized_by_its_own_fold(tmp_path: Path) -> None:
    write_idx(tmp_path, each=20)
    config = study(tmp_path, IDX, validation={"folds": 3}, options={"width": 8, "depth": 1})
    prepared = prepare(config, tmp_path / "cache")
    data = DeviceData(prepared.folds, "classification", 3, device="cpu")
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    settings = TrialSettings(Hyperparameters(batch_size=8), {"width": 8, "depth": 1})
    cohort = Cohort(architecture, data, "loss", settings, 1)
    cohort.add([Lane(LaneKey(trial, fold), settings) for trial in range(2) for fold in (2, 0, 1)])
    images = prepared.folds[0].train.features
    for key, outputs in zip(cohort.keys, cohort.predict(images), strict=True):
        fold = prepared.folds[key.fold]
        every = Part(images, fold.train.targets[:0], torch.arange(len(images)))
        with torch.no_grad():
            expected = cohort.module(key)(torch.from_numpy(reference(fold, every)).float())
        np.testing.assert_allclose(outputs, expected, atol=1e-5)


# --- from the study file to the bundle

STUDY = """
name: letters
data: {source: idx, path: images}
architecture: mlp
options: {depth: 1}
search: {width: {choices: [8, 16]}, learning_rate: {low: 3e-3, high: 3e-2, log: true}}
training: {epochs: 2, batch_size: 16}
trials: 2
sampler: random
final: {top: 1, seeds: 2}
"""


@pytest.mark.slow
def test_a_study_on_images_runs_to_a_bundle_that_tests_as_reported(tmp_path: Path) -> None:
    write_idx(tmp_path / "images", "emnist36-", each=30)
    (tmp_path / "letters.yaml").write_text(STUDY)
    command = [sys.executable, "-m", "hpo.cli", "run", "letters.yaml", "--workers", "1", "--lanes", "2"]
    environment = os.environ | {"HPO_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    out = tmp_path / "results" / "letters"
    assert (out / "report.html").stat().st_size > 10_000
    best = load_study(out / "best.yaml")
    assert fingerprint(best) == fingerprint(load_study(tmp_path / "letters.yaml"))
    metrics = json.loads((out / "metrics.json").read_text())["test"]
    images, labels = drawn(10, seed=1)
    targets = torch.from_numpy(labels.astype(np.int64))
    found = evaluate("classification", predicted(out, images[:, None]), targets, ("0", "1", "2")).scalars()
    assert found["accuracy"] == metrics["accuracy"]
    assert found["loss"] == pytest.approx(metrics["loss"], abs=1e-5)
    assert metrics["n"] == 30


def predicted(out: Path, images: np.ndarray) -> torch.Tensor:
    """Logits of a results folder, used as its reader would: without the study, without hpo's data room."""
    best = yaml.safe_load((out / "best.yaml").read_text())
    with safe_open(out / "model.safetensors", framework="pt") as opened:
        network = json.loads(opened.metadata()["network"])
    shape = tuple(network["input_shape"])
    module = models.builder(best["architecture"])(shape, network["outputs"], **best["options"])
    module.load_state_dict(load_file(out / "model.safetensors"))
    scaler = skops.io.load(out / "preprocessing.skops", trusted=TRUSTED)
    features = scaler.transform(images.reshape(len(images), -1)).reshape(images.shape)
    with torch.no_grad():
        logits: torch.Tensor = module.eval()(torch.from_numpy(features).float())
    return logits


def test_the_exported_preprocessing_is_what_training_does() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), np.uint8)
    images[:, 1] = 7
    normalization = Moments(images[:5]).of()
    dumped = skops.io.dumps(image_scaler(normalization, images.shape[1:]))
    assert set(skops.io.get_untrusted_types(data=dumped)) <= set(TRUSTED)
    loaded = skops.io.loads(dumped, trusted=TRUSTED)
    flat = loaded.transform(images.reshape(9, -1)).reshape(images.shape)
    np.testing.assert_allclose(normalized(images, normalization), flat, atol=1e-6)
    expected = (images[:, 0] - images[:5, 0].mean()) / images[:5, 0].std()
    np.testing.assert_allclose(flat[:, 0], expected, atol=1e-12)
    assert (flat[:, 1] == 0).all()


# --- EMNIST-36


def peak(code: str, *arguments: object) -> dict[str, Any]:
    """What a fresh process of this code prints, as JSON."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


PREPARE = """
import json, resource, sys, time
from pathlib import Path
import hpo.data.parts, torch
from hpo.data.prepare import prepare
from image_files import study
folder, cache = map(Path, sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.process_time()
prepared = prepare(study(folder, {"source": "idx", "path": "emnist36"}), cache)
print(json.dumps({
    "seconds": time.process_time() - began,
    "MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    "classes": "".join(prepared.classes),
    "sizes": prepared.sizes,
    "mean": prepared.folds[0].normalization.means[0],
}))
"""


@pytest.mark.slow
def test_emnist36_is_prepared_in_bounded_memory_and_loaded_in_two_seconds(
    tmp_path: Path, shared_data: Path
) -> None:
    first, second = (peak(PREPARE, shared_data, tmp_path) for _ in range(2))
    assert first["classes"] == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert first["sizes"] == {"raw": 100800, "train": 73440, "validation": 12960, "test": 14400}
    assert first["mean"] == pytest.approx(44.8, abs=0.2)
    assert {key: first[key] for key in ("classes", "sizes", "mean")} == {
        key: second[key] for key in ("classes", "sizes", "mean")
    }
    raw = 100_800 * 28 * 28 / 2**20
    assert first["MiB"] < 4 * raw
    assert second["MiB"] < 1.5 * raw
    assert second["seconds"] < 2
