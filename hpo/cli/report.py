"""The command that makes a study's report, finished or not."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Png, Storage, StudyName, Svg, name_of, opened
from hpo.cli.output import make_console, print_json, refuse_folder, say, write_page
from hpo.cli.picture_files import check_pictures, write_pictures


def report(
    study: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("report.html"),
    png: Png = None,
    svg: Svg = None,
    as_json: Json = False,
) -> None:
    """Write a study's report: one page with what was searched and found.

    It is made from the database alone, of a study that goes on too.
    """
    name = name_of(study)
    refuse_folder(out, "report.html")
    check_pictures(png, svg)

    from hpo.results.report import as_json as for_scripts
    from hpo.results.report import render
    from hpo.results.reported import reported
    from hpo.results.sections import draw
    from hpo.search.studies import Studies

    console = make_console(as_json)
    database = opened(storage, create=False)
    told = reported(database, Studies(database).study(name))
    sections = draw(told)
    write_page(out, render(told, sections))
    pictures = write_pictures(sections.panels, png, svg)
    if as_json:
        print_json(for_scripts(told, sections) | {"out": str(out), "pictures": list(map(str, pictures))})
        return
    say(console, f"Page: {out}")
    for path in pictures:
        say(console, f"Picture: {path}")
