"""Workers on a Ray cluster: three nodes on this machine, on loopback, with a token."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from checker import check, read_logs
from commands import Desk, alive, children, eventually
from conftest import ROOT, study_of
from faults import stock_storage, study_record
from optuna.trial import TrialState
from servers import Postgres
from standin import value

from hpo.errors import HpoError, UsageError
from hpo.search.database import Database
from hpo.search.leases import Leases, Watch
from hpo.search.processes import RESTARTS
from hpo.search.ray_actor import Report, WorkerActor
from hpo.search.ray_cluster import Node, Place, parse_address
from hpo.search.ray_workers import RayJob, RayWorkers, on_ray
from hpo.search.studies import Studies

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PASSWORD = "not-for-ray"
OWN = """
import torch
from sklearn.datasets import load_wine
from torch import nn


def load():
    return load_wine(return_X_y=True)


def build(input_shape, classes, *, hidden=8):
    return nn.Sequential(nn.Linear(*input_shape, hidden), nn.ReLU(), nn.Linear(hidden, classes))
"""
LONG = """
name: long
data: {source: mine.py:load}
architecture: mine.py:build
search: {hidden: {low: 4, high: 400}}
training: {epochs: 2000, batch_size: 8}
sampler: random
trials: 12
final: {top: 1, seeds: 1}
"""
QUICK = LONG.replace("long", "quick").replace("2000", "2").replace("trials: 12", "trials: 3")


def node_in(folder: str) -> dict[str, Any]:
    """How to start a node whose files lie apart from those of the others, as on a machine of its own."""
    return {
        "num_cpus": 2,
        "num_gpus": 1,
        "object_store_memory": 80 * 2**20,
        "include_dashboard": False,
        "temp_dir": tempfile.mkdtemp(dir=folder),
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes; what they do not give back is left for dead with them."""
    folder = tempfile.mkdtemp(prefix="hpo-ray-")
    with pytest.MonkeyPatch.context() as patch:
        for name, setting in {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}",
            "HPO_CACHE": f"{folder}/cache",
        }.items():
            patch.setenv(name, setting)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args=node_in(folder))
        try:
            for _ in range(2):
                started.add_node(**node_in(folder))
            yield started
        finally:
            started.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def files_of(cluster: Any) -> str:
    """The folder with the files of all its nodes."""
    return str(Path(cluster.head_node.get_temp_dir_path()).parent)


@pytest.fixture(scope="module")
def job(cluster: Any) -> Iterator[RayJob]:
    """A job of this process."""
    with on_ray(cluster.address, Place(), [], sqlite=False) as made:
        yield made


@pytest.fixture
def desk(cluster: Any, postgres: Postgres, tmp_path: Path) -> Desk:
    """A desk with a database on Postgres, whose URL has a password, and a user's own file."""
    made = Desk(tmp_path, postgres.database().replace("hpo@", f"hpo:{PASSWORD}@"))
    (tmp_path / "mine.py").write_text(OWN)
    return made


def descendants(pid: int) -> set[int]:
    below = set(children(pid))
    return below.union(*(descendants(child) for child in below))


def on_node(node: Any) -> set[int]:
    (raylet,) = node.all_processes["raylet"]
    return descendants(raylet.process.pid)


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def command_lines() -> str:
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(file.read_bytes().decode(errors="replace"))
    return "\n".join(lines)


def listening(pids: set[int]) -> set[str]:
    """The addresses, in hexadecimal, on which these processes accept connections."""
    sockets = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            sockets |= {str(file.readlink())[8:-1] for file in Path(f"/proc/{pid}/fd").iterdir()}
    tables = [Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables for line in table.splitlines()]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def actors() -> list[str]:
    """The states of those that have not ended."""
    import ray._private.state

    states = [actor["State"] for actor in ray._private.state.actors().values()]
    return [state for state in states if state != "DEAD"]


