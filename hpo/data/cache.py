"""The prepared parts on disk: safetensors and JSON in one folder for each fingerprint.

folder/manifest.json         all that is small, and size and SHA-256 of each file beside it
       parts.safetensors     features and targets of each fold, ready to train on; for images, which rows
       rows.safetensors      train + validation rows, cleaned but not transformed, for refitting
       test.safetensors      the sealed test rows, likewise
       digests.safetensors   a digest of each row, also of the sealed ones: which are equal to others?

A folder appears whole or not at all: it is written under another name, fsynced and renamed. Of processes
that race, one wins and the others' copies, which are equal, are discarded.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from hpo.data.digests import Digests
from hpo.data.encoding import decode, encode
from hpo.data.prepared import Finding, Fold, Normalization, Part, PreparedData
from hpo.data.table import Rows
from hpo.errors import DataError

VERSION = 2
"""Part of the fingerprint: caches of another format are other folders."""
MANIFEST = "manifest.json"
PARTS = "parts.safetensors"
ROWS = "rows.safetensors"
DIGESTS = "digests.safetensors"
RowsFile = Literal["rows.safetensors", "test.safetensors"]


def default_folder() -> Path:
    """$HPO_CACHE, else $XDG_CACHE_HOME/hpo, else ~/.cache/hpo."""
    if own := os.environ.get("HPO_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hpo"


def load(folder: Path) -> PreparedData | None:
    """The prepared data in `folder`; None if they are not there, or damaged, and must be prepared again.

    The test rows are not opened: of their file, only the size is looked at.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if DIGESTS not in manifest["files"]:  # of before there were any
            return None
        for name, stored in manifest["files"].items():
            if (folder / name).stat().st_size != stored["bytes"]:
                return None
        if not _sound(folder, manifest, PARTS):
            return None
        images = None
        if manifest["normalizations"]:
            if not _sound(folder, manifest, ROWS):
                return None
            images = load_file(folder / ROWS)
        return _prepared(folder, manifest, _folds(manifest, load_file(folder / PARTS), images))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def store(prepared: PreparedData, rows: Rows, test: Rows, digests: Digests) -> None:
    """Write all of a data set to `prepared.cache`, unless another process did so meanwhile.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        prepared.cache.parent.mkdir(parents=True, exist_ok=True)
        with _beside(prepared.cache) as staging:
            _write(staging, prepared, rows, test, digests)
            _publish(staging, prepared.cache)
    except OSError as error:
        raise DataError(
            f"{error.filename or prepared.cache}: the prepared data cannot be cached: "
            f"{error.strerror or error}; HPO_CACHE names another folder"
        ) from error


def load_rows(prepared: PreparedData, name: RowsFile) -> Rows:
    """The cleaned rows of the file `name`.

    Raises:
        DataError: it is missing or damaged.
    """
    path = _checked(prepared, name)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        return decode(tensors, json.loads(file.metadata()["columns"]))


def load_digests(prepared: PreparedData) -> Digests:
    """The digests of all rows; the test rows themselves stay sealed.

    Raises:
        DataError: the file is missing or damaged.
    """
    return Digests.from_tensors(load_file(_checked(prepared, DIGESTS)))


def _checked(prepared: PreparedData, name: str) -> Path:
    """The file `name`, which is as it was written.

    Raises:
        DataError: it is missing or damaged.
    """
    path = prepared.cache / name
    try:
        manifest = json.loads((prepared.cache / MANIFEST).read_text(encoding="utf-8"))
        sound = _sound(prepared.cache, manifest, name)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {error}; {_remedy(prepared)}") from error
    if not sound:
        raise DataError(f"{path}: is damaged (its SHA-256 is not the recorded one); {_remedy(prepared)}")
    return path


def sealed_digest(prepared: PreparedData) -> str:
    """SHA-256 of the sealed test part, as recorded when it was sealed: its file is not opened.

    Studies with the same digest have the same test rows, in the same order. The file is the same wherever it
    is written: safetensors orders tensors by type and name, and there is one entry of metadata.

    Raises:
        DataError: the cache is damaged.
    """
    path = prepared.cache / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return str(manifest["files"]["test.safetensors"]["sha256"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {error}; {_remedy(prepared)}") from error


def _remedy(prepared: PreparedData) -> str:
    return f"delete {prepared.cache} and prepare the data again"


# --- the folder


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder next to `folder`, gone afterwards unless it was renamed."""
    staging = folder.parent / f".{folder.name[:16]}-{uuid.uuid4().hex}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, folder: Path) -> None:
    if load(folder) is None:  # not there, or damaged
        damaged = staging.with_name(f"{staging.name}-damaged")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        staging.rename(folder)
    except OSError:  # a folder that is not empty is not replaced
        if load(folder) is None:
            raise
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sound(folder: Path, manifest: dict[str, Any], name: str) -> bool:
    return bool(_sha256(folder / name) == manifest["files"][name]["sha256"])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- its files


