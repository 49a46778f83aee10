"""Trials and epochs per hour: `hpo run`'s search against what a user would write, in turn, on one machine.

usage: python benchmarks/throughput.py CSV [--trials 512] [--epochs 30] [--processes 2] [--runs 1]
                                       [--cases random folds tpe asha ray] [--ray-python PATH]

CSV is the diabetes table. Both sides have the same space, the very same training and validation rows,
epochs and processes. The peer is the Optuna + DataLoader script on SQLite, in the case `ray` Ray Tune.
`random`: random sampler, no pruner. `folds`: the same with 5-fold cross-validation. `tpe`: TPE and a median
pruner. `asha`, `ray`: random sampler and ASHA. Where trials are pruned the two sides train different numbers
of epochs, and epochs per hour are what to compare.

A machine's speed changes within minutes where it has other guests, and a script takes 10 times as long as
hpo: so hpo makes the same search several times, before the script, after it, and every 4 minutes while the
script stands still. Its figures are means. Ray Tune, whose processes are many and watch each other, is not
made to stand still.

hpo's time is the wall clock of the whole search, the starting of its workers included; so is the Optuna
script's, which is spared reading the table. Ray's is without `ray.init`. PATH is a Python that has ray[tune]
and torch: this project does not depend on Ray.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from comparison import Comparison, row
from peers.optuna_script import summary

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


class TableComparison(Comparison):
    """One study of the table, for both sides."""

    def __init__(self, folder, options, case, seed):
        """`options`: csv, trials, epochs, processes. `case`: sampler, pruner, folds."""
        self.options, self.case, self.seed = options, case, seed
        sampler, pruner, folds = case
        study = STUDY.format(
            csv=json.dumps(str(Path(options.csv).resolve())),
            validation=f"{{folds: {folds}}}" if folds > 1 else "{fraction: 0.15}",
            epochs=options.epochs,
            seed=seed,
            trials=options.trials,
            sampler=sampler,
            pruner=PRUNERS[pruner],
        )
        super().__init__(folder, study, options.processes)

    def ours(self):
        """Search with hpo; answers the same summary as the peers."""
        _, seconds, trials = self.search()
        return summary(seconds, trials)

    def script(self, *extra, between=None):
        """Search with the Optuna script. between: see `Comparison.peer`."""
        sampler, pruner, folds = self.case
        method = ["--sampler", sampler, "--pruner", pruner, "--folds", folds]
        arguments = *self._numbers(), *method, *extra
        return self.peer(sys.executable, "optuna_script.py", *arguments, between=between)

    def ray(self, python):
        """Search with Ray Tune."""
        return self.peer(python, "ray_script.py", *self._numbers())

    def _numbers(self):
        options = self.options
        return options.csv, options.trials, options.epochs, options.processes, "--seed", self.seed


def compare(options, case, seed):
    """The summaries of both sides: the peer's and hpo's, the mean of its searches."""
    mine = []

    def ours():
        with tempfile.TemporaryDirectory() as folder:
            mine.append(TableComparison(folder, options, CASES[case], seed).ours())

    with tempfile.TemporaryDirectory() as folder:
        comparison = TableComparison(folder, options, CASES[case], seed)
        ours()
        ray = case == "ray"
        theirs = comparison.ray(options.ray_python) if ray else comparison.script(between=ours)
        ours()
    print(f"  {case}: hpo searched in", *(f"{each['seconds']:.1f}" for each in mine), "s", flush=True)
    return theirs, {key: statistics.fmean(each[key] for each in mine) for key in mine[0]}


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the script is not left behind
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
