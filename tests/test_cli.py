"""The command line: every mistake is one clear message, and every command is documented."""

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
import structlog
import typer
from conftest import ROOT
from searching import search

from hpo import cli
from hpo.search.database import Database
from hpo.studyfile import load_study
from hpo.yamltext import read_yaml

STUDY = """
name: tiny
data: {source: sklearn, name: breast_cancer}
search: {learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}}
training: {epochs: 1}
sampler: random
trials: 2
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Shell:
    """Commands in this process, in a folder of their own."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.capfd = capfd

    def write(self, text: str, name: str = "study.yaml") -> None:
        (self.folder / name).write_text(text)

    def hpo(self, *arguments: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["hpo", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self.capfd.readouterr()
        code = ended.value.code
        return Answer(code if isinstance(code, int) else 0, out, err)

    def refused(self, *arguments: str, code: int = 2) -> str:
        """The one message of a command that ends with exit code `code`."""
        answer = self.hpo(*arguments)
        assert answer.code == code, answer
        assert "Traceback" not in answer.err and answer.err.strip(), answer
        return answer.err


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    handler = signal.getsignal(signal.SIGTERM)
    yield Shell(tmp_path, monkeypatch, capfd)
    signal.signal(signal.SIGTERM, handler)
    structlog.reset_defaults()


@pytest.fixture
def searched(shell: Shell, empty_database: Path) -> Shell:
    """With the study searched, in `hpo.db`."""
    (shell.folder / "hpo.db").write_bytes(empty_database.read_bytes())
    shell.write(STUDY)
    with Database(f"sqlite:///{shell.folder}/hpo.db") as database:
        search(database, load_study(shell.folder / "study.yaml"))
    return shell


def test_a_study_file_that_is_not_there(shell: Shell) -> None:
    message = shell.refused("run", "none.yaml")
    assert message.startswith("hpo: none.yaml") and "there is no such file" in message


def test_a_study_file_that_is_no_yaml(shell: Shell) -> None:
    shell.write("name: [a\nsearch: b: c\n")
    assert "study.yaml" in shell.refused("run", "study.yaml")


def test_all_mistakes_of_a_study_file_are_told_at_once(shell: Shell) -> None:
    shell.write(f"{STUDY}sampler: tpee\nepochs: 3\n".replace("sampler: random\n", ""))
    message = shell.refused("submit", "study.yaml")
    assert "2 mistakes" in message
    assert "did you mean 'tpe'?" in message and "did you mean 'training.epochs'?" in message


@pytest.mark.parametrize("command", ["submit", "run", "worker", "finalize", "compare"])
def test_mistakes_of_a_study_file_are_told_before_torch_is_imported(shell: Shell, command: str) -> None:
    shell.write(STUDY.replace("learning_rate", "learning_rat"))
    program = (
        "import sys\n"
        "from hpo.cli import main\n"
        f"sys.argv = ['hpo', '{command}', 'study.yaml']\n"
        "try:\n    main()\nfinally:\n    print([name for name in ('torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean 'learning_rate'?" in done.stderr, done.stderr
    assert done.stdout == "[]\n"


def test_a_wrong_number_of_lanes(shell: Shell) -> None:
    shell.write(STUDY)
    for command in ("run", "worker"):
        message = shell.refused(command, "study.yaml", "--lanes", "many")
        assert message == "hpo: --lanes: 'many': must be auto or a whole number, 1 or more\n"


@pytest.mark.slow
def test_data_that_are_not_there(shell: Shell) -> None:
    (shell.folder / "table.csv").write_text("a,y\n1,0\n")
    csv = "{source: csv, path: tabel.csv, target: y}"
    shell.write(STUDY.replace("{source: sklearn, name: breast_cancer}", csv))
    message = shell.refused("run", "study.yaml")
    assert "tabel.csv" in message and "did you mean 'table.csv'?" in message


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "not a database URL; valid: sqlite:///file.db, postgresql://"),
        ("mysql://host/db", "'mysql' is not supported; valid: sqlite:///file.db, postgresql://"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///no/such/folder/hpo.db", "there is no folder no/such/folder"),
    ],
)
def test_a_storage_that_cannot_be_one(shell: Shell, url: str, told: str) -> None:
    shell.write(STUDY)
    assert told in shell.refused("run", "study.yaml", "--storage", url)


def test_a_file_that_is_no_database(shell: Shell) -> None:
    shell.write("this is no database, " * 100, "hpo.db")
    message = shell.refused("status", code=1)
    assert "hpo.db" in message and "not a database" in message


def test_a_postgres_that_does_not_answer_is_no_usage_error_and_its_password_is_not_told(shell: Shell) -> None:
    shell.write(STUDY)
    message = shell.refused(
        "submit", "study.yaml", "--storage", "postgresql://u:secret@127.0.0.1:1/x", code=1
    )
    assert "127.0.0.1" in message and "refused" in message.lower() and "secret" not in message


@pytest.mark.slow
def test_an_unknown_study_is_named_with_those_that_there_are(searched: Shell) -> None:
    for command in ("status", "stop", "resume", "finalize", "worker"):
        message = searched.refused(command, "tinny")
        assert "no study 'tinny'; there are tiny" in message
    assert "no study 'tinny'" in searched.refused("extend", "tinny", "--trials", "1")


@pytest.mark.slow
def test_another_configuration_under_the_same_name(searched: Shell) -> None:
    searched.write(STUDY.replace("epochs: 1", "epochs: 2"))
    message = searched.refused("run", "study.yaml")
    assert "another configuration (training.epochs differ)" in message and "another name" in message


def test_watching_needs_a_study(searched: Shell) -> None:
    assert "--watch needs a STUDY" in searched.refused("status", "--watch")


def test_a_database_without_our_tables(shell: Shell) -> None:
    assert "`hpo db init` makes its tables" in shell.refused("status")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ran"], "No such command 'ran'"),
        (["run"], "Missing argument 'STUDY.yaml'"),
        (["run", "study.yaml", "--worker", "2"], "No such option: --worker"),
        (
            ["run", "study.yaml", "--workers", "0"],
            "Invalid value for '--workers': Input should be greater than or equal to 1",
        ),
        (
            ["run", "study.yaml", "--workers", "two"],
            "Invalid value for '--workers': Input should be a valid integer",
        ),
    ],
)
def test_a_wrong_command_line(shell: Shell, arguments: list[str], told: str) -> None:
    assert told in shell.refused(*arguments)


