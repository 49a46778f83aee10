"""Where a worker's time goes: training, sampling, storage; and which operations the training consists of.

usage: python benchmarks/shares.py CSV [--case random folds tpe asha] [--trials 256] [--epochs 30]
                                   [--lanes auto] [--operations 12]

CSV is the diabetes table; the cases are those of throughput.py. One worker in this process, with one thread.
Milliseconds of wall clock a trial, then the operations of one epoch of a cohort by their own time.
"""

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import torch
from store import timed
from throughput import CASES, PRUNERS, STUDY

from hpo.data.prepare import prepare
from hpo.search import advice, worker
from hpo.search.database import Database
from hpo.search.running import WorkerOptions
from hpo.search.samplers import middle
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import submit
from hpo.search.trainer import Trainer, TrialCohort
from hpo.studyfile import load_study
from hpo.training.lane import Lane, LaneKey
from hpo.training.memory import keep_freed_memory


def search(options, case, folder):
    """Search once; answers seconds by what they went into, and the worker."""
    sampler, pruner, folds = CASES[case]
    path = folder / "study.yaml"
    path.write_text(
        STUDY.format(
            csv=json.dumps(str(Path(options.csv).resolve())),
            validation=f"{{folds: {folds}}}" if folds > 1 else "{fraction: 0.15}",
            epochs=options.epochs,
            seed=0,
            trials=options.trials,
            sampler=sampler,
            pruner=PRUNERS[pruner],
        )
    )
    config = load_study(path)
    prepared = prepare(config, folder / "cache")
    database = Database(f"sqlite:///{folder}/hpo.db")
    database.create_schema()
    study = submit(Studies(database), config, prepared.fingerprint)
    settings = WorkerOptions(lanes=None if options.lanes == "auto" else int(options.lanes))
    spent = Counter()
    started = time.perf_counter()
    searcher = worker.Worker(database, study, config, Trainer(config, prepared), settings, threading.Event())
    for owner, name, what in (
        (TrialCohort, "train_epoch", "training"),
        (TrialCohort, "add", "building networks"),
        (advice, "suggest", "sampling"),
        (searcher.advice.optuna.pruner, "prune", "pruning"),
        (searcher, "_measured", "measuring lanes"),
        (Store, "record", "storage"),
        (Store, "claim", "storage"),
        (worker.Snapshot, "refresh", "storage"),
    ):
        setattr(owner, name, timed(spent, what, getattr(owner, name)))
    searcher.run()
    spent["all"] = time.perf_counter() - started
    return spent, searcher


def operations(searcher, lanes=64):
    """A table of the operations of one epoch of so many lanes, from the middle of the space."""
    settings = searcher.config.settings(middle(searcher.config.search))
    cohort = searcher.trainer.group(settings).cohort
    cohort.add([Lane(LaneKey(number), settings) for number in range(lanes)])
    cohort.train_epoch()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        cohort.train_epoch()
    found = profile.key_averages()
    whole = sum(event.self_cpu_time_total for event in found)
    found = sorted(found, key=lambda event: event.self_cpu_time_total, reverse=True)
    return [(event.key, event.count, event.self_cpu_time_total / whole) for event in found]


def main():
    """Search, and print the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    parser.add_argument("--case", default="random", choices=[case for case in CASES if case != "ray"])
    parser.add_argument("--trials", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lanes", default="auto")
    parser.add_argument("--operations", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        spent, searcher = search(options, options.case, Path(folder))
        whole = spent.pop("all")
        spent["the rest"] = whole - sum(spent.values())
        print(
            f"{options.case}, {options.trials} trials of {options.epochs} epochs, {searcher.capacity} lanes"
        )
        for what, seconds in spent.most_common():
            print(f"{what:18} {seconds / options.trials * 1000:8.2f} ms a trial {seconds / whole:7.1%}")
        print(f"{'operation':28}{'calls':>8}{'own time':>10}")
        for name, calls, share in operations(searcher)[: options.operations]:
            print(f"{name[:27]:28}{calls:8}{share:10.1%}")


if __name__ == "__main__":
    main()
