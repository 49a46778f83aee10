"""Where a study's data come from: the sections that may stand under `data`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from hpo.section import Examples, Plain, Section, refusal, unknown
from hpo.usercode import is_user_function

Task = Literal["classification", "regression"]

TEST_FRACTION = 0.15


class _Data(Section):
    task: Task | None = Field(
        None, description="What is predicted; by default as the metric says, and classification for loss."
    )

    @property
    def inherent_task(self) -> Task | None:
        """What these data are for, where they say so."""
        return None


class _Rows(_Data):
    test_fraction: float = Field(
        TEST_FRACTION, gt=0, lt=1, description="Share of all rows sealed as the test set."
    )

    @property
    def test_share(self) -> float:
        """Share of all rows to seal."""
        return self.test_fraction


class CsvData(_Rows):
    """A table in a text file with a header line."""

    source: Literal["csv"] = Field(description="A text file.")
    path: str = Field(min_length=1, description="The file, relative to the study file.")
    target: str = Field(min_length=1, description="The column to predict.")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Between cells; found by itself by default."
    )
    missing: Literal["drop", "median", "mean", "most_frequent"] = Field(
        "median", description="Rows with missing cells are dropped, or the cells are filled in."
    )
    zero_is_missing: list[str] = Field([], description="Numeric columns in which 0 means missing.")
    categorical: list[str] = Field([], description="Columns of categories, even if their cells are numbers.")
    ignore: list[str] = Field([], description="Columns to leave out, such as row numbers.")


class SklearnData(_Rows):
    """A data set that ships with scikit-learn."""

    source: Literal["sklearn"] = Field(description="One of scikit-learn's own data sets.")
    name: Literal["breast_cancer", "wine", "digits", "iris", "diabetes"] = Field(
        description="Which one; diabetes is for regression."
    )
    images: bool = Field(False, description="Digits as images of 8 x 8 pixels, not as 64 columns.")

    @property
    def inherent_task(self) -> Task:
        """Diabetes has a number to predict."""
        return "regression" if self.name == "diabetes" else "classification"


class UserData(_Rows):
    """The user's own arrays: `load(**options)` returns `(features, targets)`."""

    source: str = Field(
        pattern=r"^.+\.py:[A-Za-z_]\w*$",
        description="path/to/file.py:load, a function of your own; relative to the study file.",
    )
    options: dict[str, Plain] = Field({}, description="Keyword arguments for the function.")


def _whole_numbers(raw: Any) -> list[int] | None:
    numbers = raw if isinstance(raw, list) else []
    plain = len(numbers) == 2 and all(type(number) is int for number in numbers)
    return list(numbers) if plain else None


def _class_range(raw: Any) -> Any:
    numbers = _whole_numbers(raw)
    if raw is not None and (numbers is None or not 0 <= numbers[0] < numbers[1] - 1 < MOST_CLASSES):
        raise refusal(
            "must be [first, end] with first at least 0 and two classes or more: end itself is left out, "
            f"and at most {MOST_CLASSES}"
        )
    return raw


def _image_size(raw: Any) -> Any:
    size = [raw, raw] if type(raw) is int else raw
    numbers = _whole_numbers(size)
    if raw is not None and (numbers is None or not 1 <= min(numbers) <= max(numbers) <= LARGEST_SIDE):
        raise refusal(f"must be [height, width] or one number for both, from 1 to {LARGEST_SIDE} pixels")
    return size


def _class_names(raw: Any) -> Any:
    if not isinstance(raw, str | list | None):
        raise refusal("must be text, one character a class, or a list of names")
    return list(raw) if isinstance(raw, str) else raw


LARGEST_SIDE = 4096
MOST_CLASSES = 100_000
_Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
ClassRange = Annotated[_Pair | None, BeforeValidator(_class_range)]
ImageSize = Annotated[_Pair | None, BeforeValidator(_image_size, json_schema_input_type=int | _Pair | None)]
ClassNames = Annotated[
    list[str] | None, BeforeValidator(_class_names, json_schema_input_type=str | list[str] | None)
]