@pytest.mark.slow
def test_status_of_one_study_of_all_and_for_scripts(searched: Shell) -> None:
    line = searched.hpo("status", "tiny").out
    assert line.startswith("tiny: 2/2 finished (2 complete, 0 pruned, 0 failed), 0 running, best 0.")
    assert line.endswith("[searched]\n")
    assert searched.hpo("status").out == searched.hpo("status", "study.yaml").out == line
    one = json.loads(searched.hpo("status", "tiny", "--json").out)
    assert (one["study"], one["state"], one["complete"]) == ("tiny", "searched", 2)
    assert json.loads(searched.hpo("status", "--json").out) == [one]
    assert searched.hpo("status", "tiny", "--watch").out == line.replace(" [searched]", "")


@pytest.mark.slow
def test_stopping_resuming_and_extending(searched: Shell) -> None:
    assert searched.hpo("extend", "tiny", "--trials", "3").out == "tiny: 5 trials now\n"
    assert searched.hpo("stop", "tiny").out == "tiny: stopped\n"
    run = searched.hpo("run", "study.yaml")
    assert run.code == 1 and "study 'tiny' is stopped; `hpo resume tiny` lets it go on" in run.err
    assert searched.hpo("resume", "tiny").out == "tiny: open\n"
    state = json.loads(searched.hpo("status", "tiny", "--json").out)
    assert (state["state"], state["waiting"]) == ("paused", 3)


@pytest.mark.slow
def test_submitting_twice_changes_nothing(shell: Shell) -> None:
    shell.write(STUDY)
    first = shell.hpo("submit", "study.yaml")
    assert first.code == 0
    assert "data: rows: 569 raw, 399 train, 85 validation, 85 test" in first.out
    assert first.out.endswith("tiny: 2 trials; search them with `hpo worker tiny`\n")
    assert shell.hpo("submit", "study.yaml") == first


@pytest.mark.slow
def test_finalizing_twice_is_refused_unless_asked_for(searched: Shell) -> None:
    done = searched.hpo("finalize", "tiny", "--out", "there")
    assert done.code == 0 and done.out.endswith("/there\n")
    assert (searched.folder / "there" / "report.html").is_file()
    again = searched.hpo("finalize", "tiny")
    assert again.code == 1 and "--again opens its test set once more" in again.err
    answer = searched.hpo("finalize", "tiny", "--again", "--json", "--out", "there")
    assert answer.code == 0 and json.loads(answer.out)["out"] == str(searched.folder / "there")
    status = json.loads(searched.hpo("status", "tiny", "--json").out)
    assert status["state"] == "finished"


@pytest.mark.slow
def test_a_results_folder_that_is_not_complete_is_written_again_and_the_test_set_stays_shut(
    searched: Shell,
) -> None:
    for command in (("finalize", "tiny"), ("run", "study.yaml"), ("finalize", "tiny")):
        (searched.folder / "there" / "metrics.json").unlink(missing_ok=True)
        assert searched.hpo(*command, "--out", "there").code == 0, command
        metrics = json.loads((searched.folder / "there" / "metrics.json").read_text())
        assert len(metrics["openings"]) == 1


