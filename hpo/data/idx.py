"""Idx files, MNIST's format: a magic number, the dimensions as big-endian 32-bit numbers, then bytes.

Source of the format: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

import contextlib
import gzip
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.data.images import LARGEST, Labelled, in_words
from hpo.errors import DataError

What = Literal["images", "labels"]
DIMENSIONS: dict[What, int] = {"images": 3, "labels": 1}
_BYTES = 0x08
"""The third byte of the magic number: the content are unsigned bytes."""
DEFLATE = 1032
"""A deflated file holds at most so many times its size (zlib's technical details)."""
CHUNK = 2**20

_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<part>train|t10k|test)[-_.](?P<what>images|labels)([-_.]idx\d[-_.]u?byte)?(\.gz)?",
    re.IGNORECASE,
)
WANTED = "{train,test}-{images-idx3,labels-idx1}-ubyte, plain or .gz (t10k is read as test)"


@dataclass(frozen=True)
class IdxFiles:
    """The files of one data set."""

    prefix: str
    train: tuple[Path, Path]
    """Images and labels."""
    test: tuple[Path, Path] | None

    def all(self) -> tuple[Path, ...]:
        """In a fixed order."""
        return self.train + (self.test or ())


def find_files(folder: Path, prefix: str | None = None) -> IdxFiles:
    """The idx files in `folder`, or in its subfolder raw.

    Of a file that lies there plain and compressed, the plain one.

    Raises:
        DataError: there is no such folder, a file is missing, or there are several sets and no `prefix`.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "there is no such folder"
        raise DataError(f"{folder}: {what} (data.path)")
    sets = _sets(folder) or _sets(folder / "raw")
    if not sets:
        raise DataError(f"{folder}: has no idx files; expected {WANTED}")
    known = {name.strip("-_."): name for name in sets}
    if prefix is not None and prefix.strip("-_.") not in known:
        raise DataError(f"{folder}: has no files that begin with {prefix!r} (data.prefix): {in_words(known)}")
    if prefix is None and len(sets) > 1:
        raise DataError(f"{folder}: has several sets; data.prefix chooses one: {in_words(known)}")
    name = next(iter(sets)) if prefix is None else known[prefix.strip("-_.")]
    return _complete(folder, name, sets[name])


def _sets(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """By prefix, the files by part and content."""
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for path in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ():  # a.gz, then a
        if path.is_file() and (match := _NAME.fullmatch(path.name)):
            part = "train" if match["part"].lower() == "train" else "test"
            found.setdefault(match["prefix"], {})[part, match["what"].lower()] = path
    return dict(sorted(found.items()))


def _complete(folder: Path, prefix: str, files: dict[tuple[str, str], Path]) -> IdxFiles:
    has_test = any(part == "test" for part, _ in files)
    for part in ("train", "test") if has_test else ("train",):
        for what, dimensions in DIMENSIONS.items():
            if (part, what) not in files:
                raise DataError(
                    f"{folder}: has no file {prefix}{part}-{what}-idx{dimensions}-ubyte, plain or .gz, "
                    f"beside {in_words(sorted(path.name for path in files.values()))}"
                )
    test = (files["test", "images"], files["test", "labels"]) if has_test else None
    return IdxFiles(prefix, (files["train", "images"], files["train", "labels"]), test)


def read_part(files: tuple[Path, Path], transposed: bool = False) -> Labelled:
    """The images and labels of one part.

    Raises:
        DataError: a file is no idx file of its kind, too short or too long, or they differ in their number.
    """
    images, labels = read_idx(files[0], "images"), read_idx(files[1], "labels")
    if len(images) != len(labels):
        raise DataError(f"{files[0]}: has {len(images)} images, but {files[1]} has {len(labels)} labels")
    if images.size == 0:
        raise DataError(f"{files[0]}: has no images: its dimensions are {' x '.join(map(str, images.shape))}")
    upright = np.ascontiguousarray(images.swapaxes(1, 2)) if transposed else images
    return Labelled(str(files[0]), upright[:, None], labels.astype(np.int64))


def read_idx(path: Path, what: What) -> NDArray[np.uint8]:
    """The bytes of an idx file, plain or .gz: [N, height, width] of images, [N] of labels.

    No more is read than the header declares, so that a compressed file cannot fill the memory.

    Raises:
        DataError: it cannot be read, or is no such file.
    """
    dimensions = DIMENSIONS[what]
    try:
        with _opened(path) as file:
            shape = _header(path, file.read(4 + 4 * dimensions), what)
            size = math.prod(shape)
            _check_size(path, size, 4 + 4 * dimensions)
            content = _content(path, file, size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    return content.reshape(shape)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    with path.open("rb") as plain:
        compressed = plain.read(2) == b"\x1f\x8b"  # whatever its name says
        plain.seek(0)
        if not compressed:
            yield plain
            return
        with gzip.open(plain) as file:
            yield file


def _header(path: Path, header: bytes, what: What) -> tuple[int, ...]:
    dimensions = DIMENSIONS[what]
    valid = bytes([0, 0, _BYTES, dimensions])
    if header[:4] != valid:
        found = f"begins with 0x{header[:4].hex()}" if header else "is empty"
        raise DataError(f"{path}: {found}; idx files of {what} begin with 0x{valid.hex()}")
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path}: ends within its header, after {len(header)} bytes")
    return tuple(int(size) for size in np.frombuffer(header, ">u4", dimensions, offset=4))


def _check_size(path: Path, size: int, header: int) -> None:
    """Before any memory is taken."""
    on_disk = path.stat().st_size
    if size + header > on_disk * DEFLATE:
        raise DataError(f"{path}: its header declares {size:,} bytes, which {on_disk:,} cannot hold")
    if size > LARGEST:
        raise DataError(f"{path}: its header declares {size:,} bytes; at most {LARGEST:,} are read")


def _content(path: Path, file: IO[bytes] | gzip.GzipFile, size: int) -> NDArray[np.uint8]:
    content, filled = np.empty(size, np.uint8), 0  # its pages are taken as they are filled
    while filled < size:
        chunk = file.read(min(CHUNK, size - filled))
        if not chunk:
            raise DataError(
                f"{path}: is too short: {filled:,} of the {size:,} bytes that its header declares"
            )
        content[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    if file.read(1):
        raise DataError(f"{path}: goes on after the {size:,} bytes that its header declares")
    return content