class ImageData(_Data):
    """What all sources of images have in common."""

    test_fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"Share of all images sealed as the test set, by default {TEST_FRACTION}; to be left out "
        "where the data have a test part of their own.",
    )
    classes: ClassRange = Field(
        None, description="[first, end]: keep the classes from first to before end; [0, 36] are the first 36."
    )
    examples: Examples | None = Field(
        None,
        description="Keep so many images, of each class its share, drawn by training.seed; a test part "
        "of the data's own stays whole.",
    )

    @property
    def test_share(self) -> float:
        """Share of all images to seal, where the data have no test part of their own."""
        return TEST_FRACTION if self.test_fraction is None else self.test_fraction

    @property
    def inherent_task(self) -> Task:
        """Images have classes."""
        return "classification"


class IdxData(ImageData):
    """Images in idx files, MNIST's format; a test part beside the training part is the test set."""

    source: Literal["idx"] = Field(description="A folder of idx files, plain or .gz.")
    path: str = Field(
        min_length=1, description="The folder with train-images-idx3-ubyte and so on, relative to the file."
    )
    prefix: str | None = Field(
        None, description="Of the file names, where a folder has several sets, such as emnist-balanced."
    )
    transposed: bool = Field(
        False, description="Rows and columns of the images are exchanged in the files, as EMNIST's are."
    )
    class_names: ClassNames = Field(
        None,
        description="Names by label, as text of one character each or as a list; by default the labels, and "
        "EMNIST's characters where the files' names begin with emnist.",
    )


class FolderData(ImageData):
    """Images in a folder for each class; with subfolders train and test, test is the test set."""

    source: Literal["folder"] = Field(description="A folder of folders, one for each class.")
    path: str = Field(min_length=1, description="The folder, relative to the study file.")
    size: ImageSize = Field(
        None, description="[height, width] or one number; needed where the images differ in size."
    )
    colours: Literal["auto", "grey", "rgb"] = Field(
        "auto", description="auto: grey if all images are, else rgb."
    )


VisionName = Literal["MNIST", "FashionMNIST", "KMNIST", "EMNIST", "CIFAR10", "CIFAR100"]
EmnistSplit = Literal["byclass", "bymerge", "balanced", "letters", "digits", "mnist"]


class TorchvisionData(ImageData):
    """A data set of torchvision, with its own test part as the test set."""

    source: Literal["torchvision"] = Field(description="One of torchvision's data sets.")
    name: VisionName = Field(description="Which one.")
    split: EmnistSplit | None = Field(None, description="Of EMNIST; by default balanced.")
    path: str = Field(
        "data", min_length=1, description="torchvision's root folder, relative to the study file."
    )
    download: bool = Field(True, description="Whether it is downloaded where it is not there.")

    @field_validator("test_fraction", mode="before")
    @classmethod
    def _no_fraction(cls, raw: Any) -> Any:
        if raw is not None:
            raise refusal("must be left out: torchvision's own test part is the test set")
        return raw


AnyData = CsvData | SklearnData | IdxData | FolderData | TorchvisionData | UserData
SOURCES: dict[str, type[_Data]] = {
    "csv": CsvData,
    "sklearn": SklearnData,
    "idx": IdxData,
    "folder": FolderData,
    "torchvision": TorchvisionData,
    "path/to/file.py:load": UserData,
}


def _data(raw: Any) -> Any:
    if isinstance(raw, _Data):
        return raw
    if not isinstance(raw, dict):
        raise refusal(f"must be a mapping with a source ({', '.join(SOURCES)})")
    model = data_model(raw)
    if model is None:
        raise unknown(raw.get("source"), list(SOURCES), "source")
    return model.model_validate(raw)


def data_model(raw: Mapping[Any, Any]) -> type[Section] | None:
    """What data with these keys are meant to be; None when they have no source that we know."""
    source = raw.get("source")
    if not isinstance(source, str):
        return None
    return UserData if is_user_function(source) else SOURCES.get(source)


Data = Annotated[AnyData, BeforeValidator(_data, json_schema_input_type=AnyData)]
