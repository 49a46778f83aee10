"""Images in a folder for each class, in any format that Pillow reads."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hpo.config import FolderData
from hpo.data.images import LARGEST, Labelled, RawImages, in_words
from hpo.data.prepared import Finding
from hpo.errors import DataError

REPORTED = 20
"""Unreadable files that are reported one by one; the others are counted."""
GREY = frozenset({"1", "L", "LA", "I;16", "I;16B", "I;16L", "I;16N"})
UNKNOWN = frozenset({"I", "F"})
"""Pixels of 32 bits, whose range no file tells."""


@dataclass(frozen=True)
class Part:
    """The files of one part."""

    folder: Path
    files: tuple[tuple[Path, ...], ...]
    """By class."""


@dataclass(frozen=True)
class Listing:
    """What lies in the folder."""

    names: tuple[str, ...]
    """The classes, sorted."""
    train: Part
    test: Part | None
    unused: tuple[str, ...]
    """Folders beside train and test."""

    def digest(self) -> str:
        """SHA-256 of all files and their names.

        Raises:
            DataError: a file cannot be read.
        """
        sha = hashlib.sha256()
        for part in (self.train, self.test):
            folder = str(part.folder) if part else ""
            for path in (path for files in (part.files if part else ()) for path in files):
                try:
                    content = path.read_bytes()
                except OSError as error:
                    raise DataError(f"{path}: cannot be read: {error.strerror}") from error
                sha.update(repr((part is self.train, str(path)[len(folder) :], len(content))).encode())
                sha.update(content)
        return sha.hexdigest()


@dataclass(frozen=True)
class _Header:
    path: Path
    label: int
    size: tuple[int, int]
    """Height and width, upright."""
    grey: bool


def list_folder(folder: Path) -> Listing:
    """The files of all classes; hidden ones are left out.

    Raises:
        DataError: there is no such folder, or it has no folders of classes, or the parts differ in these.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "there is no such folder"
        raise DataError(f"{folder}: {what} (data.path)")
    below = _folders(folder)
    parted = "train" in below and bool(_folders(below["train"]))
    train = _part(below["train"] if parted else folder)
    names = tuple(_folders(train.folder))
    if not names:
        raise DataError(
            f"{folder}: has no folders; expected one for each class, or train and test with these"
        )
    test = _part(below["test"]) if parted and "test" in below else None
    if test is not None and (other := set(names) ^ set(_folders(test.folder))):
        missing, extra = sorted(set(names) & other), sorted(other - set(names))
        said = [f"has no folder {in_words(map(repr, missing))}"] if missing else []
        said += [f"has the class {in_words(map(repr, extra))}, which {train.folder} has not"] if extra else []
        raise DataError(f"{test.folder}: {' and '.join(said)}")
    unused = tuple(name for name in below if name not in {"train", "test"}) if parted else ()
    return Listing(names, train, test, unused)


def _folders(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}


def _part(folder: Path) -> Part:
    return Part(folder, tuple(tuple(_files(below)) for below in _folders(folder).values()))


def _files(folder: Path) -> list[Path]:
    """Those of subfolders too, without a look at each: a worker lists them all before it starts."""
    found = []

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read (data.path): {error.strerror}") from error

    for place, below, names in os.walk(folder, onerror=unreadable):
        below[:] = [name for name in below if name[0] != "."]
        found += [f"{place}{os.sep}{name}" for name in names if name[0] != "."]
    return [Path(path) for path in sorted(found)]


def read_folder(listing: Listing, data: FolderData) -> RawImages:
    """All images, of one size and one number of channels.

    Files that cannot be read as images are reported.

    Raises:
        DataError: images differ in size and `data.size` is not given, they are too many or too large for the
            memory, or a file is a decompression bomb.
    """
    unreadable: list[str] = []
    parts = [part for part in (listing.train, listing.test) if part is not None]
    headers = [_headers(part, unreadable) for part in parts]
    every = [header for found in headers for header in found]
    if not every:
        raise DataError(f"{listing.train.folder}: no file in it is an image that Pillow reads")
    size = _size(every, data)
    grey = all(header.grey for header in every) if data.colours == "auto" else data.colours == "grey"
    read = [
        _read(part, found, size, 1 if grey else 3, unreadable)
        for part, found in zip(parts, headers, strict=True)
    ]
    findings = (*_unreadable(unreadable), *_resized(every, size), *_unused(listing))
    return RawImages(read[0], read[1] if len(read) > 1 else None, listing.names, findings)


