"""Raw rows and images, as they come, through a bundle: no row is lost, and what is wrong is named."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Desk
from PIL import Image
from test_bundle import made_in

import hpo
from hpo.errors import DataError
from hpo.results.bundle import Bundle

TABLE = "age;extra;colour\n30;x;red\n;x;blue\nabc;x;red\n41;x;green\n0;x;?\n"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return hpo.load_bundle(made_in(tmp_path_factory.mktemp("table")).out)


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    data = {"source": "csv", "path": "table.csv", "target": "target", "missing": "drop"}
    data |= {"zero_is_missing": ["age"]}
    return hpo.load_bundle(made_in(tmp_path_factory.mktemp("dropping"), data=data).out)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of images of 6 x 5 pixels: red ones and blue ones."""
    folder = tmp_path_factory.mktemp("coloured")
    for name, colour in (("red", (200, 10, 10)), ("blue", (10, 10, 200))):
        place = folder / "study" / "images" / name
        place.mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (5, 6), tuple(part + number for part in colour)).save(place / f"{number}.png")
    data = {"source": "folder", "path": "images"}
    training = {"epochs": 30, "batch_size": 8}
    return hpo.load_bundle(made_in(folder, data=data, training=training).out)


def written(folder: Path, text: str, name: str = "in.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.slow
def test_dirty_rows_are_filled_in_and_said(table: Bundle, tmp_path: Path) -> None:
    said = table.predict(written(tmp_path, TABLE))
    assert said["line"].tolist() == [2, 3, 4, 5, 6]
    assert said["predicted"].isin(["no", "yes"]).all()
    np.testing.assert_allclose(said[["p(no)", "p(yes)"]].sum(axis=1), 1.0)
    assert said["note"].tolist() == [
        "",
        "column 'age': missing, filled in",
        "column 'age': 'abc' is no number, filled in",
        "column 'colour': unknown category 'green', taken as none of those known",
        "column 'colour': missing, filled in",
    ]


@pytest.mark.slow
def test_rows_that_the_study_dropped_stay_without_a_prediction(dropping: Bundle, tmp_path: Path) -> None:
    said = dropping.predict(written(tmp_path, TABLE))
    assert said["predicted"].notna().tolist() == [True, False, False, True, False]
    assert said["p(no)"].isna().tolist() == [False, True, True, False, True]
    assert said["note"].tolist()[1] == "column 'age': missing, the study left such rows out"
    assert said["note"].tolist()[4].startswith("column 'age': 0 means missing, the study left")


def test_a_data_frame_says_the_same_as_the_file(table: Bundle, tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    frame = pd.read_csv(path, sep=";", na_values="?").set_index(pd.Index(list("abcde")))
    from_frame, from_file = table.predict(frame), table.predict(path)
    assert from_frame.index.tolist() == list("abcde")
    pd.testing.assert_frame_equal(from_frame.reset_index(drop=True), from_file.drop(columns=["file", "line"]))


@pytest.mark.slow
def test_numbers_that_are_categories_are_known_again_as_floats(tmp_path: Path) -> None:
    text = "code,target\n" + "".join(f"{row % 3 + 1},{'yes' if row % 3 else 'no'}\n" for row in range(60))
    data = {"source": "csv", "path": "codes.csv", "target": "target", "categorical": ["code"]}
    (tmp_path / "study").mkdir()
    written(tmp_path / "study", text, "codes.csv")
    bundle = hpo.load_bundle(made_in(tmp_path, data=data).out)
    said = bundle.predict(pd.DataFrame({"code": [1.0, np.nan, 2.0, 2.5]}))
    assert said["note"].str.contains("unknown category").tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour\nred\n", r"in\.csv: has no column 'age'; it has colour"),
        ("Age,colour\n3,red\n", r"has no column 'age'; did you mean 'Age'\? It has Age, colour"),
        ("a,b\n1,2\n", r"has no columns 'age', 'colour'; it has a, b"),
        ("age,colour\n", r"in\.csv: has a header with 2 columns, but no rows below it"),
        ("age,colour\n1,red,3\n", r"in\.csv: line 2 has 3 cells, but the header has 2"),
    ],
)
def test_a_table_that_does_not_fit_is_named(table: Bundle, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table.predict(written(tmp_path, text))


def test_other_things_than_tables_are_named(table: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv: there is no such file"):
        table.predict(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a folder; the model takes CSV files"):
        table.predict(tmp_path)
    with pytest.raises(DataError, match="an array has no column names; the model takes age, colour"):
        table.predict(np.zeros((3, 2)))


@pytest.mark.slow
def test_images_are_predicted_file_by_file(coloured: Bundle, tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    Image.new("RGB", (5, 6), (205, 12, 14)).save(tmp_path / "some" / "a.png")
    Image.new("RGB", (5, 6), (12, 15, 204)).save(tmp_path / "some" / "b.bmp")
    Image.new("RGB", (6, 5)).save(tmp_path / "some" / "c.png")
    (tmp_path / "some" / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "some" / "e.txt").write_text("no image")
    said = coloured.predict(tmp_path / "some")
    assert [Path(name).name for name in said["file"]] == ["a.png", "b.bmp", "c.png", "d.png", "e.txt"]
    assert said["predicted"].tolist() == ["red", "blue", None, None, None]
    notes = said["note"].tolist()
    assert notes[:2] == ["", ""]
    assert notes[2].endswith("c.png: is 5 x 6 pixels; the network takes 6 x 5")
    assert all("cannot be read as an image" in note for note in notes[3:])
    assert coloured.predict([tmp_path / "some" / "b.bmp"])["predicted"].tolist() == ["blue"]


def test_images_as_arrays_must_fit(coloured: Bundle) -> None:
    pixels = np.zeros((2, 3, 6, 5), np.uint8)
    pixels[:, 0] = 205
    assert coloured.predict(pixels)["predicted"].tolist() == ["red", "red"]
    with pytest.raises(DataError, match=r"shape \[2, 3, 5, 6\]; the network takes images of 3 x 6 x 5"):
        coloured.predict(pixels.transpose(0, 1, 3, 2))
    with pytest.raises(DataError, match="is an array of float64"):
        coloured.predict(pixels.astype(float))


def test_arrays_are_predicted_from_their_files(coloured: Bundle, table: Bundle, tmp_path: Path) -> None:
    pixels = np.zeros((3, 3, 6, 5), np.uint8)
    pixels[:2, 0], pixels[2, 2] = 205, 205
    np.save(tmp_path / "some.npy", pixels)
    np.save(tmp_path / "one.npy", pixels[2:])
    said = coloured.predict([tmp_path / "some.npy", tmp_path / "one.npy"])
    assert [Path(name).name for name in said["file"]] == ["some.npy"] * 3 + ["one.npy"]
    assert said["line"].tolist() == [1, 2, 3, 1]
    assert said["predicted"].tolist() == ["red", "red", "blue", "blue"]
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "pickled.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    for name in ("text", "pickled"):
        with pytest.raises(DataError, match=rf"{name}\.npy: cannot be read as an array"):
            coloured.predict(tmp_path / f"{name}.npy")
    with pytest.raises(DataError, match=r"absent\.npy: there is no such file"):
        coloured.predict(tmp_path / "absent.npy")
    with pytest.raises(DataError, match=r"some\.npy: an array has no column names; the model takes"):
        table.predict(tmp_path / "some.npy")


@pytest.mark.slow
def test_the_command_writes_csv_or_json_and_refuses_by_name(
    table: Bundle, dropping: Bundle, tmp_path: Path
) -> None:
    desk = Desk(tmp_path)
    written(tmp_path, TABLE)
    done = desk.hpo("predict", dropping.folder, "in.csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["line"] for row in rows] == ["2", "3", "4", "5", "6"]
    assert [bool(row["predicted"]) for row in rows] == [True, False, False, True, False]
    assert "3 of 5 rows have no prediction; their note says why" in done.stderr
    desk.hpo("predict", table.folder, "in.csv", "--json", "--out", "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["classes"] == ["no", "yes"] and len(content["predictions"]) == 5
    assert content["predictions"][0]["probabilities"].keys() == {"no", "yes"}
    written(tmp_path, "age,colour\n,red\n", "none.csv")
    refused = desk.hpo("predict", dropping.folder, "none.csv", code=2)
    assert "no row can be predicted; the first: none.csv, line 2: column 'age': missing" in refused.stderr
    assert refused.stdout == ""
    written(tmp_path, "", "model.safetensors")
    assert "it has no manifest.json" in desk.hpo("predict", ".", "in.csv", code=2).stderr
