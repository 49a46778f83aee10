"""What a user would write today for images: Optuna, a CNN, a DataLoader, processes on one SQLite file.

usage: cnn_script.py PARAMS.json EPOCHS PROCESSES --parts FILE.npz [--width 32] [--workers 0] [--bf16]

PARAMS holds a list of parameters, one mapping for each trial. Trials with other batch sizes cost more or
less, so that two searches of few trials are only comparable if these are the same. Data, processes and the
JSON line that is printed are those of optuna_script.py; the network is that of emnist.py. Uses the GPU if
there is one, then with pinned memory. --workers are the DataLoader's processes, --bf16 is autocast.
"""

import argparse
import json
import warnings
from pathlib import Path

import optuna
import torch
from emnist import build
from optuna_script import load, search, summary
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Network:
    """The CNN of one trial, and its data."""

    def __init__(self, part, params, options):
        """`part`: train x, train y, validation x, validation y. `options`: width, workers, bf16."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bf16 = options.bf16
        train_x, train_y, x, y = part
        shape, classes = tuple(train_x.shape[1:]), int(train_y.max()) + 1
        self.model = build(shape, classes, width=options.width, dropout=params["dropout"]).to(self.device)
        optimizers = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD}
        self.optimizer = optimizers[params["optimizer"]](self.model.parameters(), lr=params["learning_rate"])
        common = {
            "num_workers": options.workers,
            "pin_memory": self.device.type == "cuda",
            "persistent_workers": options.workers > 0,
        }
        batch_size = params["batch_size"]
        self.train = DataLoader(
            TensorDataset(train_x, train_y), batch_size, shuffle=True, drop_last=True, **common
        )
        self.validation = DataLoader(TensorDataset(x, y), max(256, batch_size), **common)

    def epoch(self):
        """Train one epoch; answers the mean loss."""
        self.model.train()
        total = 0.0
        for x, y in self.batches(self.train):
            self.optimizer.zero_grad()
            with self.precision():
                loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        return float(total) / len(self.train)

    def accuracy(self):
        """On the validation part."""
        self.model.eval()
        hits = 0
        with torch.no_grad(), self.precision():
            for x, y in self.batches(self.validation):
                hits += (self.model(x).argmax(1) == y).sum()
        return int(hits) / len(self.validation.dataset)

    def batches(self, loader):
        """On the device."""
        for x, y in loader:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def precision(self):
        """What a forward pass runs in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)


def objective(trial, part, options):
    """One trial."""
    params = {
        "dropout": trial.suggest_float("dropout", 0.0, 0.6),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128]),
        "optimizer": trial.suggest_categorical("optimizer", ["adam", "rmsprop", "sgd"]),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    }
    network = Network(part, params, options)
    value = 0.0
    for epoch in range(1, options.epochs + 1):
        network.epoch()
        value = network.accuracy()
        trial.report(value, epoch)
    return value


def worker(options, url, index):
    """One process: its share of the trials."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # PartialFixedSampler
    (part,) = load(None, 1, options.parts)
    study = optuna.load_study(study_name="s", storage=url)
    for params in json.loads(Path(options.params).read_text())[index :: options.processes]:
        study.sampler = optuna.samplers.PartialFixedSampler(params, optuna.samplers.RandomSampler())
        study.optimize(lambda trial: objective(trial, part, options), n_trials=1)


def main():
    """Search and sum up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("params")
    parser.add_argument("epochs", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("--parts", required=True)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    options = parser.parse_args()
    _, seconds, trials = search(worker, options)
    print(json.dumps(summary(seconds, trials)))


if __name__ == "__main__":
    main()
