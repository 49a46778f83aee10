"""torchvision's data sets, in files of its own layout: no test downloads anything."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as vision
from image_files import SHAPE, drawn, idx_bytes, study, write, write_idx
from PIL import Image

from hpo.config import Fraction, StudyConfig
from hpo.data.emnist import CHARACTERS
from hpo.data.images import RawImages
from hpo.data.prepare import prepare
from hpo.data.source import open_source
from hpo.data.torchvision_sets import CIFAR, NAMES
from hpo.errors import DataError


def config(root: Path, name: str, **data: Any) -> StudyConfig:
    return study(root, {"source": "torchvision", "name": name, "path": ".", "download": False} | data)


def read(root: Path, name: str, **data: Any) -> RawImages:
    raw = open_source(config(root, name, **data)).read()
    assert isinstance(raw, RawImages)
    return raw


def write_mnist(root: Path, name: str, gz: bool = False, classes: int = 10) -> None:
    folder = write_idx(root / name / "raw", classes=classes, gz=gz)
    for path in folder.glob("test-*"):
        path.rename(path.with_name(path.name.replace("test", "t10k")))


def pil_images(dataset: Any) -> list[np.ndarray]:
    return [np.asarray(image) for image, _ in dataset]


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "KMNIST"])
def test_what_torchvision_would_read_is_read(tmp_path: Path, name: str, gz: bool) -> None:
    write_mnist(tmp_path, name)
    theirs = [getattr(vision, name)(tmp_path, train=train) for train in (True, False)]
    if gz:
        for path in (tmp_path / name / "raw").iterdir():
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    raw = read(tmp_path, name)
    assert raw.test is not None
    for ours, other in zip((raw.train, raw.test), theirs, strict=True):
        np.testing.assert_array_equal(ours.pixels[:, 0], pil_images(other))
        np.testing.assert_array_equal(ours.labels, other.targets)
    names = [text.split(" - ")[0] for text in theirs[0].classes]
    assert raw.names == tuple(names)


def test_emnist_is_turned_upright_and_its_classes_are_characters(tmp_path: Path) -> None:
    write_idx(tmp_path / "EMNIST" / "raw", "emnist-letters-", classes=26, first=1)
    theirs = vision.EMNIST(tmp_path, "letters", train=True)
    raw = read(tmp_path, "EMNIST", split="letters")
    np.testing.assert_array_equal(raw.train.pixels[:, 0], np.swapaxes(pil_images(theirs), 1, 2))
    prepared = prepare(config(tmp_path, "EMNIST", split="letters"), tmp_path / "cache")
    assert prepared.classes == tuple("abcdefghijklmnopqrstuvwxyz")
    assert prepared.input_shape == (1, *SHAPE[::-1])


def test_the_characters_are_torchvisions() -> None:
    splits = {name: list(text) for name, text in CHARACTERS.items() if name != "letters"}
    theirs = {
        name: classes for name, classes in vision.EMNIST.classes_split_dict.items() if name != "letters"
    }
    assert splits == theirs
    assert list(CHARACTERS["letters"][1:]) == vision.EMNIST.classes_split_dict["letters"][1:]


def test_the_names_are_torchvisions() -> None:
    for name, names in NAMES.items():
        assert [text.split(" - ")[0] for text in getattr(vision, name).classes] == list(names)
    for name, (folder, files) in CIFAR.items():
        theirs = getattr(vision, name)
        listed = [file for file, _ in theirs.train_list + theirs.test_list] + [theirs.meta["filename"]]
        assert (theirs.base_folder, listed) == (folder, list(files))


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Small files of the layout, their MD5 made known to torchvision; answers the images of the last."""
    dataset = getattr(vision, name)
    rng, sums = np.random.default_rng(0), {}
    last = np.empty(0)
    classes = 10 if name == "CIFAR10" else 100
    key = "labels" if name == "CIFAR10" else "fine_labels"
    for file in CIFAR[name][1]:
        images = rng.integers(0, 256, (2 * classes, 3, 32, 32), np.uint8)
        content: dict[str, Any] = {"data": images.reshape(len(images), -1), key: list(range(classes)) * 2}
        if "meta" in file:
            content = {dataset.meta["key"]: [f"class {index}" for index in range(classes)]}
        packed = pickle.dumps(content)
        write(root / CIFAR[name][0] / file, packed)
        sums[file] = hashlib.md5(packed).hexdigest()
        last = last if "meta" in file else images
    for files in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, files, [[file, sums[file]] for file, _ in getattr(dataset, files)])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": sums[dataset.meta["filename"]]})
    return last


