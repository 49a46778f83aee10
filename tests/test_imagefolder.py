"""Images in a folder for each class: formats, sizes, unreadable files, bombs."""

import io
import zlib
from pathlib import Path
from typing import Any

import pytest
from image_files import study
from PIL import Image

from hpo.config import FolderData
from hpo.data.imagefolder import list_folder, read_folder
from hpo.data.images import RawImages
from hpo.data.prepare import fingerprint, prepare
from hpo.errors import DataError

SIZE = (12, 9)
"""Height, width."""


def picture(level: int, mode: str = "L", size: tuple[int, int] = SIZE) -> Image.Image:
    colour = {"L": level, "RGB": (level, 0, 0), "I;16": level * 256}.get(mode)
    if colour is not None:
        return Image.new(mode, size[::-1], colour)
    grey = Image.new("L", size[::-1], level)
    return grey.convert(mode) if mode == "P" else grey.convert("RGB").convert(mode)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(folder: Path, each: int = 8, classes: str = "ab", mode: str = "L") -> Path:
    """So many images a class, each of a level of its own, the first class the darker."""
    for index, name in enumerate(classes):
        for number in range(each):
            save(folder / name / f"{number:02}.png", picture(10 + 100 * index + number, mode))
    return folder


def read(folder: Path, **data: Any) -> RawImages:
    section = FolderData.model_validate({"source": "folder", "path": "x"} | data)
    return read_folder(list_folder(folder), section)


def texts(raw: RawImages) -> list[str]:
    return [finding.text for finding in raw.findings]


def test_folders_are_classes_and_files_their_images_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, each=2)
    save(tmp_path / "a" / "deeper" / "x.png", picture(99))
    save(tmp_path / ".hidden" / "x.png", picture(99))
    (tmp_path / "a" / ".DS_Store").write_text("hidden")
    raw = read(tmp_path)
    assert raw.names == ("a", "b")
    assert raw.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert raw.train.pixels.shape == (5, 1, *SIZE)
    assert raw.train.pixels[:, 0, 0, 0].tolist() == [10, 11, 99, 110, 111]
    assert (raw.test, raw.findings) == (None, ())


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tiff", "webp", "pgm", "tga"])
def test_all_formats_of_pillow_are_read(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / "a" / f"1.{suffix}", picture(40))
    save(tmp_path / "b" / "1.png", picture(200))
    pixels = read(tmp_path, colours="grey").train.pixels
    assert abs(pixels[0].astype(int) - 40).max() <= 2


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("I;16", 1), ("P", 1), ("RGB", 3), ("CMYK", 3)]
)
def test_colour_images_have_three_channels_and_grey_ones_have_one(
    tmp_path: Path, mode: str, channels: int
) -> None:
    level = 255 if mode == "1" else 40
    for name in "ab":
        save(tmp_path / name / "1.tiff", picture(level, mode))
    pixels = read(tmp_path).train.pixels
    assert pixels.shape == (2, channels, *SIZE)
    assert abs(int(pixels[0, 0, 0, 0]) - level) <= 2
    assert read(tmp_path, colours="rgb").train.pixels.shape == (2, 3, *SIZE)
    assert read(tmp_path, colours="grey").train.pixels.shape == (2, 1, *SIZE)


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name / "1.png", Image.new("RGBA", (4, 4), (0, 0, 0, 0)))
    assert (read(tmp_path).train.pixels == 255).all()


def test_photographs_are_turned_as_their_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for name in "ab":
        save(tmp_path / name / "1.jpg", picture(40, size=SIZE[::-1]), exif=exif)
        save(tmp_path / name / "2.jpg", picture(40))
    assert read(tmp_path).train.pixels.shape == (4, 1, *SIZE)


def test_images_of_several_sizes_need_one_to_be_stated(tmp_path: Path) -> None:
    fill(tmp_path)
    odd = save(tmp_path / "b" / "odd.png", picture(250, size=(24, 24)))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    first = tmp_path / "a" / "00.png"
    expected = f"{odd}: is 24 x 24 pixels, but {first} is 12 x 9; data.size: [height, width] brings all to"
    assert str(caught.value).startswith(expected)
    raw = read(tmp_path, size=[12, 9])
    assert raw.train.pixels.shape == (17, 1, 12, 9)
    assert texts(raw) == ["1 of 17 images were brought to 12 x 9 pixels"]
    assert read(tmp_path, size=6).train.pixels.shape == (17, 1, 6, 6)


