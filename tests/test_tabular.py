"""From a text file or arrays to clean rows: what is read, what is reported, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hpo.config import CsvData
from hpo.data.table import RawTable, Table, clean
from hpo.data.tabular import NUMERIC_SHARE, REPORTED_CELLS, parse_csv
from hpo.errors import DataError


def parse(content: str | bytes, target: str = "y", **keys: Any) -> RawTable:
    data = CsvData.model_validate({"source": "csv", "path": "table.csv", "target": target, **keys})
    return parse_csv("table.csv", content.encode() if isinstance(content, str) else content, data)


def cleaned(content: str | bytes, task: Any = "classification", **keys: Any) -> Table:
    return clean(parse(content, **keys), task, keys.get("missing", "median"))


def kinds(table: RawTable | Table) -> list[str]:
    return [finding.kind for finding in table.findings]


def texts(table: RawTable | Table, kind: str) -> list[str]:
    return [finding.text for finding in table.findings if finding.kind == kind]


def refusal(content: str | bytes, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        cleaned(content, **keys)
    assert str(caught.value).startswith("table.csv: ")
    return str(caught.value)


def frame(table: RawTable | Table) -> pd.DataFrame:
    assert isinstance(table.features, pd.DataFrame)
    return table.features


# --- reading


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " ", "   ", ":", "^"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_delimiter_and_byte_order_mark_are_found(delimiter: str, bom: bytes) -> None:
    rows = [("größe", "b", "y"), ("1.5", "-2", "no"), ("3", "4e1", "yes")]
    table = parse(bom + "\n".join(delimiter.join(row) for row in rows).encode())
    assert frame(table).to_dict("list") == {"größe": [1.5, 3.0], "b": [-2.0, 40.0]}
    assert list(table.labels) == ["no", "yes"]


def test_configured_delimiter_wins_over_the_one_that_would_be_found() -> None:
    assert list(frame(parse("a,b;y\n1,2;0\n3,4;1\n", delimiter=";"))) == ["a,b"]


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r"])
def test_a_delimiter_that_cannot_be_one_is_refused(delimiter: str) -> None:
    content = f"b{delimiter}y\n1{delimiter}0\n2{delimiter}1\n"
    told = f"table.csv: {delimiter!r} (data.delimiter) cannot stand between cells"
    assert refusal(content, delimiter=delimiter) == told


def test_a_file_of_delimiters_alone_is_refused() -> None:
    told = "table.csv: has no header: nothing stands between the delimiters 'a'"
    assert refusal("aaa\naa\n", delimiter="a") == told


def test_semicolons_are_found_beside_decimal_commas() -> None:
    table = parse("a;b;y\n" + "".join(f"{i},5;{i};{i % 2}\n" for i in range(30)))
    assert list(frame(table)) == ["a", "b"]
    assert "'0,5'" in texts(table, "categories")[0]


@pytest.mark.parametrize("header", ["a,b,y", "a,b,y,"])
def test_trailing_delimiters_do_not_turn_the_first_column_into_an_index(header: str) -> None:
    table = parse(f"{header}\n1,2,0,\n3,4,1,\n")
    assert frame(table).to_dict("list") == {"a": [1.0, 3.0], "b": [2.0, 4.0]}
    assert list(table.labels) == ["0", "1"]


def test_quoted_cells_may_hold_delimiters_and_line_breaks_and_lines_stay_right() -> None:
    table = parse('a,b,y\n"x, ""1""\nz",1,0\n\nv,oops,1\n' + "u,2,1\n" * 8)
    assert frame(table)["a"][0] == 'x, "1"\nz'
    assert list(table.places[:2]) == [2, 5]
    assert texts(table, "unparsable") == ["line 5, column 'b': 'oops' is no number and counts as missing"]
    assert kinds(table)[0] == "blank"


def test_windows_line_ends_and_spaces_around_cells_are_no_content() -> None:
    table = parse("a, y\r\n 1 , no \r\n2,no\r\n")
    assert frame(table)["a"].tolist() == [1.0, 2.0]
    assert list(table.labels) == ["no", "no"]


def test_short_rows_are_filled_with_missing_cells() -> None:
    assert frame(parse("y,a,b\n0,1,2\n1,3\n"))["b"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\n", "is empty"),
        (b"a,b,y\n", "has a header with 3 columns, but no rows"),
        (b"a,b,y\n1,2,0\n1,2,0,5\n", "line 3 has 4 cells, but the header has 3"),
        (b"a,b,y\n1,2,0\n\n1,2,0,5,6,7\n", "line 4 has 6 cells, but the header has 3"),
        (b'a,b,y\n"1\n\n",2,0\n1,2,0,5,6\n', "line 5 has 5 cells, but the header has 3"),
        (b"a b y\n1 2 0\n1 2 0 5 6\n", "line 3 has 5 cells, but the header has 3"),
        (b'a,b,y\n1,"2,0\n3,4,1\n', "quote"),
        (b"a,a,b,y,b\n1,2,3,0,4\n", "more than one column is called 'a', 'b'"),
        (b"a,y\n1,0\n\xff,1\n", "is not UTF-8: byte 0xff at offset 8 (line 3)"),
        (b"a,y\n1,0\n\0,1\n", "NUL byte at offset 8 (line 3)"),
        ("a,y\n1,0\n".encode("utf-16"), "is UTF-16"),
    ],
)
def test_files_that_are_no_table_are_refused_with_the_place(content: bytes, expected: str) -> None:
    assert expected in refusal(content)


# --- columns


def test_a_column_is_numeric_if_most_cells_are_numbers() -> None:
    numbers = round(NUMERIC_SHARE * 10)
    numeric = parse("a,y\n" + "1,0\n" * numbers + "x,1\n" * (10 - numbers))
    assert frame(numeric)["a"].isna().sum() == 10 - numbers
    categorical = parse("a,y\n" + "1,0\n" * (numbers - 1) + "x,1\n" * (11 - numbers))
    assert set(frame(categorical)["a"]) == {"1", "x"}


def test_numbers_are_categories_where_the_configuration_says_so() -> None:
    assert frame(parse("a,y\n1,0\n2,1\n", categorical=["a"]))["a"].tolist() == ["1", "2"]


@pytest.mark.parametrize("cell", ["", " ", "NA", "NaN", "?", "null", "N/A"])
def test_marks_of_missing_cells_are_missing_and_no_dirt(cell: str) -> None:
    table = parse(f"a,b,y\n1,u,0\n{cell},{cell},1\n" + "2,v,1\n" * 3)
    assert (
        frame(table)["a"].isna().tolist() == frame(table)["b"].isna().tolist() == [False, True, *[False] * 3]
    )
    assert "unparsable" not in kinds(table)


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e39", "1,5x", "0x1F"])
def test_cells_that_are_no_finite_numbers_are_reported_with_line_and_value(cell: str) -> None:
    table = parse("a;y\n" + "1;0\n" * 9 + f"{cell};1\n")
    assert np.isnan(frame(table)["a"].iloc[9])
    assert texts(table, "unparsable") == [f"line 11, column 'a': {cell!r} is no number and counts as missing"]


def test_many_unparsable_cells_are_listed_up_to_a_bound_and_then_counted() -> None:
    table = parse("a,y\n" + "1,0\n" * 970 + "x,1\n" * 30)
    found = texts(table, "unparsable")
    assert len(found) == REPORTED_CELLS + 1
    assert found[-1] == f"column 'a': {30 - REPORTED_CELLS} more cells are no numbers and count as missing"


def test_zeros_are_missing_where_the_configuration_says_so_and_only_there() -> None:
    table = parse("a,b,y\n0,0,0\n0.0,1,1\n5,2,0\n", zero_is_missing=["a"])
    assert frame(table)["a"].isna().tolist() == [True, True, False]
    assert frame(table)["b"].tolist() == [0.0, 1.0, 2.0]
    assert texts(table, "zero") == ["column 'a': 2 zeros count as missing"]


def test_ignored_columns_are_left_out() -> None:
    assert list(frame(parse("id,a,y\n1,2,0\n2,2,1\n", ignore=["id"]))) == ["a"]


def test_a_column_that_counts_the_rows_is_reported() -> None:
    table = parse(",a,y\n0,5,0\n1,6,1\n2,6,1\n")
    assert texts(table, "row_number")[0].startswith("column 'Unnamed: 0' only counts the rows")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"target": "outcom"}, "no column 'outcom' (data.target); did you mean 'Outcome'? It has Glucose"),
        ({"target": "zzz"}, "no column 'zzz' (data.target); it has Glucose, sex, Outcome"),
        ({"zero_is_missing": ["glucos"]}, "'glucos' (data.zero_is_missing); did you mean 'Glucose'?"),
        ({"ignore": ["Outcome"]}, "no feature column 'Outcome' (data.ignore)"),
        ({"categorical": ["age"]}, "no feature column 'age' (data.categorical)"),
        ({"zero_is_missing": ["sex"]}, "column 'sex' (data.zero_is_missing) is not numeric: 2 of 2 cells"),
        ({"zero_is_missing": ["Glucose"], "ignore": ["Glucose"]}, "data.zero_is_missing and in data.ignore"),
        ({"ignore": ["Glucose", "sex"]}, "no feature column is left"),
    ],
)
def test_column_names_that_do_not_fit_are_refused(keys: dict[str, Any], expected: str) -> None:
    message = refusal("Glucose,sex,Outcome\n1,m,0\n2,f,1\n", **({"target": "Outcome"} | keys))
    assert expected in message


# --- labels and rows


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),
        (["1.0", "0", "1"], ("0", "1"), [1, 0, 1]),
        (["yes", "no", "None"], ("None", "no", "yes"), [2, 1, 0]),
        (["01", "1", "2"], ("01", "1", "2"), [0, 1, 2]),
        (["-1", "0.5", "1"], ("-1", "0.5", "1"), [0, 1, 2]),
    ],
)
def test_classes_are_sorted_labels(labels: list[str], classes: tuple[str, ...], codes: list[int]) -> None:
    table = cleaned("a,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels)))
    assert table.classes == classes
    assert table.targets.dtype == np.int64
    assert table.targets.tolist() == codes


def test_missing_labels_are_refused_with_their_lines() -> None:
    assert "2 labels are missing, on lines 3, 5" in refusal("a,y\n1,0\n2,\n3,1\n4,NaN\n")


def test_one_class_only_is_refused() -> None:
    assert "all 2 rows have the label '1'" in refusal("a,y\n1,1\n2,1.0\n")


@pytest.mark.parametrize("cell", ["abc", "inf"])
def test_regression_targets_that_are_no_numbers_are_refused_with_the_line(cell: str) -> None:
    assert f"line 3: the target {cell!r} is no finite number" in refusal(
        f"a,y\n1,1\n2,{cell}\n", task="regression"
    )


def test_rows_with_missing_cells_are_dropped_and_counted() -> None:
    table = cleaned("a,b,y\n1,u,0\n,u,1\n3,,0\n4,v,1\n", missing="drop")
    assert table.targets.tolist() == [0, 1]
    assert table.raw_rows == 4
    assert texts(table, "dropped") == ["2 of 4 rows have missing cells and were dropped (lines 3, 4)"]


def test_dropping_every_row_is_refused_with_the_emptiest_column() -> None:
    message = refusal("a,b,y\n1,,0\n,2,1\n,3,1\n", missing="drop")
    assert "leaves no row: column 'a' is missing in 2 of 3 rows" in message


def test_missing_cells_are_counted_with_what_fills_them_in() -> None:
    table = cleaned("a,b,y\n1,u,0\n,u,1\n3,,0\n4,v,1\n", missing="mean")
    assert texts(table, "imputed") == [
        "column 'a': 1 of 4 cells missing, filled in with the mean of the training part",
        "column 'b': 1 of 4 cells missing, filled in with the most_frequent of the training part",
    ]


def test_constant_columns_stay_and_empty_ones_go_both_reported() -> None:
    table = cleaned("a,b,c,y\n1,7,,0\n2,7,,1\n", missing="drop")
    assert list(frame(table)) == ["a", "b"]
    assert (len(texts(table, "constant")), len(texts(table, "empty"))) == (1, 1)


def test_duplicate_rows_are_reported_and_stay() -> None:
    table = cleaned("a,b,y\n1,u,0\n2,u,1\n1,u,0\n1,u,1\n")
    assert texts(table, "duplicate") == ["1 row repeats an earlier one, label included (line 4)"]
    assert len(table.targets) == 4


def test_a_text_column_with_a_value_for_each_row_is_reported() -> None:
    table = parse("name,y\n" + "".join(f"person {i},{i % 2}\n" for i in range(40)))
    assert "`ignore: [name]` leaves it out" in texts(table, "categories")[0]


def test_the_six_dirty_cells_of_dataset_csv_are_reported_and_cost_six_rows(shared_data: Path) -> None:
    table = cleaned((shared_data / "dataset.csv").read_bytes(), target="target", missing="drop")
    dirt = texts(table, "unparsable")
    assert len(dirt) == 6
    assert "line 762, column 'f2': 'f' is no number and counts as missing" in dirt
    assert "line 767, column 'f4': 'a' is no number and counts as missing" in dirt
    assert (table.raw_rows, len(table.targets), table.classes) == (766, 760, ("0", "1"))
    assert "lines 762, 763, 764, 765, 766, 767" in texts(table, "dropped")[0]


def test_a_header_longer_than_any_sample_is_read_whole() -> None:
    names = [f"{index} is a name of two thousand characters" + " and more" * 220 for index in range(100)]
    table = parse(",".join([*names, "y"]) + "\n" + "1," * 100 + "0\n" + "2," * 100 + "1\n")
    assert list(frame(table)) == names


def test_a_quote_that_swallows_a_large_file_is_refused() -> None:
    assert "quote" in refusal('a,b,y\n"1,2,0\n' + "3,4,1\n" * 50_000)