@pytest.mark.parametrize(("name", "classes", "train"), [("CIFAR10", 10, 100), ("CIFAR100", 100, 200)])
def test_cifar_is_read_in_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: int, train: int
) -> None:
    last = write_cifar(tmp_path, name, monkeypatch)
    raw = read(tmp_path, name)
    assert raw.test is not None
    assert raw.train.pixels.shape == (train, 3, 32, 32)
    np.testing.assert_array_equal(raw.test.pixels, last)
    assert raw.names == tuple(f"class {index}" for index in range(classes))
    some = prepare(
        config(tmp_path, name, classes=[2, 5]).model_copy(update={"validation": Fraction(fraction=0.5)}),
        tmp_path / "cache",
    )
    assert (some.classes, some.input_shape) == (("class 2", "class 3", "class 4"), (3, 32, 32))
    normalization = some.folds[0].normalization
    assert normalization is not None and len(normalization.means) == 3


def test_a_file_of_cifar_with_another_md5_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, "CIFAR10", monkeypatch)
    with (tmp_path / "cifar-10-batches-py" / "data_batch_2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"cifar-10-batches-py: is damaged: .*delete it"):
        read(tmp_path, "CIFAR10")


def test_missing_files_are_named_where_no_download_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"MNIST/raw/train-images-idx3-ubyte: there is no such file, and data"
    ):
        read(tmp_path, "MNIST")


def test_a_download_that_fails_says_where_the_files_would_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vision.MNIST, "mirrors", [f"{(tmp_path / 'nowhere').as_uri()}/"])
    with pytest.raises(DataError) as caught:
        prepare(config(tmp_path / "root", "MNIST", download=True), tmp_path / "cache")
    assert "MNIST is not there and cannot be downloaded" in str(caught.value)
    assert "it would lie as " in str(caught.value) and "train-images-idx3-ubyte" in str(caught.value)


@contextlib.contextmanager
def http_server(folder: Path) -> Iterator[str]:
    """The URL of a server of this folder, on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_download_is_torchvisions_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = tmp_path / "served"
    write_mnist(served, "MNIST", gz=True)
    files = sorted((served / "MNIST" / "raw").iterdir())
    sums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in files]
    monkeypatch.setattr(vision.MNIST, "resources", sums)
    monkeypatch.setenv("no_proxy", "*")
    with http_server(files[0].parent) as url:
        monkeypatch.setattr(vision.MNIST, "mirrors", [url])
        prepared = prepare(config(tmp_path / "root", "MNIST", download=True), tmp_path / "cache")
    assert prepared.classes == tuple("0123456789")
    assert "100%" in capsys.readouterr().err


@pytest.mark.slow
def test_torchvision_is_not_imported_to_read_idx_files(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    code = """if True:
        import sys; from pathlib import Path
        from image_files import study; from hpo.data.prepare import prepare
        data, root = {"source": "torchvision", "name": "MNIST", "path": "."}, Path(sys.argv[1])
        prepare(study(root, data), root / "cache")
        assert "torchvision" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parent)


@pytest.mark.slow
def test_mnist_as_torchvision_reads_it(tmp_path: Path, shared_data: Path) -> None:
    for path in (shared_data / "MNIST" / "raw").glob("*.gz"):
        write(tmp_path / "MNIST" / "raw" / path.stem, gzip.decompress(path.read_bytes()))
    raw, theirs = read(tmp_path, "MNIST"), vision.MNIST(tmp_path)
    assert raw.test is not None
    assert (raw.train.pixels.shape, raw.test.pixels.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert np.array_equal(raw.train.pixels[:, 0], theirs.data)
    assert np.array_equal(raw.train.labels, theirs.targets)
    assert Image.fromarray(raw.train.pixels[0, 0]).size == (28, 28)


def test_a_short_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(idx_bytes(drawn()[0])[:-7])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte: is too short: 893 of the 900 bytes"):
        read(tmp_path, "MNIST")
