"""What a user would write today: Optuna, a DataLoader, several processes on one SQLite file.

usage: optuna_script.py CSV TRIALS EPOCHS PROCESSES [--sampler random|tpe] [--pruner none|median|asha]
                        [--folds K] [--seed S] [--curve FILE] [--parts FILE.npz]

Prints one JSON line: seconds, trials finished, trials per hour, epochs trained, best validation accuracy.
--curve writes a line `seconds,best` for each improvement. --parts has the split data ready, arrays `train_x`,
`train_y`, `validation_x` and `validation_y`, each with the fold's number behind it: CSV is then not read.
"""

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path


def load(csv, folds, parts=None):
    """Train x, train y, validation x, validation y of each fold: from `parts`, or else from `csv`."""
    if parts is None:
        return split(csv, folds)
    import numpy as np
    import torch

    names = ("train_x", "train_y", "validation_x", "validation_y")
    with np.load(parts) as arrays:
        return [[torch.from_numpy(arrays[f"{name}{fold}"]) for name in names] for fold in range(folds)]


def split(csv, folds):
    """The course's cleaning; train and validation parts scaled by the training part, a pair for each fold."""
    import pandas as pd
    import torch
    from sklearn.model_selection import StratifiedKFold, train_test_split
    from sklearn.preprocessing import StandardScaler

    table = pd.read_csv(csv).apply(pd.to_numeric, errors="coerce").dropna()
    x, y = table.iloc[:, :-1].to_numpy("float32"), table.iloc[:, -1].to_numpy("int64")
    x, _, y, _ = train_test_split(x, y, test_size=0.15, stratify=y, random_state=0)  # held out
    if folds > 1:
        splits = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(x, y))
    else:
        splits = [train_test_split(range(len(y)), test_size=0.15 / 0.85, stratify=y, random_state=0)]
    parts = []
    for train, validation in splits:
        scaler = StandardScaler().fit(x[train])
        arrays = scaler.transform(x[train]), y[train], scaler.transform(x[validation]), y[validation]
        parts.append([torch.tensor(array) for array in arrays])
    return parts


class Fold:
    """One network on one pair of parts."""

    def __init__(self, part, params):
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset

        train_x, train_y, self.x, self.y = part
        inputs, width, dropout = train_x.shape[1], 64, params["dropout"]
        layers = []
        for _ in range(2):
            layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.model = nn.Sequential(*layers, nn.Linear(inputs, 2))
        optimizer = getattr(torch.optim, params["optimizer"])
        self.optimizer = optimizer(self.model.parameters(), lr=params["learning_rate"])
        data = TensorDataset(train_x, train_y)
        self.loader = DataLoader(data, params["batch_size"], shuffle=True, drop_last=True)

    def epoch(self):
        """Train one epoch; the validation accuracy."""
        import torch
        from torch.nn import functional as F

        self.model.train()
        for x, y in self.loader:
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
        self.model.eval()
        with torch.no_grad():
            return (self.model(self.x).argmax(1) == self.y).float().mean().item()


def objective(trial, parts, epochs):
    """One trial: all its folds, epoch by epoch."""
    import optuna

    params = {
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        "optimizer": trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    }
    folds = [Fold(part, params) for part in parts]
    value = 0.0
    for epoch in range(1, epochs + 1):
        value = sum(fold.epoch() for fold in folds) / len(folds)
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def worker(options, url, index):
    """One process: its share of the trials."""
    import optuna
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parts = load(options.csv, options.folds, options.parts)
    samplers = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
    pruners = {
        "none": optuna.pruners.NopPruner(),
        "median": optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
        "asha": optuna.pruners.SuccessiveHalvingPruner(min_resource=3),
    }
    study = optuna.load_study(
        study_name="s",
        storage=url,
        sampler=samplers[options.sampler](seed=options.seed * 1000 + index),
        pruner=pruners[options.pruner],
    )
    share = options.trials // options.processes
    study.optimize(lambda trial: objective(trial, parts, options.epochs), n_trials=share, catch=(Exception,))


def search(worker, options):
    """`worker(options, url, index)` in each process; answers when they started, their seconds, the trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/s.db"
        optuna.create_study(study_name="s", storage=url, direction="maximize")
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=worker, args=(options, url, index)) for index in range(options.processes)
        ]
        started = time.time()
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        seconds = time.time() - started
        if codes := [process.exitcode for process in processes if process.exitcode]:
            sys.exit(f"{len(codes)} of {len(processes)} processes ended with exit code {codes[0]}")
        return started, seconds, optuna.load_study(study_name="s", storage=url).trials


def summary(seconds, trials):
    """What a search came to."""
    finished = [trial for trial in trials if trial.state.is_finished()]
    complete = [trial for trial in finished if trial.state.name == "COMPLETE"]
    return {
        "seconds": round(seconds, 2),
        "trials": len(finished),
        "per_hour": round(len(finished) / seconds * 3600),
        "epochs": sum(len(trial.intermediate_values) for trial in finished),
        "best": max((trial.value for trial in complete), default=math.nan),
    }


def write_curve(path, trials, started):
    """`seconds,best` at each improvement, from the start of the processes on."""
    best = -math.inf
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    with Path(path).open("w") as file:
        for trial in sorted(complete, key=lambda trial: trial.datetime_complete):
            if trial.value > best:
                best = trial.value
                file.write(f"{trial.datetime_complete.timestamp() - started:.2f},{best}\n")


def main():
    """Search and sum up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    for name in ("trials", "epochs", "processes"):
        parser.add_argument(name, type=int)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--pruner", default="none")
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curve")
    parser.add_argument("--parts")
    options = parser.parse_args()
    started, seconds, trials = search(worker, options)
    if options.curve:
        write_curve(options.curve, trials, started)
    print(json.dumps(summary(seconds, trials)))


if __name__ == "__main__":
    main()