def test_a_hundred_trials_on_three_nodes_of_which_one_is_lost_are_exactly_a_hundred(
    cluster: Any, job: RayJob, postgres: Postgres, tmp_path: Path
) -> None:
    job = replace(job, place=Place(2))
    assert job.capacity == 3
    config = study_of(
        "search: {learning_rate: {low: 1.0e-4, high: 0.1, log: true}}\ntrials: 100\n"
        "sampler: random\ntraining: {epochs: 8}"
    )
    lost = next(iter(cluster.worker_nodes))
    shown: list[str] = []
    with Database(postgres.database()) as database:
        study = study_record(database, config)
        studies, leases = Studies(database), Watch(Leases(database), 1000, study.study_id)
        url = database.url.render_as_string(hide_password=False)
        program = ["-m", "ray_standin", study.name, str(tmp_path)]
        progress = partial(studies.progress, study.study_id)
        with RayWorkers(job, program, url, 3, shown.append, progress) as workers:
            while workers.poll():
                leases.look()
                time.sleep(0.1)
                if lost and progress()[0] >= 30:
                    (raylet,) = [process.process.pid for process in lost.all_processes["raylet"]]
                    gone = descendants(raylet)
                    assert len({worker.report.node for worker in workers.workers if worker.report}) == 3
                    cluster.remove_node(lost, allow_graceful=False)
                    for pid in gone:  # none may hand its trials back: the machine is gone
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)
                    lost = None
        assert not lost
        eventually(lambda: not actors(), 10)
        trials = studies.counts(study.study_id)
        assert sum(count for state, count in trials.items() if state.is_finished()) == 100
        import optuna

        stored = optuna.load_study(study_name=study.name, storage=stock_storage(url)).trials
    entries = read_logs(tmp_path)
    assert check(entries, stored, 100, 0.1, value) == []
    assert {"claim", "report", "finish"} <= {entry.kind for entry in entries}
    assert len({entry.worker for entry in entries}) >= 3
    assert any(trial.user_attrs["attempt"] > 1 for trial in stored)
    assert sum(line.endswith(": at work") for line in shown) >= 3, shown
    cluster.add_node(**node_in(files_of(cluster)))


def printed(job: RayJob, script: str) -> list[str]:
    """What a worker prints, and what is said of it, when nodes run a line of Python for it."""
    shown: list[str] = []
    with RayWorkers(job, ["-c", script], "postgresql://h/d", 1, shown.append, lambda: (0, 0)) as workers:
        deadline = time.monotonic() + 60
        while workers.poll():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    return [line.removeprefix(f"{socket.gethostname()}: ") for line in shown]


def test_a_worker_sees_the_gpu_of_its_share_and_none_without_one(job: RayJob) -> None:
    script = "import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])"
    assert printed(replace(job, place=Place(1, 0.25)), script) == ["sees 0"]
    assert printed(job, script) == ["sees"]


def test_a_worker_that_crashes_again_and_again_ends_the_run_with_the_reason(job: RayJob) -> None:
    with pytest.raises(HpoError, match=r"a worker ended with exit code 3:\n(.*: why\n?)+$") as error:
        printed(job, "print('why'); raise SystemExit(3)")
    assert str(error.value).count(": why") == RESTARTS + 1


@pytest.mark.usefixtures("job")
def test_an_actor_whose_folder_another_node_replaced_starts_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    actor = WorkerActor(["-c", "import os; print(os.getcwd())"])
    actor.start("postgresql://h/d")
    eventually(lambda: actor.look().end, 30)
    assert actor.process and list(actor.process.lines) == [str(ROOT)]


def test_ctrl_c_hands_trials_back_and_leaves_no_actor(cluster: Any, desk: Desk) -> None:
    def on_nodes(text: str) -> list[int]:
        return [pid for node in cluster.list_all_nodes() for pid in on_node(node) if text in cmdline(pid)]

    desk.study(LONG)
    desk.hpo("submit", "study.yaml")
    with (
        Database(desk.storage) as database,
        desk.started("worker", "long", "--ray", cluster.address, "--workers", "2", "--lanes=1") as process,
    ):
        studies = Studies(database)
        study = studies.study("long").study_id
        eventually(lambda: studies.counts(study)[TrialState.RUNNING] == 2, 150)
        workers = on_nodes("hpo.cli")
        assert len(workers) == len(on_nodes("WorkerActor")) == 2
        assert PASSWORD not in command_lines()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "Traceback" not in output and "interrupted, nothing is lost" in output
    assert output.count("handed trials back") == 2, output
    assert "RUNNING" not in desk.states("long")
    assert not any(map(alive, workers))
    eventually(lambda: not on_nodes("WorkerActor"), 15)
    files = [file for file in Path(files_of(cluster)).rglob("*") if file.is_file()]
    assert any(file.suffix == ".log" for file in files)
    assert not [file for file in files if PASSWORD.encode() in file.read_bytes()]


