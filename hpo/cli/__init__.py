"""Every command: the only place that reads argv or prints. Heavy imports wait until a command needs them.

    study_files   run, submit, schema
    workers       worker
    studies       status, stop, resume, extend
    results       finalize
    compare       compare
    report        report
    audit         audit
    export        export
    predict       predict
    dashboard     dashboard, dashboard set-password
    explain       explain
    describe      describe
    databases     db init, db status, db upgrade

`placing` has where workers run, `arguments` has what several of them take, `output` where they print to.
"""

import atexit
import gc
import os
import signal
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from hpo.cli.audit import audit
from hpo.cli.compare import compare
from hpo.cli.dashboard import dashboard
from hpo.cli.databases import db
from hpo.cli.describe import describe
from hpo.cli.explain import explain
from hpo.cli.export import export
from hpo.cli.placing import RayCommand
from hpo.cli.predict import predict
from hpo.cli.report import report
from hpo.cli.results import finalize
from hpo.cli.studies import extend, resume, status, stop
from hpo.cli.study_files import run, schema, submit
from hpo.cli.workers import worker
from hpo.errors import HpoError
from hpo.search.processes import LAUNCHER


class _Group(TyperGroup):
    """Errors as one clear message, with the exit codes that the README lists."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HpoError as error:
            print(f"hpo: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if LAUNCHER not in os.environ:  # which tells the user itself
                print(
                    "hpo: interrupted, nothing is lost; the same command goes on from here", file=sys.stderr
                )
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Group,
    name="hpo",
    help="Hyperparameter optimization for PyTorch: search, retrain, test once, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=RayCommand)(run)
app.command(cls=RayCommand)(worker)
for command in (
    submit,
    status,
    stop,
    resume,
    extend,
    finalize,
    audit,
    compare,
    report,
    explain,
    export,
    predict,
    describe,
    schema,
):
    app.command()(command)
app.add_typer(db, name="db")
app.add_typer(dashboard, name="dashboard")


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: workers hand their trials back
    # torch and others make 300,000 objects that stay. To look for garbage among them every 700 objects, and
    # when the process ends, takes 0.5 of the 2.2 s of a worker's imports and its end.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    app()
