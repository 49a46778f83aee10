"""The command that hands a finished study's model over."""

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Storage, StudyName, Threads, name_of, opened
from hpo.cli.output import make_console, say
from hpo.errors import UsageError


def export(
    study: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    threads: Threads = 1,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the bundle.")] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Add model.onnx, compared with the network by onnxruntime.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that lies in DIR.")] = False,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Print just the winner's parameters.")
    ] = False,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="yaml|json|toml|env|args", help="Of --config-only.", show_default="yaml"
        ),
    ] = None,
) -> None:
    """Write a finalized study's bundle: the model and all that it needs to run elsewhere.

    It is copied from the results folder, or else retrained; the test set stays closed.
    """
    if config_only == (out is not None):
        raise UsageError("export: give either --out DIR or --config-only")
    if config_only and (onnx or force):
        raise UsageError("--config-only writes no bundle: it goes without --onnx and --force")
    if form is not None and not config_only:
        raise UsageError("--format: is of --config-only")
    name = name_of(study)
    if out is None:
        _print_parameters(name, storage, form or "yaml")
        return
    _write_bundle(name, storage, threads, out, onnx, force)


def _print_parameters(name: str, storage: str, form: str) -> None:
    from hpo.results.handover import best_parameters
    from hpo.results.parameter_text import as_text
    from hpo.search.studies import Studies

    record = Studies(opened(storage, create=False)).study(name)
    print(as_text(best_parameters(record), form), end="")


def _write_bundle(name: str, storage: str, threads: int, out: Path, onnx: bool, force: bool) -> None:
    import torch

    from hpo import live
    from hpo.results.handover import hand_over
    from hpo.search.studies import Studies

    console = make_console()
    torch.set_num_threads(threads)
    database = opened(storage, create=False)
    record = Studies(database).study(name)
    with live.final_progress(console) as progress:
        target = hand_over(database, record, out, force, onnx, progress)
    say(console, f"Bundle: {target}")
