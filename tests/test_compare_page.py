"""How a comparison is shown: its page, its table in the terminal, its JSON."""

import json
import re

import pytest
import report_example as example
from markupsafe import escape
from rich.console import Console

from hpo.cli.compare import tables
from hpo.results.compare import Comparison
from hpo.results.compare_page import render_comparison
from hpo.results.compare_text import about_tests, as_json, notes, rows, sentence


def told(comparison: Comparison) -> list[str]:
    return [sentence(comparison, pair) for pair in comparison.pairs]


@pytest.fixture(scope="module", params=[["a", example.HOSTILE, "c"], []], ids=["classes", "numbers"])
def made(request: pytest.FixtureRequest) -> Comparison:
    return example.comparison(request.param)


@pytest.mark.slow
def test_the_page_is_one_file_that_loads_nothing_and_escapes_names(made: Comparison) -> None:
    page = render_comparison(made)
    assert page.count("* plotly.js v") == 1
    assert "default-src 'none'" in page and example.HOSTILE not in page
    assert not re.search(r'(src|href)="(?!#|data:image/png)', page.partition("<script")[0])
    for text in (*told(made), *notes(made), *about_tests(made)):
        assert escape(text) in page


def test_json_has_all_figures(made: Comparison) -> None:
    content = json.loads(json.dumps(as_json(made)))
    assert [study["study"] for study in content["studies"]] == ["narrow", "wide", "deep"]
    assert content["studies"][0]["latency"]["256"]["median"] == 12.3
    assert {"flops", "parameters", "training_seconds", "test", "seeds"} <= content["studies"][0].keys()
    assert all(0 <= pair["p"] <= pair["p_corrected"] <= 1 for pair in content["pairs"])
    assert "images" not in json.dumps(content)


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal_and_names_are_shown_as_they_are(width: int) -> None:
    names = ("[red]narrow", "n" * 100, *(f"study-{number}" for number in range(6)))
    comparison = example.comparison(["a", "b", "c"], names)
    console = Console(width=width, record=True, color_system=None)
    for table in tables(names, rows(comparison), width):
        console.print(table)
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    assert "[red]narrow" in text and text.count("n" * 30) == 3 and "…" not in text
    assert text.count("test accuracy") == text.count("parameters") > 1
    assert text.count("0.21 ms") == len(names)
