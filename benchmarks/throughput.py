"""Trials per hour: `hpo run` against the Optuna + DataLoader script, in turn, on one machine.

usage: python benchmarks/throughput.py CSV [--trials 512] [--epochs 30] [--processes 2] [--runs 1]
                                       [--cases random folds tpe]

CSV is the diabetes table. Both sides have the same space, split sizes, epochs and processes, on SQLite:
`random`: random sampler, no pruner. `folds`: the same with 5-fold cross-validation. `tpe`: TPE and a median
pruner. hpo's time is the wall clock of the whole search, the starting of its workers included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
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
CASES = {
    "random": ("random", "none", 1),
    "folds": ("random", "none", 5),
    "tpe": ("tpe", "median", 1),
    "asha": ("random", "asha", 1),
}


def ours(options, case, seed):
    """Search with hpo; answers the same summary as the script."""
    from hpo.search.database import Database
    from hpo.search.history import read_trials
    from hpo.search.studies import Studies

    sampler, pruner, folds = CASES[case]
    validation = f"{{folds: {folds}}}" if folds > 1 else "{fraction: 0.15}"
    pruners = {
        "none": "none",
        "median": "{name: median, min_epochs: 5}",
        "asha": "{name: asha, min_epochs: 3}",
    }
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study.yaml"
        csv = Path(options.csv).resolve()
        numbers = {"epochs": options.epochs, "trials": options.trials, "seed": seed}
        text = STUDY.format(
            csv=csv, validation=validation, sampler=sampler, pruner=pruners[pruner], **numbers
        )
        study.write_text(text)
        url = f"sqlite:///{folder}/hpo.db"
        hpo = [sys.executable, "-m", "hpo.cli"]
        storage = f"--storage={url}"
        subprocess.run([*hpo, "submit", str(study), storage], check=True, capture_output=True)
        worker = [*hpo, "worker", "benchmark", storage, f"--workers={options.processes}"]
        started = time.time()
        processes = [subprocess.Popen(worker, stderr=subprocess.DEVNULL) for _ in range(options.processes)]
        for process in processes:
            process.wait()
        seconds = time.time() - started
        with Database(url) as database:
            trials = read_trials(database, Studies(database).study("benchmark").study_id)
    finished = [trial for trial in trials if trial.state.is_finished()]
    return {
        "seconds": round(seconds, 2),
        "trials": len(finished),
        "per_hour": round(len(finished) / seconds * 3600),
        "epochs": sum(len(trial.intermediate_values) for trial in finished),
        "best": max(trial.value for trial in finished if trial.state.name == "COMPLETE"),
    }


def theirs(options, case, seed):
    """Search with the script."""
    sampler, pruner, folds = CASES[case]
    command = [sys.executable, str(HERE / "peers" / "optuna_script.py"), options.csv]
    command += [str(options.trials), str(options.epochs), str(options.processes)]
    command += ["--sampler", sampler, "--pruner", pruner, "--folds", str(folds), "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    """Run the cases in turn and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--cases", nargs="+", default=["random", "folds", "tpe"], choices=list(CASES))
    options = parser.parse_args()
    print(
        f"{options.trials} trials, {options.epochs} epochs, {options.processes} processes, n = {options.runs}"
    )
    heads = ("script /h", "hpo /h", "ratio", "script best", "hpo best", "epochs")
    print(f"{'case':8}" + "".join(f"{head:>13}" for head in heads))
    for case in options.cases:
        pairs = [(theirs(options, case, seed), ours(options, case, seed)) for seed in range(options.runs)]
        script = statistics.median(pair[0]["per_hour"] for pair in pairs)
        mine = statistics.median(pair[1]["per_hour"] for pair in pairs)
        best = [statistics.median(pair[side]["best"] for pair in pairs) for side in (0, 1)]
        epochs = "/".join(str(pairs[0][side]["epochs"]) for side in (0, 1))
        cells = (
            f"{script:,.0f}",
            f"{mine:,.0f}",
            f"{mine / script:.1f}",
            *(f"{b:.4f}" for b in best),
            epochs,
        )
        print(f"{case:8}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
