"""What a cohort's step costs: `python benchmarks/cohort.py [--repeats N]`.

An MLP 7-64-64-2 with dropout 0.1 to 0.6, lanes of adam, rmsprop and sgd side by side, on 532 training and 114
validation rows (the sizes of the course's table), one thread. Times are µs per lane and step, everything
included: sample order, gather, masks, forward, backward, optimizer. For comparison, the loop that one would
write: a DataLoader and torch.optim, one model.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpo.config import Hyperparameters, StudyConfig, TrialSettings
from hpo.data.prepared import Fold, Part
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey
from hpo.training.memory import keep_freed_memory
from hpo.training.optimizers import Optimizers, Rows
from models.layers import dropout_mask
from models.mlp import mlp

ROWS, VALIDATION, FEATURES, WIDTH = 532, 114, 7, 64
OPTIMIZERS = ("adam", "rmsprop", "sgd")


def fold() -> Fold:
    """Random examples of two classes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS + VALIDATION, FEATURES, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    return Fold(Part(x[:ROWS], y[:ROWS]), Part(x[ROWS:], y[ROWS:]))


def lane(number: int, batch_size: int) -> Lane:
    """Lanes that differ as a search's do."""
    hyperparameters = Hyperparameters.model_validate(
        {
            "batch_size": batch_size,
            "optimizer": OPTIMIZERS[number % 3],
            "learning_rate": 10 ** -(1 + number % 4),
        }
    )
    return Lane(LaneKey(number), TrialSettings(hyperparameters, {"dropout": 0.1 + 0.5 * (number % 8) / 7}))


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """How long each of `repeats` runs takes, after two that do not count."""
    taken = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return taken[2:]


def cohort(lanes: int, batch_size: int, data: DeviceData) -> tuple[Cohort, float]:
    """A cohort, and the seconds that adding a lane took."""
    config = StudyConfig.model_validate(
        {
            "name": "benchmark",
            "data": {"source": "sklearn", "name": "wine"},
            "search": {"dropout": {"low": 0.0, "high": 0.7}},
        }
    )
    architecture = Architecture(config, (FEATURES,), 2)
    members = [lane(number, batch_size) for number in range(lanes)]
    made = Cohort(architecture, data, "accuracy", members[0].settings, 30)
    made.add(members[:1])  # finds out how this architecture runs
    started = time.perf_counter()
    made.add(members[1:])
    return made, (time.perf_counter() - started) / max(1, lanes - 1)


def cohort_row(lanes: int, batch_size: int, repeats: int) -> list[str]:
    """Median and spread of a step, milliseconds of an epoch with its evaluation, µs of adding a lane."""
    data = DeviceData([fold()], "classification", 2)
    made, adding = cohort(lanes, batch_size, data)
    epochs = seconds(made.train_epoch, repeats)
    steps, _ = data.steps(batch_size)
    each = sorted(epoch / lanes / steps * 1e6 for epoch in epochs)
    epoch = statistics.median(epochs) / lanes * 1e3
    return [
        str(lanes),
        str(batch_size),
        f"{statistics.median(each):.0f}",
        f"{each[0]:.0f} to {each[-1]:.0f}",
        f"{epoch:.2f}",
        f"{adding * 1e6:.0f}" if lanes > 1 else "",
    ]


def loop_row(batch_size: int, repeats: int) -> list[str]:
    """The DataLoader loop: one model, adam."""
    part = fold().train
    module = mlp((FEATURES,), 2, dropout=0.3)
    optimizer = torch.optim.Adam(module.parameters())
    loader = DataLoader(TensorDataset(part.features, part.targets), batch_size, shuffle=True, drop_last=True)

    def epoch() -> None:
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()

    epochs = seconds(epoch, repeats)
    each = sorted(taken / len(loader) * 1e6 for taken in epochs)
    middle = statistics.median(each)
    return [
        "DataLoader",
        str(batch_size),
        f"{middle:.0f}",
        f"{each[0]:.0f} to {each[-1]:.0f}",
        f"{statistics.median(epochs) * 1e3:.2f}",
        "",
    ]


def parts_rows(lanes: int, batch_size: int, repeats: int) -> list[list[str]]:
    """Parts of a step that can be run by themselves."""
    data = DeviceData([fold()], "classification", 2)
    made, _ = cohort(lanes, batch_size, data)
    made.train_epoch()
    size = sum(parameter.numel() for parameter in mlp((FEATURES,), 2).parameters())
    rows = Rows(*(torch.rand(lanes, size) for _ in range(4)))
    kinds = sorted(OPTIMIZERS[number % 3] for number in range(lanes))
    optimizers = Optimizers([Hyperparameters.model_validate({"optimizer": kind}) for kind in kinds], [rows])
    terms = [own[0] for own in optimizers.laid_out(torch.full((1, lanes), 5.0, dtype=torch.float64))]
    key = torch.arange(lanes, dtype=torch.int32)
    threshold, scale = torch.zeros(lanes, dtype=torch.int32), torch.full((lanes,), 2.0)
    index = torch.randint(0, ROWS, (lanes, batch_size))
    validation = data.validation[0].features
    parts: dict[str, Callable[[], object]] = {
        "gather": lambda: data.batch(index),
        "masks of two layers": lambda: [
            dropout_mask(key, threshold, scale, batch_size, WIDTH) for _ in range(2)
        ],
        "optimizer": lambda: optimizers.step(terms),
        "evaluation (once an epoch)": lambda: made.predict(validation),
    }
    found = []
    for name, part in parts.items():
        taken = statistics.median(seconds(part, 10 * repeats)) / lanes * 1e6
        found.append([name, str(lanes), str(batch_size), f"{taken:.1f}"])
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="epochs measured in each row")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    table = Table(
        "lanes", "batch", "µs/lane/step", "least to most", "ms/lane/epoch", "µs to add",
        title=f"median of {repeats} epochs, torch {torch.__version__}, one thread",
    )  # fmt: skip
    for batch_size in (16, 32, 128):
        table.add_row(*loop_row(batch_size, repeats))
        for lanes in (1, 8, 64, 128):
            table.add_row(*cohort_row(lanes, batch_size, repeats))
    parts = Table("part", "lanes", "batch", "µs/lane", title=f"parts, median of {10 * repeats}")
    for batch_size in (32, 128):
        for row in parts_rows(64, batch_size, repeats):
            parts.add_row(*row)
    console = Console()
    console.print(table)
    console.print(parts)


if __name__ == "__main__":
    main()
