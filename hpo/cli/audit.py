"""The command that asks what could be wrong with a study."""

from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.arguments import DEFAULT_STORAGE, Json, Storage, StudyName, Threads, name_of, opened
from hpo.cli.output import make_console, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from hpo.results.findings import Finding

_HEADINGS = {"warning": "Could be wrong", "unchecked": "Not checked", "fine": "Checked, and fine"}


def audit(
    study: StudyName,
    storage: Storage = DEFAULT_STORAGE,
    threads: Threads = 1,
    retrain: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Pruned trials to train to their end, to judge the pruner; 0: none.",
            show_default="6, if that takes minutes",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if there is a warning.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what could be wrong with a study: leakage, space, budget, pruner, test.

    The test set stays closed, and nothing is written to the study.
    """
    name = name_of(study)

    import torch

    from hpo import live
    from hpo.results.audit import audit as audit_study
    from hpo.results.audit import subject_of
    from hpo.search.studies import Studies

    console = make_console(as_json)
    torch.set_num_threads(threads)
    database = opened(storage, create=False)
    subject = subject_of(database, Studies(database).study(name))
    with live.final_progress(console) as progress:
        findings = audit_study(subject, retrain, progress)
    warnings = [finding for finding in findings if finding.severity == "warning"]
    if as_json:
        told = [vars(finding) for finding in findings]
        print_json({"study": name, "warnings": len(warnings), "findings": told})
    else:
        _show(console, name, findings)
    if strict and warnings:
        raise typer.Exit(1)


def _show(console: "Console", name: str, findings: "Sequence[Finding]") -> None:
    import textwrap

    from rich.text import Text

    def indented(text: str) -> str:
        return textwrap.fill(text, console.width, initial_indent="    ", subsequent_indent="    ")

    for severity, heading in _HEADINGS.items():
        found = [finding for finding in findings if finding.severity == severity]
        if not found:
            continue
        say(console, f"{name}: {heading.lower()} ({len(found)})")
        for finding in found:
            style = "bold yellow" if severity == "warning" else "dim" if severity == "unchecked" else "green"
            console.print(Text(f"  {finding.name}", style))
            console.print(Text(indented(finding.sentence)))
            if finding.advice:
                console.print(Text(indented(finding.advice), "dim"))
