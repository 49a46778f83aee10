"""Small sets of images on disk, in the layouts that their sources read."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.config import StudyConfig
from hpo.data.prepared import Part

SHAPE = (6, 5)


def study(folder: Path, data: dict[str, Any], **keys: Any) -> StudyConfig:
    """A study of these data."""
    content = {"name": "x", "data": data, "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}}} | keys
    return StudyConfig.model_validate(content).at(folder)


def drawn(
    each: int = 10, classes: int = 3, seed: int = 0, first: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """So many random images of each class, the brighter the higher their label."""
    labels = np.tile(np.arange(first, first + classes, dtype=np.uint8), each)
    noise = np.random.default_rng(seed).integers(0, 100, (len(labels), *SHAPE), np.uint8)
    return noise + (40 * (labels - first) % 150).astype(np.uint8)[:, None, None], labels


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """The content of an idx file."""
    sizes = b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def write(path: Path, content: bytes) -> None:
    """Compressed, if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def write_part(
    folder: Path, part: str, images: NDArray[np.uint8], labels: NDArray[np.uint8], gz: bool = False
) -> None:
    """Two idx files."""
    end = "ubyte.gz" if gz else "ubyte"
    write(folder / f"{part}-images-idx3-{end}", idx_bytes(images))
    write(folder / f"{part}-labels-idx1-{end}", idx_bytes(labels))


def write_idx(folder: Path, prefix: str = "", test: bool = True, each: int = 10, **options: Any) -> Path:
    """A training part, and a test part a third as large."""
    gz = options.pop("gz", False)
    write_part(folder, f"{prefix}train", *drawn(each, **options), gz=gz)
    if test:
        write_part(folder, f"{prefix}test", *drawn(max(1, each // 3), seed=1, **options), gz=gz)
    return folder


def pixels(part: Part) -> NDArray[np.uint8]:
    """The images of a part: [N, C, H, W]"""
    assert part.rows is not None
    found: NDArray[np.uint8] = part.features[part.rows].numpy()
    return found
