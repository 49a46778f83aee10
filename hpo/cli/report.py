"""The command that makes a study's report, finished or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Storage, StudyName, name_of, opened
from hpo.cli.output import make_console, print_json, refuse_folder, say, write_page
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.results.pictures import Kind
    from hpo.results.sections import Sections


def report(
    study: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("report.html"),
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write each figure there as a PNG (extra images).")
    ] = None,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write each figure there as an SVG (extra images)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a study's report: one page with what was searched and found.

    It is made from the database alone, of a study that goes on too.
    """
    name = name_of(study)
    refuse_folder(out, "report.html")

    from hpo.results.report import as_json as for_scripts
    from hpo.results.report import render
    from hpo.results.reported import reported
    from hpo.results.sections import draw
    from hpo.search.studies import Studies

    console = make_console(as_json)
    folders: dict[Kind, Path | None] = {"png": png, "svg": svg}
    _check_pictures(folders)
    database = opened(storage, create=False)
    told = reported(database, Studies(database).study(name))
    sections = draw(told)
    write_page(out, render(told, sections))
    pictures = _write_pictures(folders, sections)
    if as_json:
        print_json(for_scripts(told, sections) | {"out": str(out), "pictures": list(map(str, pictures))})
        return
    say(console, f"Page: {out}")
    for path in pictures:
        say(console, f"Picture: {path}")


def _check_pictures(folders: "dict[Kind, Path | None]") -> None:
    """Before the work: whether pictures can be drawn and written."""
    if not any(folders.values()):
        return
    from hpo.results.pictures import check_pictures

    check_pictures()
    for kind, folder in folders.items():
        if folder is not None and folder.is_file():
            raise UsageError(f"--{kind}: {folder} is a file; must be a folder")


def _write_pictures(folders: "dict[Kind, Path | None]", sections: "Sections") -> list[Path]:
    if not any(folders.values()):
        return []
    from hpo.results.pictures import write_panels

    return [
        path
        for kind, folder in folders.items()
        if folder is not None
        for path in write_panels(sections.panels, folder, kind)
    ]
