"""A CNN on images: hpo against an Optuna + DataLoader script, and what lanes are worth.

usage: python benchmarks/images.py FOLDER [--examples 7500] [--trials 8] [--epochs 2] [--processes 2]
                                [--runs 1] [--width 32] [--lanes auto] [--precision auto] [--compile auto]
                                [--peer-processes P] [--workers 0] [--bf16]
       python benchmarks/images.py FOLDER --curve [--batch-size 64] [--most 16] [--steps 8] [--repeats 5]
                                [--width 32] [--precision auto] [--compile auto] [--bf16]

FOLDER has the idx files of EMNIST-36 (or MNIST). Of so many examples, as many of each class, 80 % train, 15 %
validate, and the rest is sealed; 86400 are all of EMNIST-36. Network and loader are those of
peers/emnist.py. Both sides use the GPU if there is one: there, a run that says something is

    python benchmarks/images.py FOLDER --examples 86400 --trials 256 --epochs 10 --processes 1 \\
        --peer-processes 4 --workers 2

hpo searches first, at random and without a pruner; the script then trains the very same trials, on the very
same rows, for as many epochs. Both times are the wall clock of the whole search, the starting of the
processes included; the script is spared reading and scaling the images. --peer-processes, --workers (of its
DataLoader) and --bf16 (autocast) are for finding the script's best. CPU seconds, the script's starter among
them, tell more than the clock where others use the machine too.

--curve trains cohorts of 1, 2, 4, … lanes for some steps, without evaluation: images per second of all lanes
together, against the script's loop with one model. On a CPU the seconds are those of its one thread, which
others on the machine disturb less than the clock.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import structlog
import torch
from comparison import PEERS, Comparison, cpu_seconds, features, row
from peers.optuna_script import summary

from hpo.data.prepare import prepare
from hpo.studyfile import load_study
from hpo.training.architecture import Architecture
from hpo.training.capacity import SHARE
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData, best_device
from hpo.training.lane import Lane, LaneKey
from hpo.training.memory import free_memory, keep_freed_memory, out_of_memory, used_memory
from hpo.usercode import load_function

OPTIMIZERS = ["adam", "rmsprop", "sgd"]
STUDY = """
name: images
data: {{source: {load}, options: {{folder: {folder}, examples: {examples}}}, test_fraction: 0.05}}
validation: {{fraction: 0.15}}
metric: accuracy
architecture: {build}
options: {{width: {width}}}
search:
  dropout:       {{low: 0.0, high: 0.6}}
  batch_size:    {{choices: [32, 64, 128]}}
  optimizer:     {{choices: [adam, rmsprop, sgd]}}
  learning_rate: {{low: 1e-4, high: 1e-1, log: true}}
training: {{epochs: {epochs}, seed: {seed}, precision: {precision}, compile: "{compile}"}}
trials: {trials}
sampler: random
pruner: none
"""
IN_STUDY = "examples", "width", "epochs", "trials", "precision", "compile"
"""Options that stand in the study file."""
DEVICE = best_device()
CLOCK = time.perf_counter if DEVICE == "cuda" else time.process_time


def study_text(options, seed):
    """The study file."""
    return STUDY.format(
        load=json.dumps(f"{PEERS / 'emnist.py'}:load"),
        build=json.dumps(f"{PEERS / 'emnist.py'}:build"),
        folder=json.dumps(str(Path(options.folder).resolve())),
        seed=seed,
        **{name: getattr(options, name) for name in IN_STUDY},
    )


def compare(options, seed):
    """The summaries of both sides, the peer's and hpo's, with their CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(folder, study_text(options, seed), options.processes)
        spent = [cpu_seconds()]
        _, seconds, trials = comparison.search(f"--lanes={options.lanes}")
        spent.append(cpu_seconds())
        params = comparison.folder / "params.json"
        params.write_text(json.dumps([trial.params for trial in trials]))
        numbers = options.epochs, options.peer_processes or options.processes
        extra = ["--width", options.width, "--workers", options.workers, *["--bf16"] * options.bf16]
        theirs = comparison.peer(sys.executable, "cnn_script.py", params, *numbers, *extra)
        spent.append(cpu_seconds())
        ours = summary(seconds, trials) | {"cpu": spent[1] - spent[0]}
        return theirs | {"cpu": spent[2] - spent[1]}, ours


def print_comparison(options):
    """A line for each run, and one of medians."""
    heads = ["peer trials/h", "hpo trials/h", "ratio", "peer epochs/min", "hpo epochs/min"]
    print(row("run", [*heads, "best", "trials", "epochs", "seconds", "CPU seconds"]))
    runs = []
    for seed in range(options.runs):
        theirs, ours = compare(options, seed)
        pair = theirs, ours
        rates = [side["trials"] / side["seconds"] * 3600 for side in pair]
        epochs = [side["epochs"] / side["seconds"] * 60 for side in pair]
        runs.append([*rates, rates[1] / rates[0], *epochs])
        shown = {"best": ".4f", "trials": "d", "epochs": "d", "seconds": ".0f", "cpu": ".0f"}
        both = [" / ".join(format(side[what], form) for side in pair) for what, form in shown.items()]
        print(row(str(seed), [*cells(runs[-1]), *both]), flush=True)
    if options.runs > 1:
        print(row("median", cells([statistics.median(column) for column in zip(*runs, strict=True)])))
        ratios = [run[2] for run in runs]
        print(f"ratio: {min(ratios):.2f} to {max(ratios):.2f}, n = {options.runs}")


