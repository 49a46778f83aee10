"""Trials and epochs per hour: `hpo run`'s search against what a user would write, in turn, on one machine.

usage: python benchmarks/throughput.py CSV [--trials 512] [--epochs 30] [--processes 2] [--runs 1]
                                       [--cases random folds tpe asha ray] [--ray-python PATH]

CSV is the diabetes table. Both sides have the same space, the very same training and validation rows,
epochs and processes. The peer is the Optuna + DataLoader script on SQLite, in the case `ray` Ray Tune.
`random`: random sampler, no pruner. `folds`: the same with 5-fold cross-validation. `tpe`: TPE and a median
pruner. `asha`, `ray`: random sampler and ASHA. Where trials are pruned the two sides train different numbers
of epochs, and epochs per hour are what to compare.

hpo's time is the wall clock of the whole search, the starting of its workers included; so is the Optuna
script's, which is spared reading the table. Ray's is without `ray.init`. PATH is a Python that has ray[tune]
and torch: this project does not depend on Ray.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from hpo.data.prepare import prepare
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.studies import Studies
from hpo.studyfile import load_study

PEERS = Path(__file__).parent / "peers"
STUDY = """
name: benchmark
data: {{source: csv, path: {csv}, target: target, missing: drop, test_fraction: 0.15}}
validation: {validation}
metric: accuracy
architecture: mlp
search:
  dropout:       {{low: 0.0, high: 0.7}}
  batch_size:    {{choices: [16, 32, 64, 128]}}
  optimizer:     {{choices: [adam, rmsprop, sgd]}}
  learning_rate: {{low: 1e-4, high: 1e-1, log: true}}
