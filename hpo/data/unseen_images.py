"""Images that a finished network is to predict."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.config import FolderData, SklearnData, StudyConfig
from hpo.data.images import shape_text
from hpo.data.unseen import Unseen
from hpo.errors import DataError

BRIGHTEST_DIGIT = 16
"""scikit-learn's digits have pixels of 0 to 16."""


def files_below(path: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder, sorted; hidden ones are left out, as a study does.

    Raises:
        DataError: there is no such file or folder, or none in it.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    found = False
    for place, below, names in os.walk(path):
        below[:] = sorted(name for name in below if name[0] != ".")
        for name in sorted(name for name in names if name[0] != "."):
            found = True
            yield Path(place, name)
    if not found:
        raise DataError(f"{path}: has no files")


def read_images(paths: list[Path], config: StudyConfig, shape: tuple[int, ...]) -> Unseen:
    """Image files, as those of the study were read; one that cannot be read is named in its note.

    shape: channels, height, width. Images of another size are stretched if the study gave `data.size`.
    """
    from hpo.data.imagefolder import read_image  # here, as Pillow is needed for nothing else

    stretch = isinstance(config.data, FolderData) and config.data.size is not None
    usable = np.ones(len(paths), dtype=bool)
    pixels = np.zeros((len(paths), *shape), np.uint8)
    notes = [""] * len(paths)
    for row, path in enumerate(paths):
        try:
            pixels[row] = read_image(path, (shape[1], shape[2]), shape[0], stretch)
        except DataError as error:
            usable[row], notes[row] = False, str(error)
    return _scaled_as_usual(Unseen(pixels[usable], usable, tuple(notes)), config)


def read_pixels(where: str, array: NDArray[Any], config: StudyConfig, shape: tuple[int, ...]) -> Unseen:
    """Images as bytes: [N, C, H, W], or [N, H, W] of one channel.

    Raises:
        DataError: another shape or type.
    """
    if shape[0] == 1 and array.ndim == 3:
        array = array[:, None]
    if array.dtype != np.uint8 or array.shape[1:] != shape:
        raise DataError(
            f"{where}: is an array of {array.dtype} and shape {list(array.shape)}; the network takes images "
            f"of {shape_text(shape)} (channels, height, width) as uint8, [N, {', '.join(map(str, shape))}]"
        )
    every = Unseen(array, np.ones(len(array), dtype=bool), ("",) * len(array))
    return _scaled_as_usual(every, config)


def _scaled_as_usual(unseen: Unseen, config: StudyConfig) -> Unseen:
    """Pixels of another range than the study's would be predicted confidently, and wrongly."""
    if not isinstance(config.data, SklearnData):
        return unseen
    pixels = np.asarray(unseen.features)
    fits = pixels.reshape(len(pixels), int(np.prod(pixels.shape[1:]))).max(axis=1) <= BRIGHTEST_DIGIT
    usable, notes = unseen.usable.copy(), list(unseen.notes)
    for row in np.flatnonzero(unseen.usable)[~fits]:
        usable[row] = False
        notes[row] = f"has pixels above {BRIGHTEST_DIGIT}; scikit-learn's digits have 0 to {BRIGHTEST_DIGIT}"
    return Unseen(pixels[fits], usable, tuple(notes))
