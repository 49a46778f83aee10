"""The command that shows what a model goes by."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Png, Storage, Svg, name_of, opened
from hpo.cli.output import make_console, print_json, refuse_folder, say, write_page
from hpo.cli.picture_files import check_pictures, write_pictures
from hpo.errors import HpoError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from hpo.results.subject import Subject


def explain(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|BUNDLE", help="A finalized study's name, its study file, or a results folder."
        ),
    ],
    storage: Storage = DEFAULT_STORAGE,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Torch threads of this process.", show_default="all cores")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For a bundle: a CSV file, a .npy file, or a folder of images to explain it by.",
        ),
    ] = None,
    targets: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="For a bundle: the truth of an array.")
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:build", help="For a bundle: what built a network of your own."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("explain.html"),
    png: Png = None,
    svg: Svg = None,
    as_json: Json = False,
) -> None:
    """Show what a model goes by: attributions, pictures of classes, and whether they can be trusted.

    Of a study, the winner is trained anew without the examples that explain it; the test set stays closed. A
    bundle's model is explained by examples that you give.
    """
    bundle = (Path(study) / "model.safetensors").is_file()
    _check(study, bundle, data, targets, architecture)
    name = study if bundle else name_of(study)
    refuse_folder(out, "explain.html")
    check_pictures(png, svg)

    import torch

    from hpo.results.explain import explain as explained
    from hpo.results.explain_json import as_json as for_scripts
    from hpo.results.explain_page import panels, render_explanation
    from hpo.results.explain_text import matters, verdict

    console = make_console(as_json)
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if data is not None:
        subject = _of_bundle(Path(study), data, targets, architecture)
    else:
        subject = _of_study(name, storage, console)
    with console.status("explaining") as status:
        found = explained(subject, lambda doing: status.update(f"explaining: {doing}"))
    write_page(out, render_explanation(found))
    pictures = write_pictures(panels(found), png, svg)
    if as_json:
        print_json(for_scripts(found) | {"out": str(out), "pictures": list(map(str, pictures))})
        return
    for sentence in (*matters(found), verdict(found)):
        say(console, sentence)
    say(console, f"Page: {out}")
    for path in pictures:
        say(console, f"Picture: {path}")


def _check(
    study: str, bundle: bool, data: Path | None, targets: Path | None, architecture: str | None
) -> None:
    if bundle and data is None:
        raise UsageError(
            f"--data: is needed, since the bundle {study} has no examples to explain its model by"
        )
    named = {"data": data, "targets": targets, "architecture": architecture}
    if not bundle and (given := [f"--{name}" for name, value in named.items() if value is not None]):
        raise UsageError(f"{given[0]}: is for a bundle, a folder with model.safetensors; {study} is none")


def _of_bundle(folder: Path, data: Path, targets: Path | None, architecture: str | None) -> "Subject":
    from hpo.results.bundle import load_bundle
    from hpo.results.bundle_subject import bundle_subject

    return bundle_subject(load_bundle(folder, architecture), data, targets)


def _of_study(name: str, storage: str, console: "Console") -> "Subject":
    from hpo import live
    from hpo.data.prepare import prepare
    from hpo.results.conclude import recorded
    from hpo.results.study_subject import study_subject
    from hpo.search.studies import Studies
    from hpo.search.submission import check_data, config_of

    record = Studies(opened(storage, create=False)).study(name)
    known = recorded(record)
    if known is None:
        raise HpoError(f"study {name!r} is not finalized, so there is no winner yet: `hpo finalize {name}`")
    config = config_of(record)
    prepared = prepare(config)
    check_data(record, prepared.fingerprint)
    with live.final_progress(console) as progress:
        return study_subject(config, prepared, known.result, progress)
