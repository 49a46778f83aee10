"""The command that puts finalized studies side by side, and its table in the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Storage, Threads, name_of, opened
from hpo.cli.output import make_console, print_json, refuse_folder, say, write_page

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hpo.results.compare import Comparison
    from hpo.results.compare_text import Row

NAME = 30
"""Characters of a study's name on one line, at most."""


def compare(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Two or more finalized studies.")],
    storage: Storage = DEFAULT_STORAGE,
    threads: Threads = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with all of it, and figures.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put finalized studies side by side: test figures, paired tests, size, speed.

    They must have been tested on the same examples. The test set stays closed.
    """
    names = [name_of(study) for study in studies]
    refuse_folder(out, "compare.html")

    import torch

    from hpo.results import compare as comparing
    from hpo.results.compare_page import render_comparison
    from hpo.results.compare_text import as_json as for_scripts
    from hpo.search.studies import Studies

    console = make_console(as_json)
    torch.set_num_threads(threads)
    stored = Studies(opened(storage, create=False))
    comparison = comparing.compare([stored.study(name) for name in names])
    if out is not None:
        write_page(out, render_comparison(comparison))
    if as_json:
        print_json(for_scripts(comparison) | {"out": str(out) if out else None})
        return
    _show(console, comparison)
    if out is not None:
        say(console, f"Page: {out}")


def _show(console: "Console", comparison: "Comparison") -> None:
    from hpo.results import compare_text

    names = [study.name for study in comparison.studies]
    for table in tables(names, compare_text.rows(comparison), console.width):
        console.print(table)
        console.print()
    for note in compare_text.notes(comparison):
        console.print(note, style="dim", markup=False)
    console.print()
    for pair in comparison.pairs:
        console.print(compare_text.sentence(comparison, pair), markup=False)
    for note in compare_text.about_tests(comparison):
        console.print(note, style="dim", markup=False)


def tables(names: Sequence[str], rows: Sequence["Row"], width: int) -> Iterator["Table"]:
    """One table with a column for each study; where they do not fit into `width`, several."""
    from rich.table import Table
    from rich.text import Text

    for group in _groups(names, rows, width):
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold", pad_edge=False)
        table.add_column("")
        for index in group:
            table.add_column(Text(names[index]), justify="right", overflow="fold", max_width=NAME)
        for row in rows:
            cells = [row.cells[index] for index in group]
            table.add_row(Text(row.label), *(Text(cell.text) for cell in cells))
            if any(cell.note for cell in cells):
                table.add_row("", *(Text(cell.note, "dim") for cell in cells))
        yield table


def _groups(names: Sequence[str], rows: Sequence["Row"], width: int) -> list[list[int]]:
    """Indices of studies whose columns fit side by side."""
    from rich.cells import cell_len

    label = max(cell_len(row.label) for row in rows)
    groups: list[list[int]] = []
    used = 0
    for index, name in enumerate(names):
        texts = [text for row in rows for text in (row.cells[index].text, row.cells[index].note)]
        needed = 3 + max(min(cell_len(name), NAME), *map(cell_len, texts))
        if not groups or used + needed > width:
            groups.append([])
            used = label
        groups[-1].append(index)
        used += needed
    return groups