def _write(staging: Path, prepared: PreparedData, rows: Rows, test: Rows, digests: Digests) -> None:
    parts: dict[str, Tensor] = {}
    for index, fold in enumerate(prepared.folds):
        for name, part in (("train", fold.train), ("validation", fold.validation)):
            if part.rows is not None:
                parts[f"{index}.{name}.rows"] = part.rows
                continue
            parts[f"{index}.{name}.features"] = part.features.contiguous()
            parts[f"{index}.{name}.targets"] = part.targets.contiguous()
    save_file(parts, staging / PARTS)
    save_file(digests.tensors(), staging / DIGESTS)
    for name, content in ((ROWS, rows), ("test.safetensors", test)):
        tensors, columns = encode(content)
        save_file(tensors, staging / name, metadata={"columns": json.dumps(columns)})
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(staging.iterdir())
    }
    manifest = {
        "fingerprint": prepared.fingerprint,
        "task": prepared.task,
        "classes": prepared.classes,
        "input_shape": prepared.input_shape,
        "feature_names": prepared.feature_names,
        "sizes": prepared.sizes,
        "test_counts": prepared.test_counts,
        "findings": [asdict(finding) for finding in prepared.findings],
        "targets": [[fold.target_mean, fold.target_scale] for fold in prepared.folds],
        "normalizations": [asdict(fold.normalization) for fold in prepared.folds if fold.normalization],
        "files": files,
    }
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in staging.iterdir():
        _fsync(path)
    _fsync(staging)


def _folds(
    manifest: dict[str, Any], parts: dict[str, Tensor], images: dict[str, Tensor] | None
) -> tuple[Fold, ...]:
    """images: the content of `ROWS`, where the folds' parts are rows of it."""

    def part(index: int, name: str) -> Part:
        if images is None:
            return Part(parts[f"{index}.{name}.features"], parts[f"{index}.{name}.targets"])
        rows = parts[f"{index}.{name}.rows"]
        return Part(images["array"], images["targets"].index_select(0, rows), rows)

    normalizations = [
        Normalization(tuple(stored["means"]), tuple(stored["deviations"]))
        for stored in manifest["normalizations"]
    ]
    return tuple(
        Fold(
            part(index, "train"),
            part(index, "validation"),
            target_mean,
            target_scale,
            normalizations[index] if normalizations else None,
        )
        for index, (target_mean, target_scale) in enumerate(manifest["targets"])
    )


def _prepared(folder: Path, manifest: dict[str, Any], folds: tuple[Fold, ...]) -> PreparedData:
    return PreparedData(
        fingerprint=manifest["fingerprint"],
        task=manifest["task"],
        classes=tuple(manifest["classes"]),
        input_shape=tuple(manifest["input_shape"]),
        feature_names=tuple(manifest["feature_names"]),
        sizes=manifest["sizes"],
        folds=folds,
        findings=tuple(Finding(**finding) for finding in manifest["findings"]),
        cache=folder,
        test_counts=tuple(manifest.get("test_counts", ())),
    )
