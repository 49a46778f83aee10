"""Small pictures of a study's images, as they stand in its page: examples, means, deviations, pairs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpo.data.unsealed import UnsealedImages

SIDE = 56
"""Pixels that a picture has, at most."""
EXAMPLES = 8
MOST_CLASSES = 60
"""That are shown: each takes about 15 kB, in colour."""
GAP = 2


@dataclass(frozen=True)
class ClassPictures:
    """What a class looks like."""

    name: str
    count: int
    mean: str
    """A `data:` URI, like the others."""
    deviation: str
    """How much each pixel varies; white is the most."""
    examples: str
    """Some of its images side by side."""


def class_pictures(images: UnsealedImages, classes: Sequence[str]) -> list[ClassPictures]:
    """Of each class its training images in mean and deviation, and some of them; of the first classes."""
    gain = 255 / (int(images.pixels.max()) or 1)
    random = np.random.default_rng(0)
    shown = []
    for code, name in enumerate(classes[:MOST_CLASSES]):
        rows = np.flatnonzero((images.targets == code) & ~images.validation)
        if not len(rows):
            continue
        some = np.sort(random.choice(rows, min(1000, len(rows)), replace=False))
        pixels = images.pixels[some].astype(np.float32)
        deviation = pixels.std(axis=0)
        shown.append(
            ClassPictures(
                name,
                len(rows),
                picture(pixels.mean(axis=0) * gain),
                picture(deviation * (255 / (float(deviation.max()) or 1.0))),
                strip([image * gain for image in pixels[:EXAMPLES]]),
            )
        )
    return shown


def pictures_of(images: UnsealedImages, rows: Sequence[int]) -> list[str]:
    """The images of these rows."""
    gain = 255 / (int(images.pixels.max()) or 1)
    return [picture(images.pixels[row].astype(np.float32) * gain) for row in rows]


def picture(pixels: NDArray[np.floating]) -> str:
    """[C, H, W] of 0 to 255 as a `data:` URI."""
    return _uri(_image(pixels))


def strip(pictures: Sequence[NDArray[np.floating]]) -> str:
    """Several of one size, side by side, as a `data:` URI."""
    drawn = [_image(pixels) for pixels in pictures]
    width, height = drawn[0].size
    whole = Image.new("LA" if drawn[0].mode == "L" else "RGBA", ((width + GAP) * len(drawn) - GAP, height))
    for place, image in enumerate(drawn):
        whole.paste(image, (place * (width + GAP), 0))
    return _uri(whole)


def _image(pixels: NDArray[np.floating]) -> Image.Image:
    values = pixels.round().clip(0, 255).astype(np.uint8)
    image = Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, -1))
    image.thumbnail((SIDE, SIDE))
    return image


def _uri(image: Image.Image) -> str:
    """PNG for grey; WebP for colours, where it takes a fifth of the bytes."""
    file = io.BytesIO()
    grey = image.mode in {"L", "LA"}
    if grey:
        image.save(file, "PNG", optimize=True)
    else:
        image.save(file, "WEBP", quality=80)
    kind = "png" if grey else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