def _size(headers: list[_Header], data: FolderData) -> tuple[int, int]:
    if data.size is not None:
        return data.size[0], data.size[1]
    first = headers[0]
    for other in headers:
        if other.size != first.size:
            raise DataError(
                f"{other.path}: is {_text(other.size)} pixels, but {first.path} is {_text(first.size)}; "
                "data.size: [height, width] brings all to one size"
            )
    return first.size


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _headers(part: Part, unreadable: list[str]) -> list[_Header]:
    """Of all files that begin as images do; nothing is decompressed."""
    found = []
    for label, files in enumerate(part.files):
        for path in files:
            with _reported(path, unreadable), Image.open(path) as image:
                if image.mode in UNKNOWN:
                    raise ValueError(f"its pixels are of mode {image.mode}; need 8 or 16 bits")
                width, height = image.size
                size = (width, height) if _lies(image) else (height, width)
                grey = image.mode in GREY or (image.mode == "P" and _grey_palette(image))
                found.append(_Header(path, label, size, grey))
    return found


def _grey_palette(image: Image.Image) -> bool:
    colours = np.asarray((image.getpalette("RGB") or [])[:768], np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _lies(image: Image.Image) -> bool:
    """Whether the camera was held upright (Exif's orientations 5 to 8)."""
    return int(image.getexif().get(0x0112, 1)) >= 5


@contextmanager
def _reported(path: Path, unreadable: list[str]) -> Iterator[None]:
    """Only a bomb ends it all: leaving it out might hide that someone tried."""
    try:
        with _readable(path):
            yield
    except UnreadableImage as error:
        unreadable.append(f"{path}: cannot be read as an image and was left out: {error.reason}")


class UnreadableImage(DataError):
    """One file is no image, or damaged."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: cannot be read as an image: {reason}")
        self.reason = reason


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS or 0:,}"
        raise DataError(
            f"{path}: is a decompression bomb, or not for learning from: {str(error).split(',')[0]}; at most "
            f"{limit} pixels are read"
        ) from error
    except (MemoryError, DataError):
        raise
    except Exception as error:  # (whatever the reader of a format stumbles over)
        reason = getattr(error, "strerror", None) or str(error).replace(f" {str(path)!r}", "")
        raise UnreadableImage(path, reason) from error


def _read(
    part: Part, headers: list[_Header], size: tuple[int, int], channels: int, unreadable: list[str]
) -> Labelled:
    needed = len(headers) * channels * size[0] * size[1]
    if needed > LARGEST:
        raise DataError(
            f"{part.folder}: {len(headers):,} images of {_text(size)} pixels take {needed:,} bytes, at most "
            f"{LARGEST:,} are read; give a smaller data.size"
        )
    pixels = np.empty((len(headers), channels, *size), np.uint8)
    labels = np.empty(len(headers), np.int64)
    count = 0
    for header in headers:
        with _reported(header.path, unreadable):
            pixels[count] = _decoded(header.path, size, channels)
            labels[count] = header.label
            count += 1
    if count == 0:
        raise DataError(f"{part.folder}: no file in it is an image that Pillow reads")
    return Labelled(str(part.folder), pixels[:count], labels[:count])


def read_image(path: Path, size: tuple[int, int], channels: int, stretch: bool) -> NDArray[np.uint8]:
    """One image: [C, H, W], as those of a folder are read.

    size: height and width. stretch: whether an image of another size is brought to it.

    Raises:
        DataError: it cannot be read, or is of another size and not to be stretched.
    """
    with _readable(path):
        with Image.open(path) as image:
            if image.mode in UNKNOWN:
                raise ValueError(f"its pixels are of mode {image.mode}; need 8 or 16 bits")
            width, height = image.size
            own = (width, height) if _lies(image) else (height, width)
        if own != size and not stretch:
            raise DataError(f"{path}: is {_text(own)} pixels; the network takes {_text(size)}")
        return _decoded(path, size, channels)


def _decoded(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """[C, H, W], upright, on white where it is transparent."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # Pillow would cut off what is above 255
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), layer)
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(*size, channels).transpose(2, 0, 1)


# --- findings


def _unreadable(texts: list[str]) -> list[Finding]:
    findings = [Finding("unreadable", text) for text in texts[:REPORTED]]
    if len(texts) > REPORTED:
        more = f"{len(texts) - REPORTED} more files cannot be read as images and were left out"
        findings.append(Finding("unreadable", more))
    return findings


def _resized(headers: list[_Header], size: tuple[int, int]) -> list[Finding]:
    others = sum(header.size != size for header in headers)
    if not others:
        return []
    text = f"{others} of {len(headers)} images were brought to {_text(size)} pixels"
    return [Finding("resized", text)]


def _unused(listing: Listing) -> list[Finding]:
    if not listing.unused:
        return []
    text = (
        f"not read: {in_words(listing.unused)} beside train; the search draws its validation part from train"
    )
    return [Finding("unused", text)]
