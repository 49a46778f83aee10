"""Bundles: loaded by themselves, refused by name where they are not what they say."""

import hashlib
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from sklearn.preprocessing import MinMaxScaler
from test_export import Made, study, winner

import hpo
import models
from hpo.data.cache import load_rows
from hpo.errors import BundleError, HpoError, UsageError
from hpo.results import bundle_folder
from hpo.results.metrics import evaluate
from hpo.results.onnx_model import write_onnx

NET = (
    "import models\n\ndef build(input_shape, classes, dropout=0.0, width=4, depth=1):\n"
    "    return models.builder('mlp')(input_shape, classes, width=width, depth=depth)\n"
)


def made_in(folder: Path, **changes: Any) -> Made:
    return Made(folder, study(folder / "study", **changes), winner())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_in(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Made:
    data = {"source": "sklearn", "name": "digits", "images": True}
    options = {"depth": 1, "dropout": 0.25}
    return made_in(tmp_path_factory.mktemp("images"), data=data, options=options)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made_in(
        tmp_path_factory.mktemp("numbers"), data={"source": "sklearn", "name": "diabetes"}, metric="rmse"
    )


@pytest.mark.parametrize("kind", ["made", "images", "numbers"])
def test_test_metrics_are_reproduced_from_bundle_and_test_data(
    kind: str, request: pytest.FixtureRequest
) -> None:
    known: Made = request.getfixturevalue(kind)
    bundle = hpo.load_bundle(known.out)
    rows = load_rows(known.prepared, "test.safetensors")
    outputs = bundle.outputs(bundle.features(rows.features))
    metrics = json.loads((known.out / "metrics.json").read_text())["test"]
    for name, value in evaluate(bundle.task, outputs, rows.targets, bundle.classes).scalars().items():
        assert value == pytest.approx(metrics[name], rel=1e-6, abs=1e-6), name
    said = bundle.predict(rows.features)
    assert len(said) == len(rows.targets) and said["predicted"].notna().all()
    if bundle.task == "regression":
        errors = said["predicted"].astype(float).to_numpy() - rows.targets
        assert np.sqrt((errors**2).mean()) == pytest.approx(metrics["rmse"], rel=1e-6)
    else:
        truth = np.asarray(bundle.classes)[rows.targets.astype(int)]
        assert (said["predicted"] == truth).mean() == pytest.approx(metrics["accuracy"])


FRESH = """
import json, sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, found: opened.append(str(found[0])) if event == "open" else None)
import hpo
import models
assert "torch" not in sys.modules, "import hpo is light"
said = hpo.load_bundle("bundle").predict("table.csv")
print(json.dumps([said["predicted"].tolist(), [name for name in opened if sys.argv[1] in name]]))
"""


@pytest.mark.slow
def test_a_fresh_process_with_nothing_else_at_hand_predicts_the_same(made: Made, tmp_path: Path) -> None:
    table = made.config.folder / "table.csv"
    expected = hpo.load_bundle(made.out).predict(table)["predicted"].tolist()
    shutil.copytree(made.out, tmp_path / "bundle")
    shutil.copy(table, tmp_path)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HPO_")}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(made.out.parent.parent)],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    predicted, elsewhere = json.loads(done.stdout)
    assert predicted == expected and elsewhere == []
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "table.csv"}, "no database, no cache"


# --- bundles that are none


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def vouched(name: str, content: bytes) -> Callable[[Path], None]:
    """A file of other content, for which the manifest vouches: whoever writes one can write the other."""

    def put(folder: Path) -> None:
        (folder / name).write_bytes(content)
        stored = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rewrite_manifest(folder, lambda manifest: manifest["files"].update({name: stored}))

    return put


