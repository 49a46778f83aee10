"""The folder that a bundle is: its files, what vouches for them, and how it takes its place.

    config.yaml           the study, resolved: `hpo run` repeats it
    best.yaml             a study file whose search space is the winner alone
    best.json             trial number, parameters, the search's value and the re-evaluated mean
    metrics.json          test metrics, their spread over seeds, all candidates, openings of the test part
    labels.json           class names by index, feature names
    environment.json      versions, hardware, fingerprint of the data, seeds
    model.safetensors     weights; the metadata say how to build the module
    preprocessing.skops   the fitted transformer from raw columns to features
    predictions.safetensors  what the model said of each test example, and what is true
    architecture.py       the user's own architecture, to be read; loading a bundle does not run it
    model.onnx            the network for other programs, where it was asked for
    README.md             the model card
    manifest.json         size and SHA-256 of each file above
    report.html           the report, where there is one: no part of the bundle, and may be written anew

A folder without manifest.json is not complete: it is written last and removed first. No file holds a pickle:
opening them runs no code.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpo.errors import BundleError, HpoError, UsageError

MANIFEST = "manifest.json"
REPORT = "report.html"
REQUIRED = (
    "config.yaml",
    "best.yaml",
    "best.json",
    "metrics.json",
    "labels.json",
    "environment.json",
    "model.safetensors",
    "preprocessing.skops",
    "README.md",
)
OPTIONAL = ("predictions.safetensors", "architecture.py", "model.onnx")
FILES = (*REQUIRED, *OPTIONAL, REPORT, MANIFEST)
"""What this project writes into a results folder, in this order; other files in it are the user's own."""
KIND, FORMAT = "hpo bundle", 2
"""Results folders before 2 had no manifest."""


def write_manifest(folder: Path, study: str) -> None:
    """Vouch for the bundle files that lie in `folder`."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)}
        for name in (*REQUIRED, *OPTIONAL)
        if (folder / name).exists()
    }
    write_json(folder / MANIFEST, {"kind": KIND, "format": FORMAT, "study": study, "files": files})


def checked(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in `folder`, whose files are all as it says.

    Raises:
        BundleError: there is none, it is another version's, or a file is missing, truncated or changed.
    """
    manifest = _manifest(folder)
    for name, stored in manifest["files"].items():
        _check_file(folder / name, stored)
    return manifest


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise BundleError(f"{folder}: {what}; a bundle is a folder, as `hpo run` and `hpo export` write it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: is no bundle: it has no {MANIFEST}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise BundleError(f"{path}: is not the manifest of a bundle: its kind is not {KIND!r}")
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{path}: the bundle has format {content.get('format')!r}; this version of hpo reads {FORMAT}"
        )
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(stored, dict) for stored in files.values()):
        raise BundleError(f"{path}: has no list of files with their hashes")
    if foreign := sorted(set(files) - {*REQUIRED, *OPTIONAL}):
        raise BundleError(f"{path}: names {foreign[0]!r}, which is no file of a bundle")
    if missing := [name for name in REQUIRED if name not in files]:
        raise BundleError(f"{path}: does not vouch for {missing[0]}, which every bundle has")
    return content


def _check_file(path: Path, stored: Mapping[str, Any]) -> None:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise BundleError(f"{path}: is no file")
        if size != stored.get("bytes"):
            raise BundleError(
                f"{path}: is truncated or changed: it has {size} bytes, {MANIFEST} says {stored.get('bytes')}"
            )
        digest = sha256(path)
    except FileNotFoundError as error:
        raise BundleError(f"{path}: is missing; {MANIFEST} names it") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    if digest != stored.get("sha256"):
        raise BundleError(
            f"{path}: is damaged or changed: its SHA-256 is {digest[:12]}…, {MANIFEST} says "
            f"{str(stored.get('sha256'))[:12]}…"
        )


def sha256(path: Path) -> str:
    """Of the file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A mapping that a bundle's JSON file holds.

    Raises:
        BundleError: it does not.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: holds no mapping")
    return content


def write_json(path: Path, content: Any) -> None:
    """As people may read it."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


# --- taking its place


def check_replaceable(folder: Path, study: str) -> None:
    """Refuse a folder that is not for results of `study`: to be asked before the search, not after the test.

    Raises:
        HpoError: `folder` cannot be made, or holds something else than results of `study`.
    """
    target = folder.resolve()
    if not _occupied(target):
        return
    found = study_of(target)
    if found != study:
        holds = "something else" if found is None else f"results of study {found!r}"
        raise HpoError(f"results folder {target}: holds {holds}; choose another one for study {study!r}")


def check_free(folder: Path, force: bool) -> None:
    """Refuse a folder that an export may not write to: with `force` another bundle's is replaced.

    Raises:
        UsageError: `folder` cannot be made, or holds something else than a bundle, or one and no `force`.
    """
    target = folder.resolve()
    if not _occupied(target):
        return
    if (found := study_of(target)) is None:
        raise UsageError(f"--out: {target} holds something else than a bundle, and is left alone")
    if not force:
        raise UsageError(f"--out: {target} holds a bundle of study {found!r}; --force replaces it")


def _occupied(target: Path) -> bool:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.exists() and not (target.is_dir() and not any(target.iterdir()))
    except OSError as error:
        raise UsageError(f"folder {target}: cannot be written: {error.strerror}") from error


def study_of(folder: Path) -> str | None:
    """The study whose results `folder` holds, complete or not; None if it holds none."""
    try:
        content = json.loads((folder / "best.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not ours, then
        return None
    if not isinstance(content, dict) or not {"number", "params", "metric"} <= content.keys():
        return None
    name = content.get("study")
    return name if isinstance(name, str) else None


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` whose files take their places there when the block ends well, and go when not.

    The process may be killed at any point: `target` lacks its manifest then, or is as it was, or as it is
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
    (target / MANIFEST).unlink(missing_ok=True)
    for name in FILES:
        if (staging / name).exists():
            (staging / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)