def test_a_study_with_the_user_s_own_code_runs_to_its_end(cluster: Any, desk: Desk) -> None:
    desk.study(QUICK)
    answer = desk.json("run", "study.yaml", "--ray", cluster.address, "--workers", "1", "--lanes=1")
    assert answer["trials"] == {"complete": 3, "pruned": 0, "failed": 0}


def test_a_node_without_the_data_ends_the_run_with_the_reason(cluster: Any, desk: Desk) -> None:
    table = desk.folder / "table.csv"
    table.write_text("a,y\n" + "".join(f"{n},{n % 2}\n" for n in range(60)))
    desk.study(
        "name: without\ndata: {source: csv, path: table.csv, target: y}\n"
        "search: {learning_rate: {low: 0.01, high: 0.1}}\ntrials: 2\n"
    )
    desk.hpo("submit", "study.yaml")
    table.unlink()
    message = desk.hpo("worker", "without", "--ray", cluster.address, code=1).stderr
    assert "a worker ended with exit code 2:" in message, message
    assert f"{socket.gethostname()}: hpo: {table}: cannot be read (data.path)" in message


def test_a_cluster_of_its_own_listens_on_loopback_alone_and_goes_with_the_run(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    desk.study(LONG)
    with desk.started("run", "study.yaml", "--ray", "--workers", "1") as process:
        eventually(desk.searches, 150)
        started = descendants(process.pid)
        assert any("raylet" in cmdline(pid) for pid in started)
        assert listening(started | {process.pid}) <= {"0100007F", "0000000000000000FFFF00000100007F"}
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=40)
    assert process.returncode == 130, output
    assert "RUNNING" not in desk.states("long")
    eventually(lambda: not any(map(alive, started)), 10)


def test_without_the_token_or_with_another_one_a_cluster_is_refused(cluster: Any, desk: Desk) -> None:
    desk.study(QUICK)
    run = ("run", "study.yaml", "--ray", cluster.address)
    del desk.environment["RAY_AUTH_TOKEN"]
    desk.environment["HOME"] = str(desk.folder)
    message = desk.hpo(*run, code=2).stderr
    assert message.count("\n") == 1 and "RAY_AUTH_TOKEN" in message, message
    desk.environment["RAY_AUTH_TOKEN"] = "x" * 64
    message = desk.hpo(*run, code=2).stderr.splitlines()[-1]  # after Ray's own
    assert message.startswith("hpo: ") and "not to this token" in message and "RAY_AUTH_TOKEN" in message
    assert desk.states("quick") == ["WAITING"] * 3


def test_sqlite_is_refused_where_there_are_several_nodes(cluster: Any, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "mine.py").write_text(OWN)
    desk.study(QUICK)
    message = desk.hpo("run", "study.yaml", "--ray", cluster.address, code=2).stderr
    assert "the cluster has 3 nodes, and SQLite is a file of one machine" in message
    assert "HPO_STORAGE=postgresql://" in message


def test_no_worker_is_started_on_a_node_without_authentication() -> None:
    report = Report("a", "elsewhere", "b", authenticated=False, started=False, end=None, lines=[])
    with pytest.raises(UsageError, match="node elsewhere was started without token authentication"):
        RayJob([], Place(), sqlite=False).check(report)


def test_places_are_counted_node_by_node() -> None:
    nodes = [Node(4, 1), Node(2, 0), Node(3, 2)]
    assert Place(2).fits(nodes) == 4
    assert Place(1, 0.25).fits(nodes) == 7
    assert Place(0.1, 0.1).fits(nodes) == 30


@pytest.mark.parametrize("address", ["study.yaml", "ray://host:10001", "host", "host:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match=r"--ray: '.*' is no address of a cluster; valid: host:port, auto"):
        parse_address(address)
