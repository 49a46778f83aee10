"""The command that looks at a study's data before anything is trained on them."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.arguments import Json, Png, StudyFile, Svg, Threads
from hpo.cli.output import make_console, print_json, refuse_folder, say, write_page
from hpo.cli.picture_files import check_pictures, write_pictures


def describe(
    study_file: StudyFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with all of it, and figures.")
    ] = None,
    png: Png = None,
    svg: Svg = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Describe a study's data: dirt, duplicates, outliers, distributions, relations, suspect labels.

    The sealed test part is only counted.
    """
    from hpo.studyfile import load_study

    config = load_study(study_file)
    refuse_folder(out, "data.html")
    check_pictures(png, svg)

    import torch

    from hpo.results.describe import describe as describe_data
    from hpo.results.describe_page import panels, render_description
    from hpo.results.describe_text import matters, overview

    console = make_console(as_json)
    torch.set_num_threads(threads)
    description = describe_data(config)
    if out is not None:
        write_page(out, render_description(description))
    pictures = write_pictures(panels(description), png, svg)
    if as_json:
        facts = description.facts
        told = {"overview": overview(facts), "matters": matters(facts), **facts.model_dump(mode="json")}
        print_json(told | {"out": str(out) if out else None, "pictures": list(map(str, pictures))})
        return
    say(console, overview(description.facts))
    for sentence in matters(description.facts):
        say(console, f"  {sentence}")
    if out is not None:
        say(console, f"Page: {out}")
    for path in pictures:
        say(console, f"Picture: {path}")
