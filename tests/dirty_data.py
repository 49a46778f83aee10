"""Data with every kind of dirt, each planted where a test looks for it."""

import csv
from pathlib import Path

import image_files
import numpy as np

from hpo.config import StudyConfig

HOSTILE = "<img src=x onerror=alert(1)>"
"""A column's and a class's name."""
ROWS = 400
ZEROS = tuple(range(20, 32))
UNPARSABLE, MISSING, OUTLIER = 40, 41, 42
TWINS, CONTRADICTING = (50, 51, 52), (60, 61, 62)
MISLABELLED = tuple(range(70, 79))
FAR_TARGET = 80
"""Lines of the file. A few rows are sealed, and what is planted in these must not be found."""
BLANK, MISLABELLED_IMAGES = 100, slice(200, 212)


def table(folder: Path, task: str = "classification") -> StudyConfig:
    """Line n of the file is row n - 2 here."""
    random = np.random.default_rng(0)
    label = np.arange(ROWS) % 2
    random.shuffle(label)
    columns: dict[str, list[str]] = {
        "tells": [f"{value:.4f}" for value in random.normal(8 * label, 1)],
        "also tells": [f"{value:.4f}" for value in random.normal(-8 * label, 1)],
        HOSTILE: [f"{value:.4f}" for value in random.normal(size=ROWS)],
        "dose": [f"{value:.1f}" for value in random.normal(100, 15, ROWS)],
        "site": random.choice(["north", "south", "=cmd|' /C calc'!A0", HOSTILE], ROWS).tolist(),
        "always": ["7"] * ROWS,
        "never": [""] * ROWS,
    }
    for line in ZEROS:
        columns["dose"][line - 2] = "0"
    columns["dose"][UNPARSABLE - 2] = "12O"
    columns[HOSTILE][MISSING - 2] = "?"
    columns["tells"][OUTLIER - 2] = "1e7"
    for first, *others in (TWINS, CONTRADICTING):
        for line in others:
            label[line - 2] = label[first - 2]
            for cells in columns.values():
                cells[line - 2] = cells[first - 2]
    label[CONTRADICTING[-1] - 2] = 1 - label[CONTRADICTING[0] - 2]
    for line in MISLABELLED:
        label[line - 2] = 1 - label[line - 2]
    target = np.array(["healthy", HOSTILE])[label].tolist()
    if task == "regression":
        numbers = 10 * label + random.normal(size=ROWS)
        numbers[FAR_TARGET - 2] = 500
        target = [f"{value:.3f}" for value in numbers]
    path = folder / f"{task}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "target"])
        writer.writerows(zip(*columns.values(), target, strict=True))
    data = {"source": "csv", "path": path.name, "target": "target", "test_fraction": 0.05}
    return study(folder, data, task)


def study(
    folder: Path, data: dict[str, object], task: str = "classification", architecture: str = "mlp"
) -> StudyConfig:
    """A study of these data."""
    metric = "rmse" if task == "regression" else "accuracy"
    content = {"name": "dirt", "data": data, "metric": metric, "architecture": architecture}
    content |= {"search": {"learning_rate": {"low": 1e-4, "high": 1e-1}}}
    return StudyConfig.model_validate(content).at(folder)


def images(folder: Path) -> StudyConfig:
    """Three classes of 20 x 20 grey pixels: bars, a ring and a cross, each moved and noisy.

    Planted: darker copies of one image; a blank one; mislabelled ones.
    """
    pixels, labels = pictures()
    image_files.write_part(folder, "train", pixels, labels)
    data = {"source": "idx", "path": ".", "class_names": ["bars", HOSTILE, "cross"]}
    return study(folder, data, architecture="cnn")


def pictures() -> "tuple[np.typing.NDArray[np.uint8], np.typing.NDArray[np.uint8]]":
    """Those images, in the order of their file: [N, 20, 20] and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(360, dtype=np.uint8) % 3
    pixels = np.stack([_drawn(int(label), random) for label in labels])
    for copy in range(9, 99, 3):  # of image 0
        pixels[copy] = (pixels[0] * 0.8).astype(np.uint8)
    pixels[BLANK] = 9
    labels[MISLABELLED_IMAGES] = (labels[MISLABELLED_IMAGES] + 1) % 3
    return pixels, labels


def _drawn(label: int, random: np.random.Generator) -> "np.typing.NDArray[np.uint8]":
    y, x = np.mgrid[:20, :20] - random.normal(9.5, 0.8, (2, 1, 1))
    distance = np.hypot(x, y)
    shapes = [np.abs(x) % 6 < 2, np.abs(distance - 6) < 1.5, (np.abs(x) < 1.5) | (np.abs(y) < 1.5)]
    noise = random.normal(0, 12, (20, 20))
    return (200 * shapes[label] + 20 + noise).clip(0, 255).astype(np.uint8)