class Payload:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def torch_archive() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def skops_calling_a_function() -> bytes:
    node = {
        "__class__": "mkdir",
        "__module__": "os",
        "__loader__": "FunctionNode",
        "content": {"module_path": "os", "function": "mkdir"},
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", json.dumps(node | {"protocol": 2, "_skops_version": "0.16"}))
    return buffer.getvalue()


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: rewrite_manifest(folder, change)


PICKLE = pickle.dumps(Payload())
MALFORMED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "truncated": (truncate("model.safetensors"), r"model.safetensors: is truncated or changed: it has \d+"),
    "truncated skops": (truncate("preprocessing.skops"), "preprocessing.skops: is truncated or changed"),
    "wrong hash": (flip, "model.safetensors: is damaged or changed: its SHA-256 is"),
    "missing file": (without("labels.json"), "labels.json: is missing; manifest.json names it"),
    "no manifest": (without("manifest.json"), "is no bundle: it has no manifest.json"),
    "broken manifest": (truncate("manifest.json"), "manifest.json: cannot be read"),
    "another kind": (manifest(lambda found: found.update(kind="x")), "manifest.json: is not the manifest"),
    "another format": (manifest(lambda found: found.update(format=99)), "has format 99; .* reads 2"),
    "outside": (manifest(lambda found: found["files"].update({"../x": {}})), r"names '\.\./x'"),
    "not vouched for": (manifest(lambda found: found["files"].pop("labels.json")), "not vouch for labels"),
    "pickle as weights": (vouched("model.safetensors", PICKLE), "model.safetensors: is no safetensors file"),
    "torch as weights": (vouched("model.safetensors", torch_archive()), "is no safetensors file"),
    "pickle as skops": (vouched("preprocessing.skops", PICKLE), "preprocessing.skops: is no skops file"),
    "torch as skops": (vouched("preprocessing.skops", torch_archive()), "preprocessing.skops: is no skops"),
    "skops with a call": (
        vouched("preprocessing.skops", skops_calling_a_function()),
        "preprocessing.skops: holds FunctionNode",
    ),
    "skops of others": (
        vouched("preprocessing.skops", skops.io.dumps(MinMaxScaler())),
        "holds sklearn.preprocessing._data.MinMaxScaler",
    ),
    "no classes": (vouched("labels.json", b'{"classes": [], "features": []}'), "has 0 classes, but .* has 2"),
    "labels of no kind": (vouched("labels.json", b"[1]"), "labels.json: holds no mapping"),
    "no study": (vouched("config.yaml", b"name: x\n"), "config.yaml: is no study file"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_bundle_is_refused_by_name(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    spoil, message = MALFORMED[kind]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made.out, tmp_path / "bundle")
    spoil(tmp_path / "bundle")
    with pytest.raises(BundleError, match=message) as refused:
        hpo.load_bundle("bundle")
    assert refused.value.exit_code == 2
    assert not (tmp_path / "ran").exists()


def test_what_is_no_folder_is_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such folder"):
        hpo.load_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match="is a file; a bundle is a folder"):
        hpo.load_bundle(made.out / "best.json")


# --- the user's own architecture


@pytest.mark.slow
def test_users_own_architecture_runs_only_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "net.py").write_text(NET)
    made = made_in(tmp_path, architecture="net.py:build")
    with pytest.raises(UsageError, match=r"runs no code from it; read .*architecture\.py"):
        hpo.load_bundle(made.out)
    (tmp_path / "study" / "net.py").write_text(NET + "\nraise SystemExit('run')\n")
    with pytest.raises(UsageError, match=r"net\.py:build': is not the file"):
        hpo.load_bundle(made.out, f"{tmp_path}/study/net.py:build")
    shutil.rmtree(tmp_path / "study")
    bundle = hpo.load_bundle(made.out, f"{made.out}/architecture.py:build")
    frame = pd.DataFrame({"age": [30.0], "colour": ["red"]})
    expected = hpo.load_bundle(made.out, build_mlp).predict(frame)
    pd.testing.assert_frame_equal(bundle.predict(frame), expected)
    with pytest.raises(BundleError, match=r"weights do not fit 'net\.py:build'"):
        hpo.load_bundle(made.out, lambda shape, classes, **options: torch.nn.Linear(2, 3))


def build_mlp(shape: tuple[int, ...], classes: int, **options: Any) -> torch.nn.Module:
    return models.builder("mlp")(shape, classes, **options)


def test_own_network_takes_no_architecture(made: Made) -> None:
    with pytest.raises(UsageError, match="its network is hpo's own 'mlp'; leave architecture out"):
        hpo.load_bundle(made.out, build_mlp)


# --- ONNX


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["made", "images", "numbers"])
def test_onnx_agrees_with_the_bundle(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    import onnxruntime

    known: Made = request.getfixturevalue(kind)
    bundle = hpo.load_bundle(known.out)
    write_onnx(bundle, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    rows = load_rows(known.prepared, "test.safetensors").features
    taken = np.asarray(rows, np.float32) if kind == "images" else bundle.features(rows).numpy()
    for count in (1, 18):
        found = session.run(None, {session.get_inputs()[0].name: taken[:count]})[-1]
        said = bundle.predict(rows[:count])
        wanted = ["predicted"] if kind == "numbers" else [f"p({name})" for name in bundle.classes]
        np.testing.assert_allclose(found, said[wanted].to_numpy(float), atol=1e-4, rtol=1e-4)
    assert "takes" in session.get_modelmeta().custom_metadata_map


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["cnn", "vgg13", "resnet"])
def test_networks_for_images_become_onnx(architecture: str, images: Made, tmp_path: Path) -> None:
    """`write_onnx` itself refuses a model that does not come to the network's outputs."""
    bundle = hpo.load_bundle(images.out)
    network = models.builder(architecture)(bundle.input_shape, len(bundle.classes), width=4)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(layer.running_mean)
            torch.nn.init.uniform_(layer.weight)
    write_onnx(replace(bundle, module=network.eval()), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 0


class Fickle(torch.nn.Linear):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) if inputs.sum() > 0 else -super().forward(inputs)


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_says_so_in_one_line(made: Made, tmp_path: Path) -> None:
    bundle = hpo.load_bundle(made.out)
    fickle = replace(bundle, module=Fickle(bundle.input_shape[0], 2))
    with pytest.raises(
        HpoError, match="'mlp' cannot be exported to ONNX, and nothing was written"
    ) as refused:
        write_onnx(fickle, tmp_path / "model.onnx")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    assert not list(tmp_path.iterdir())


def test_every_file_of_a_bundle_is_described() -> None:
    described = bundle_folder.__doc__ or ""
    assert all(f"\n    {name} " in described for name in bundle_folder.FILES)