@pytest.mark.slow
def test_unreadable_files_are_reported_and_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    whole = (tmp_path / "a" / "00.png").read_bytes()
    (tmp_path / "b" / "half.png").write_bytes(whole[: len(whole) - 30])
    save(tmp_path / "b" / "float.tiff", Image.new("F", (9, 12)))
    raw = read(tmp_path)
    assert (len(raw.train.pixels), {finding.kind for finding in raw.findings}) == (16, {"unreadable"})
    for name, line in zip(["notes.txt", "float.tiff", "half.png"], texts(raw), strict=True):
        assert name in line and "cannot be read as an image and was left out" in line
    for number in range(30):
        (tmp_path / "a" / f"{number}.bad").write_text("")
    assert len(texts(read(tmp_path))) == 21
    assert texts(read(tmp_path))[-1] == "13 more files cannot be read as images and were left out"


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, classes="abc")
    for path in (tmp_path / "b").iterdir():
        path.write_text("no image")
    with pytest.raises(DataError, match="has no image of class 'b'; each of the 3 classes from 'a' to 'c'"):
        prepare(study(tmp_path, {"source": "folder", "path": "."}), tmp_path / "cache")


def test_a_folder_without_any_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="no file in it is an image that Pillow reads"):
        read(tmp_path)
    with pytest.raises(DataError, match="has no folders; expected one for each class"):
        list_folder(tmp_path / "a")
    with pytest.raises(DataError, match="there is no such folder"):
        list_folder(tmp_path / "b")


def huge_png(side: int) -> bytes:
    """A PNG whose header declares so many pixels; its data are never read."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + check

    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_decompression_bomb_is_refused_by_name(tmp_path: Path, side: int) -> None:
    fill(tmp_path)
    bomb = tmp_path / "b" / "bomb.png"
    bomb.write_bytes(huge_png(side))
    with pytest.raises(DataError) as caught:
        read(tmp_path, size=8)
    assert str(caught.value).startswith(f"{bomb}: is a decompression bomb, or not for learning from")
    assert f"({side**2} pixels)" in str(caught.value)
    assert f"at most {Image.MAX_IMAGE_PIXELS:,} pixels are read" in str(caught.value)


def test_more_images_than_fit_are_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    monkeypatch.setattr("hpo.data.imagefolder.LARGEST", 16 * 108 - 1)
    with pytest.raises(
        DataError, match=r"16 images of 12 x 9 pixels take 1,728 bytes, at most 1,727 are read"
    ):
        read(tmp_path)


# --- train and test


def test_subfolders_train_and_test_are_the_parts(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "test", each=3)
    fill(tmp_path / "val")
    config = study(tmp_path, {"source": "folder", "path": "."})
    prepared = prepare(config, tmp_path / "cache")
    assert prepared.sizes == {"raw": 22, "train": 14, "validation": 2, "test": 6}
    assert [finding.text for finding in prepared.findings] == [
        "not read: val beside train; the search draws its validation part from train",
        "6 of 6 images of the test part are in the training part too, label included",
    ]


def test_classes_of_the_test_part_must_be_those_of_the_training_part(tmp_path: Path) -> None:
    fill(tmp_path / "train", classes="abc")
    fill(tmp_path / "test", classes="bcd")
    with pytest.raises(DataError) as caught:
        list_folder(tmp_path)
    message = (
        f"{tmp_path / 'test'}: has no folder 'a' and has the class 'd', which {tmp_path / 'train'} has not"
    )
    assert str(caught.value) == message


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path / "car")
    assert list_folder(fill(tmp_path / "vehicles", classes="xy")).names == ("x", "y")
    save(tmp_path / "traffic" / "train" / "1.png", picture(1))
    save(tmp_path / "traffic" / "bus" / "1.png", picture(2))
    assert list_folder(tmp_path / "traffic").names == ("bus", "train")


def test_the_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    def of(folder: str) -> str:
        return fingerprint(study(tmp_path, {"source": "folder", "path": folder}))

    base = of(fill(tmp_path / "one").name)
    assert of(fill(tmp_path / "two").name) == base
    (tmp_path / "two" / "a" / "00.png").rename(tmp_path / "two" / "b" / "x.png")
    stream = io.BytesIO()
    picture(77).save(stream, "png")
    (tmp_path / "one" / "a" / "00.png").write_bytes(stream.getvalue())
    assert len({base, of("one"), of("two")}) == 3
