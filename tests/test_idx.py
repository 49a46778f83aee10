"""Idx files: what is found and read, and how those that are none are refused."""

import gzip
import os
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import drawn, idx_bytes, study, write, write_idx, write_part

from hpo.data.idx import find_files, read_idx, read_part
from hpo.data.images import LARGEST
from hpo.data.prepare import prepare
from hpo.errors import DataError


@pytest.mark.parametrize("gz", [False, True])
def test_plain_and_compressed_files_are_read(tmp_path: Path, gz: bool) -> None:
    images, labels = drawn(each=4)
    write_part(tmp_path, "train", images, labels, gz=gz)
    part = read_part(find_files(tmp_path).train)
    assert (part.pixels.dtype, part.labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(part.pixels, images[:, None])
    np.testing.assert_array_equal(part.labels, labels)


@pytest.mark.parametrize(
    "names",
    [
        ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"),
        ("train-images.idx3-ubyte.gz", "t10k-images.idx3-ubyte.gz"),
        ("emnist-balanced-train-images-idx3-ubyte", "emnist-balanced-test-images-idx3-ubyte"),
        ("raw/train_images", "raw/test_images"),
    ],
)
def test_files_are_found_by_their_usual_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for name, array in zip(names, drawn()[:1] * 2, strict=True):
        write(tmp_path / name, idx_bytes(array))
        write(tmp_path / name.replace("images", "labels").replace("idx3", "idx1"), idx_bytes(drawn()[1]))
    write(tmp_path / "readme.txt", b"")
    files = find_files(tmp_path)
    assert files.train[0] == tmp_path / names[0]
    assert files.test is not None and files.test[0] == tmp_path / names[1]


def test_of_a_file_that_lies_there_twice_the_plain_one_is_read(tmp_path: Path) -> None:
    write_idx(tmp_path, gz=True)
    write_idx(tmp_path)
    assert all(path.suffix == "" for path in find_files(tmp_path).all())


def test_of_several_sets_the_prefix_chooses_one(tmp_path: Path) -> None:
    write_idx(tmp_path, "emnist-letters-", first=1)
    write_idx(tmp_path, "emnist-digits-")
    with pytest.raises(DataError, match=r"data\.prefix chooses one: emnist-digits, emnist-letters$"):
        find_files(tmp_path)
    with pytest.raises(DataError, match=r"no files that begin with 'mnist' \(data\.prefix\): emnist-digits,"):
        find_files(tmp_path, "mnist")
    data = {"source": "idx", "path": ".", "prefix": "emnist-letters"}
    assert prepare(study(tmp_path, data), tmp_path / "cache").classes == ("a", "b", "c")


def test_transposed_images_are_turned_upright(tmp_path: Path) -> None:
    images, labels = drawn()
    write_part(tmp_path, "train", images.swapaxes(1, 2), labels)
    np.testing.assert_array_equal(read_part(find_files(tmp_path).train, True).pixels, images[:, None])


# --- what is refused


def refused(path: Path, *messages: str) -> None:
    with pytest.raises(DataError) as caught:
        read_idx(path, "images")
    assert str(caught.value).startswith(f"{path}: ")
    assert all(message in str(caught.value) for message in messages), str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: b"", "is empty; idx files of images begin with 0x00000803"),
        (lambda content: b"\0\0\x08\x01" + content[4:], "begins with 0x00000801; idx files of images begin"),
        (lambda content: b"\0\0\x0d\x03" + content[4:], "begins with 0x00000d03; idx files of images begin"),
        (lambda content: content[:9], "ends within its header, after 9 bytes"),
        (lambda content: content[:-1], "is too short: 899 of the 900 bytes that its header declares"),
        (lambda content: content + b"\0", "goes on after the 900 bytes that its header declares"),
        (lambda content: b"\0\0\x08\x03" + b"\xff" * 12 + content, "bytes, which"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, suffix: str, change: Any, message: str) -> None:
    path = tmp_path / f"images{suffix}"
    write(path, change(idx_bytes(drawn()[0])))
    refused(path, message)


def test_a_damaged_archive_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    write(path, idx_bytes(drawn()[0]))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "is damaged: Compressed file ended before")
    path.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    refused(path, "is damaged: CRC check failed")
    path.write_bytes(whole[:10] + b"\xff" * 20)
    refused(path, "is damaged: ")


def test_a_file_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    refused(tmp_path / "images", "cannot be read: No such file or directory")


def bomb(path: Path, header: bytes, zeros: int) -> None:
    """A .gz of a header and so many zeros, without ever holding these."""
    packer = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(packer.compress(header))
        for _ in range(zeros // 2**20):
            file.write(packer.compress(bytes(2**20)))
        file.write(packer.flush())


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    sizes = np.array([10, 28, 28], ">u4").tobytes()
    bomb(path, b"\0\0\x08\x03" + sizes, 64 * 2**20)
    tracemalloc.start()
    refused(path, "goes on after the 7,840 bytes that its header declares")
    bomb(path, b"\0\0\x08\x03" + np.array([2**22, 2**11, 1], ">u4").tobytes(), 10 * 2**20)
    refused(path, "declares 8,589,934,592 bytes, which", "cannot hold")
    os.truncate(path, 2**24)
    refused(path, f"declares 8,589,934,592 bytes; at most {LARGEST:,} are read")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("missing", ["train-labels-idx1", "test-labels-idx1", "train-images-idx3"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_idx(tmp_path)
    (tmp_path / f"{missing}-ubyte").unlink()
    with pytest.raises(DataError, match=f"has no file {missing}-ubyte, plain or .gz, beside test-"):
        find_files(tmp_path)


def test_a_missing_folder_and_one_without_idx_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, message in {
        "x": "there is no such folder",
        "file": "is no folder",
        ".": "has no idx files",
    }.items():
        with pytest.raises(DataError, match=message):
            prepare(study(tmp_path, {"source": "idx", "path": path}), tmp_path / "cache")


def test_images_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    images, labels = drawn()
    write_part(tmp_path, "train", images, labels[:-1])
    with pytest.raises(DataError, match=r"has 30 images, but .*train-labels-idx1-ubyte has 29 labels"):
        read_part(find_files(tmp_path).train)
    write_part(tmp_path, "train", images[:0], labels[:0])
    with pytest.raises(DataError, match="has no images: its dimensions are 0 x 6 x 5"):
        read_part(find_files(tmp_path).train)


def test_a_compressed_file_is_known_by_its_content(tmp_path: Path) -> None:
    images, _ = drawn()
    (tmp_path / "images").write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(read_idx(tmp_path / "images", "images"), images)
