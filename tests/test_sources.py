"""What a study file says of its data: stored exactly, and each mistake told in one line."""

import json

import pytest
from conftest import study_of

from hpo.config import StudyConfig
from hpo.errors import StudyFileError


@pytest.mark.parametrize(
    "data",
    [
        "{source: idx, path: x, classes: [0, 36], transposed: true, class_names: ABC, prefix: emnist}",
        "{source: idx, path: x, class_names: [cat, dog], test_fraction: 0.2}",
        "{source: folder, path: x, size: 32, colours: rgb}",
        "{source: folder, path: x, size: [32, 48]}",
        "{source: torchvision, name: EMNIST, split: balanced, path: x, classes: [0, 36]}",
        "{source: torchvision, name: CIFAR10, download: false}",
        "{source: sklearn, name: digits, images: true}",
    ],
)
def test_a_study_of_images_is_stored_exactly(data: str) -> None:
    config = study_of(f"data: {data}\nsearch: {{width: {{low: 1, high: 5}}}}")
    stored = StudyConfig.model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert stored.at(config.folder) == config
    assert config.task == "classification"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (
            "source: idx",
            "data.path: missing; the folder with train-images-idx3-ubyte and so on, relative to the file",
        ),
        (
            "source: idx, path: x, classes: 36",
            "data.classes: must be [first, end] with first at least 0 and two classes or more: end itself is "
            "left out, and at most 100000, not 36",
        ),
        (
            "source: idx, path: x, classes: [3, 4]",
            "data.classes: must be [first, end] with first at least 0 and two classes or more: end itself is "
            "left out, and at most 100000, not [3, 4]",
        ),
        (
            "source: idx, path: x, class_names: 3",
            "data.class_names: must be text, one character a class, or a list of names, not 3",
        ),
        (
            "source: folder, path: x, size: [0, 5]",
            "data.size: must be [height, width] or one number for both, from 1 to 4096 pixels, not [0, 5]",
        ),
        (
            "source: folder, path: x, colours: gray",
            "data.colours: must be auto, grey or rgb, not 'gray'; did you mean 'grey'?",
        ),
        (
            "source: torchvision, name: mnist",
            "data.name: must be MNIST, FashionMNIST, KMNIST, EMNIST, CIFAR10 or CIFAR100, not 'mnist'; "
            "did you mean 'MNIST'?",
        ),
        (
            "source: torchvision, name: MNIST, split: balanced",
            "data.split: must be left out: MNIST has none, only EMNIST has, not 'balanced'",
        ),
        (
            "source: torchvision, name: MNIST, test_fraction: 0.2",
            "data.test_fraction: must be left out: torchvision's own test part is the test set, not 0.2",
        ),
        (
            "source: sklearn, name: wine, images: true",
            "data.images: must be left out: wine is no set of images, not true",
        ),
        (
            "source: idx, path: x, task: regression",
            "data.task: must be classification, as images are for that, not 'regression'",
        ),
    ],
)
def test_a_mistake_about_images_is_one_line(data: str, line: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        study_of(f"data: {{{data}}}\nsearch: {{width: {{low: 1, high: 5}}}}")
    assert [str(mistake) for mistake in caught.value.mistakes] == [line]


def test_a_metric_of_regression_is_refused_for_images() -> None:
    with pytest.raises(StudyFileError, match="metric: must be one of accuracy, f1, roc_auc, loss"):
        study_of("data: {source: idx, path: x}\nmetric: rmse\nsearch: {width: {low: 1, high: 5}}")