def cells(figures):
    """Rates and their ratio, as they are shown."""
    return [f"{figure:,.0f}" if index < 2 else f"{figure:.2f}" for index, figure in enumerate(figures)]


# --- lanes against throughput


class Curve:
    """Images per second for a number of lanes."""

    def __init__(self, options):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "study.yaml"
            path.write_text(study_text(options, seed=0))
            self.config = load_study(path)
            self.prepared = prepare(self.config, Path(folder) / "cache")
        self.options = options
        (fold,) = self.prepared.folds
        self.images = min(options.steps * options.batch_size, len(fold.train))
        # Nothing to evaluate.
        self.fold = replace(fold, train=first(fold.train, self.images), validation=first(fold.validation, 0))
        self.architecture = Architecture(self.config, self.prepared.input_shape, self.prepared.outputs)
        self.data = DeviceData([self.fold], "classification", self.prepared.outputs)

    def lane(self, number):
        """Lanes that differ as a search's do."""
        params = {
            "batch_size": self.options.batch_size,
            "optimizer": OPTIMIZERS[number % 3],
            "learning_rate": 10 ** -(2 + number % 3),
            "dropout": 0.1 + 0.4 * (number % 8) / 7,
        }
        return Lane(LaneKey(number), self.config.settings(params))

    def cohort(self, lanes):
        """The images per second of so many lanes together, once for each repetition."""
        members = [self.lane(number) for number in range(lanes)]
        cohort = Cohort(self.architecture, self.data, "accuracy", members[0].settings, 1)
        cohort.add(members)
        return self.rates(cohort.train_epoch, lanes)

    @property
    def program(self):
        """How lanes run."""
        (program,) = self.architecture.programs.values()
        marks = ["bfloat16"] * program.bfloat16 + ["channels last"] * program.channels_last
        return ", ".join([type(program).__name__, *marks])

    def loop(self):
        """The same of the script's loop."""
        network = load_function(f"{PEERS / 'cnn_script.py'}:Network", Path())
        params = {"batch_size": self.options.batch_size, "optimizer": "adam", "learning_rate": 1e-3}
        part = [features(self.fold.train, self.fold.normalization), self.fold.train.targets] * 2
        return self.rates(network(part, params | {"dropout": 0.3}, self.options).epoch, 1)

    def rates(self, epoch, lanes):
        """Sorted, without a first epoch. `epoch` ends with a loss on the CPU, so that a GPU is waited for."""
        batch_size = min(self.options.batch_size, self.images)
        images = lanes * (self.images // batch_size) * batch_size
        epoch()
        found = []
        for _ in range(self.options.repeats):
            started = CLOCK()
            epoch()
            found.append(images / (CLOCK() - started))
        return sorted(found)


def first(part, count):
    """The first examples of a part."""
    if part.rows is None:
        return replace(part, features=part.features[:count], targets=part.targets[:count])
    return replace(part, targets=part.targets[:count], rows=part.rows[:count])


def print_curve(options):
    """Doubles the lanes until memory, or --most, is reached."""
    curve = Curve(options)
    print(row("lanes", ["images/s", "least to most", "x script", "x one lane"]) + "  program")
    script = curve.loop()
    print(row("script", measured(script, script, script)), flush=True)
    device, lanes, one = curve.data.device, 1, None
    free, before = free_memory(device), used_memory(device)
    while lanes <= options.most:
        try:
            rates = curve.cohort(lanes)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            print(f"{lanes} lanes do not fit into memory")
            return
        one = one or rates
        print(row(str(lanes), measured(rates, script, one)), "", curve.program, flush=True)
        if 2 * (used_memory(device) - before) > SHARE * free:
            print(f"{2 * lanes} lanes would take more than {SHARE:.0%} of the free memory")
            return
        lanes *= 2


def measured(rates, *others):
    """Median, spread, and how many times the medians of others it is."""
    middle = statistics.median(rates)
    ratios = [f"{middle / statistics.median(other):.2f}" for other in others]
    return [f"{middle:,.0f}", f"{rates[0]:,.0f} to {rates[-1]:,.0f}", *ratios]


def main():
    """Compare, or draw the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for name, default in {"examples": 7500, "trials": 8, "epochs": 2, "processes": 2, "runs": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--width", type=int, default=32)
    for name in ("lanes", "precision", "compile"):
        parser.add_argument(f"--{name}", default="auto", help="of hpo")
    parser.add_argument("--peer-processes", type=int, help="of the script, by default as many as hpo's")
    parser.add_argument("--workers", type=int, default=0, help="of the script's DataLoader")
    parser.add_argument("--bf16", action="store_true", help="the script uses autocast")
    parser.add_argument("--curve", action="store_true", help="lanes against throughput")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--most", type=int, default=256 if DEVICE == "cuda" else 16, help="lanes")
    parser.add_argument("--steps", type=int, default=8, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    print(f"width {options.width}, on {device}, torch {torch.__version__}")
    if options.curve:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        torch.set_num_threads(1)
        keep_freed_memory()
        print(f"batches of {options.batch_size}, {options.steps} steps; medians of {options.repeats}")
        print_curve(options)
        return
    print(
        f"{options.examples} examples, {options.trials} trials, {options.epochs} epochs, {options.processes} "
        f"processes (script: {options.peer_processes or options.processes}); best …: peer / hpo"
    )
    print_comparison(options)


if __name__ == "__main__":
    main()