@pytest.mark.slow
def test_finalizing_writes_a_lost_results_folder_again(searched: Shell) -> None:
    folder = searched.folder / "results" / "tiny"
    first = json.loads(searched.hpo("finalize", "tiny", "--json").out)
    (folder / "model.safetensors").unlink()
    answer = searched.hpo("finalize", "tiny", "--json")
    assert answer.code == 0 and json.loads(answer.out) == first
    assert (folder / "model.safetensors").is_file()
    assert searched.hpo("finalize", "tiny").code == 1


@pytest.mark.slow
def test_tables_of_an_earlier_version_are_refused_by_every_command(searched: Shell) -> None:
    with contextlib.closing(sqlite3.connect(searched.folder / "hpo.db")) as connection:
        connection.execute("ALTER TABLE hpo_leases DROP COLUMN seconds")
    for command in (("status",), ("worker",), ("db", "status"), ("run", "study.yaml")):
        assert "`hpo db upgrade`" in searched.refused(*command, code=1)
    assert searched.hpo("db", "upgrade").code == 0
    assert searched.hpo("db", "status").code == 0


@pytest.mark.slow
def test_a_study_without_a_complete_trial_cannot_be_finalized(shell: Shell) -> None:
    shell.write(STUDY)
    shell.hpo("submit", "study.yaml")
    answer = shell.hpo("finalize", "tiny")
    assert answer.code == 1 and "Traceback" not in answer.err and "tiny" in answer.err


@pytest.mark.slow
def test_the_database_s_own_commands(shell: Shell) -> None:
    assert shell.hpo("db", "init").out == "sqlite:///hpo.db: ready\n"
    assert shell.hpo("db", "init").code == 0
    assert shell.hpo("db", "status").out == "sqlite:///hpo.db: ready, 0 studies\n"
    assert shell.hpo("status").out == "sqlite:///hpo.db: no studies yet\n"


@pytest.mark.slow
def test_the_schema_accepts_the_studies_that_ship(shell: Shell) -> None:
    schema = json.loads(shell.hpo("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    files = list((ROOT / "studies").rglob("*.yaml"))
    assert files
    for file in files:
        jsonschema.validate(read_yaml(file.read_text()), schema)


def commands() -> list[tuple[str, ...]]:
    root = typer.main.get_group(cli.app)
    groups = {name: getattr(command, "commands", {}) for name, command in root.commands.items()}
    nested = [(group, name) for group, commands in groups.items() for name in commands]
    return [(name,) for name in groups if name != "db"] + nested


@pytest.mark.parametrize("command", ["run", "worker"])
def test_a_share_of_a_ray_node_is_refused_without_ray(shell: Shell, command: str) -> None:
    shell.write(STUDY)
    message = shell.refused(command, "study.yaml", "--gpus-per-worker", "0.25")
    assert message == "hpo: --gpus-per-worker: goes only with --ray\n"


def test_a_worker_that_stays_is_refused_on_ray(shell: Shell) -> None:
    assert "worker --stay: goes without --ray" in shell.refused("worker", "--stay", "--ray")


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_and_option_is_documented(command: tuple[str, ...]) -> None:
    here = typer.main.get_group(cli.app)
    for name in command:
        here = here.commands[name]  # type: ignore[assignment]
    assert here.help
    for parameter in here.params:
        assert parameter.name == "storage" or getattr(parameter, "help", None), parameter.name
    assert f"hpo {' '.join(command)}" in (ROOT / "README.md").read_text()


def processor_seconds(*command: str) -> float:
    """What the command takes of processor time, the least of 4: the machine may be busy, or slow."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    costs = []
    for _ in range(4):
        before = used()
        subprocess.run(command, capture_output=True, check=True, env=os.environ)
        costs.append(used() - before)
    return min(costs)


@pytest.mark.slow
def test_help_costs_hardly_more_than_that_of_an_empty_typer_application(tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text(
        "import typer\n\napp = typer.Typer()\n\n\n@app.command()\ndef go() -> None: ...\n\n\napp()\n"
    )
    least = processor_seconds(sys.executable, str(empty), "--help")
    assert processor_seconds(sys.executable, "-m", "hpo.cli", "--help") < 1.6 * least


@pytest.mark.slow
def test_module_is_the_command() -> None:
    module = [sys.executable, "-m", "hpo.cli", "--help"]
    script = [str(Path(sys.executable).parent / "hpo"), "--help"]
    said = [
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (script, module)
    ]
    assert said[0].replace(" ", "") == said[1].replace("python -m hpo.cli", "hpo").replace(" ", "")
