"""A tuned network against logistic regression on a table, over repeated stratified splits.

usage: python benchmarks/dataset.py STUDY.yaml [--splits 20] [--first 0] [--trials N] [--folds N]
                                   [--save FILE.json]

STUDY names a table whose test part is drawn by `training.seed`. For each of the seeds 0, 1, … it is searched
and finalized as `hpo run` does it, in this process: each split has a search, a winner and a test of its own.
Both sides have the same rows: scikit-learn's models are the baselines that `hpo finalize` records, trained on
the same train + validation rows.

The difference is the exported model's test accuracy (or the study's metric) less the baseline's. Its interval
is Nadeau and Bengio's (2003), since random splits share rows; "over seeds" is the mean of all retrainings
instead of the exported one. The lead on re-evaluation is that of train + validation alone, by which a study
file can be improved without looking at test rows.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import torch

from hpo.config import Folds
from hpo.data.prepare import prepare
from hpo.results.candidates import mean_interval
from hpo.results.finalize import finalize
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.launch import serve
from hpo.search.running import WorkerOptions
from hpo.search.studies import Studies
from hpo.search.submission import submit
from hpo.studyfile import load_study

LANES = 40
"""Fixed, so that a run can be repeated to the trial."""


def study(options, seed):
    """The study file with another split, and as many trials and folds as wanted."""
    config = load_study(Path(options.study))
    changes = {"name": f"{config.name}-{seed}"[:100]}
    changes["training"] = config.training.model_copy(update={"seed": seed})
    if options.trials:
        changes["trials"] = options.trials
    if options.folds:
        changes["validation"] = Folds(folds=options.folds)
    changed = config.model_copy(update=changes)
    return changed.at(config.folder)


def measure(config, folder):
    """Search and finalize one split; what both sides came to."""
    prepared = prepare(config, folder / "cache")
    with Database(f"sqlite:///{folder}/hpo.db") as database:
        database.create_schema()
        record = submit(Studies(database), config, prepared.fingerprint)
        serve(database, record, WorkerOptions(LANES, poll=0.05), threading.Event(), folder / "checkpoints")
        trials = read_trials(database, record.study_id)
    result = finalize(config, prepared, trials, lambda: None).result
    winner, metric = result.winner, config.metric
    return {
        "seed": config.training.seed,
        "winner": winner.name,
        "params": winner.params,
        "search": max(candidate.value for candidate in result.candidates if candidate.value is not None),
        "mean": winner.mean,
        "exported": result.test.scalars()[metric],
        "over seeds": result.seeds[metric].mean,
        "test rows": result.test.n,
        "training rows": prepared.sizes["train"] + prepared.sizes["validation"],
        "baselines": {found.name: found.test[metric] for found in result.baselines},
        "leads": {found.name: found.lead for found in result.baselines},
    }


def difference(rows, side, baseline):
    """A line on one side less a baseline: mean and 95 % interval, and on how many splits it is ahead."""
    differences = [row[side] - row["baselines"][baseline] for row in rows]
    overlap = statistics.mean(row["test rows"] / row["training rows"] for row in rows)
    low, high = mean_interval(differences, overlap) or (float("nan"), float("nan"))
    ahead, behind = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    return (
        f"{side} less {baseline}: {statistics.mean(differences):+.4f} (95 %: {low:+.4f} to {high:+.4f}), "
        f"ahead on {ahead}, behind on {behind} of {len(rows)}"
    )


def report(rows):
    """Print means, differences, and what selection had cost."""
    names = list(rows[0]["baselines"])
    sides = {side: [row[side] for row in rows] for side in ("exported", "over seeds")}
    sides |= {name: [row["baselines"][name] for row in rows] for name in names}
    for side, values in sides.items():
        print(
            f"test, {side}: mean {statistics.mean(values):.4f}, {min(values):.4f} to {max(values):.4f}, "
            f"standard deviation {statistics.stdev(values):.4f}"
        )
    for name in names:
        print(difference(rows, "exported", name))
        print(difference(rows, "over seeds", name))
        lead = statistics.mean(row["leads"][name] for row in rows)
        print(f"lead on re-evaluation over {name}: {lead:+.4f}")
    claimed, honest = (statistics.mean(row[side] for row in rows) for side in ("search", "mean"))
    defaults = sum(row["winner"] == "the defaults" for row in rows)
    print(
        f"search's best {claimed:.4f}, winner re-evaluated {honest:.4f}; "
        f"the defaults won on {defaults} of {len(rows)}"
    )


def main():
    """Measure each split, then print what they come to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("--splits", type=int, default=20, help="2 or more")
    parser.add_argument("--first", type=int, default=0, help="training.seed of the first split")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--folds", type=int)
    parser.add_argument("--save", help="write all splits here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, began = [], time.monotonic()
    for seed in range(options.first, options.first + options.splits):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(study(options, seed), Path(folder)))
        row = rows[-1]
        print(
            f"split {seed}: exported {row['exported']:.4f}, over seeds {row['over seeds']:.4f}, "
            + ", ".join(f"{name} {value:.4f}" for name, value in row["baselines"].items())
            + f"; {row['winner']}, {time.monotonic() - began:.0f} s so far",
            flush=True,
        )
        if options.save:
            Path(options.save).write_text(json.dumps(rows, indent=1))
    report(rows)


if __name__ == "__main__":
    main()