training: {{epochs: {epochs}, seed: {seed}}}
trials: {trials}
sampler: {sampler}
pruner: {pruner}
"""
PRUNERS = {
    "none": "none",
    "median": "{name: median, min_epochs: 5}",
    "asha": "{name: asha, min_epochs: 3, reduction_factor: 4}",
}
CASES = {
    "random": ("random", "none", 1),
    "folds": ("random", "none", 5),
    "tpe": ("tpe", "median", 1),
    "asha": ("random", "asha", 1),
    "ray": ("random", "asha", 1),
}
"""Sampler, pruner, folds."""


class Comparison:
    """One study for both sides, in a folder of its own."""

    def __init__(self, folder, options, case, seed):
        """`options`: csv, trials, epochs, processes. `case`: sampler, pruner, folds."""
        self.folder, self.options, self.case, self.seed = Path(folder), options, case, seed
        sampler, pruner, folds = case
        text = STUDY.format(
            csv=json.dumps(str(Path(options.csv).resolve())),
            validation=f"{{folds: {folds}}}" if folds > 1 else "{fraction: 0.15}",
            epochs=options.epochs,
            seed=seed,
            trials=options.trials,
            sampler=sampler,
            pruner=PRUNERS[pruner],
        )
        self.study = self.folder / "study.yaml"
        self.study.write_text(text)
        self.cache = self.folder / "cache"
        self.parts = self.folder / "parts.npz"
        np.savez(self.parts, **self.arrays())

    def arrays(self):
        """The rows that hpo trains and validates on, for the peer."""
        arrays = {}
        for number, fold in enumerate(prepare(load_study(self.study), self.cache).folds):
            for name, part in (("train", fold.train), ("validation", fold.validation)):
                arrays[f"{name}_x{number}"] = part.features.numpy()
                arrays[f"{name}_y{number}"] = part.targets.numpy()
        return arrays

    def search(self):
        """Search with hpo; answers when its processes started, the seconds that they took, the trials."""
        url = f"sqlite:///{self.folder}/hpo.db"
        environment = os.environ | {"HPO_STORAGE": url, "HPO_CACHE": str(self.cache)}
        hpo = [sys.executable, "-m", "hpo.cli"]
        subprocess.run([*hpo, "submit", str(self.study)], env=environment, check=True, capture_output=True)
        count = self.options.processes
        command = [*hpo, "worker", "benchmark", f"--workers={count}"]
        with (self.folder / "workers.log").open("w+") as log:
            started = time.time()
            workers = [
                subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(count)
            ]
            codes = [worker.wait() for worker in workers]
            seconds = time.time() - started
            log.seek(0)
            if any(codes):
                sys.exit(f"a worker of hpo ended with exit code {max(codes)}:\n{log.read()}")
        with Database(url) as database:
            trials = read_trials(database, Studies(database).study("benchmark").study_id)
        return started, seconds, trials

    def ours(self):
        """Search with hpo; answers the same summary as the peers."""
        _, seconds, trials = self.search()
        finished = [trial for trial in trials if trial.state.is_finished()]
        return {
            "seconds": round(seconds, 2),
            "trials": len(finished),
            "per_hour": round(len(finished) / seconds * 3600),
            "epochs": sum(len(trial.intermediate_values) for trial in finished),
            "best": max(trial.value for trial in finished if trial.state.name == "COMPLETE"),
        }

    def script(self, *extra):
        """Search with the Optuna script."""
        sampler, pruner, folds = self.case
        method = ["--sampler", sampler, "--pruner", pruner, "--folds", str(folds)]
        return self.peer(sys.executable, "optuna_script.py", *method, *extra)

    def ray(self, python):
        """Search with Ray Tune."""
        return self.peer(python, "ray_script.py")

    def peer(self, python, name, *extra):
        """Run a peer; its summary is the last line that it prints."""
        options = self.options
        numbers = [str(number) for number in (options.trials, options.epochs, options.processes)]
        command = [python, str(PEERS / name), options.csv, *numbers, "--seed", str(self.seed)]
        command += ["--parts", str(self.parts), *extra]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(f"{name} ended with exit code {run.returncode}:\n{run.stderr}")
        return json.loads(run.stdout.splitlines()[-1])


def compare(options, case, seed):
    """The summaries of both sides: the peer's and hpo's."""
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(folder, options, CASES[case], seed)
        theirs = comparison.ray(options.ray_python) if case == "ray" else comparison.script()
        return theirs, comparison.ours()


def line(case, pairs):
    """A line of the table: medians over the runs."""
    cells = []
    for rate in ("trials", "epochs"):
        theirs, mine = (
            statistics.median(pair[side][rate] / pair[side]["seconds"] * 3600 for pair in pairs)
            for side in (0, 1)
        )
        cells += [f"{theirs:,.0f}", f"{mine:,.0f}", f"{mine / theirs:.1f}"]
    for what, shown in (("best", "{:.4f}"), ("trials", "{:.0f}"), ("epochs", "{:.0f}")):
        medians = [statistics.median(pair[side][what] for pair in pairs) for side in (0, 1)]
        cells.append(" / ".join(map(shown.format, medians)))
    return row(case, cells)


def row(first, cells):
    """Cells in columns."""
    return f"{first:8}" + "".join(f"{cell:>16}" for cell in cells)


def check_ray(parser, python):
    """End with a clear message unless `python` can run the Ray script."""
    needed = "a Python with ray[tune] and torch (python -m venv, pip install 'ray[tune]' torch)"
    if python is None:
        parser.error(f"the case ray needs --ray-python PATH: {needed}")
    try:
        run = subprocess.run([python, "-c", "import ray.tune, torch"], capture_output=True, text=True)
    except OSError as error:
        parser.error(f"--ray-python {python}: {error.strerror}; it must be {needed}")
    if run.returncode:
        reason = (run.stderr.splitlines() or ["it gave no reason"])[-1]
        parser.error(f"--ray-python {python}: {reason}; it must be {needed}")


def main():
    """Run the cases in turn and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cases", nargs="+", default=["random", "folds", "tpe"], choices=list(CASES))
    parser.add_argument("--ray-python", help="a Python with ray[tune] and torch, for the case ray")
    options = parser.parse_args()
    if "ray" in options.cases:
        check_ray(parser, options.ray_python)
    print(
        f"{options.trials} trials, {options.epochs} epochs, {options.processes} processes, "
        f"n = {options.runs}; best value, trials and epochs: peer / hpo"
    )
    rates = [f"{side} {what}/h" for what in ("trials", "epochs") for side in ("peer", "hpo")]
    heads = [*rates[:2], "ratio", *rates[2:], "ratio", "best", "trials", "epochs"]
    print(row("case", heads))
    for case in options.cases:
        print(line(case, [compare(options, case, seed) for seed in range(options.runs)]), flush=True)


if __name__ == "__main__":
    main()
