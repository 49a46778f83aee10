"""Best validation value over wall-clock time: hpo against the Optuna script, both with TPE, in turn.

usage: python benchmarks/anytime.py CSV [--trials 512] [--epochs 30] [--processes 2] [--seeds 5]
                                    [--pruner none] [--hpo-trials N] [--at 5 10 20 30 60 …] [--save FILE.json]

CSV is the diabetes table. For each seed the two search with the very same training and validation rows,
one after the other, the first in turn. Time counts from the start of the processes; a trial counts when it is
complete (its `datetime_complete`). hpo keeps its default cap of trials in flight (trials/8), the script has
one for each process. A search that has ended keeps its best value: hpo ends long before the script, so
that the later lines compare what a like number of trials found, not what like time would. --hpo-trials gives
hpo more of them, and with them more in flight.

The table has median, least and most over the seeds, and hpo less the script by seed; before a search's
first complete trial there is none. Validation values are shares of some 114 rows: ties are common.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

from optuna.trial import TrialState
from throughput import PRUNERS, TableComparison

NEVER = -math.inf
"""The best value before there is one."""


def ours(comparison):
    """(Seconds of the search, [(seconds, best value)] at each improvement) with hpo."""
    started, seconds, trials = comparison.search()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best, curve = NEVER, []
    for trial in sorted(complete, key=lambda trial: trial.datetime_complete):
        if trial.value > best:
            best = trial.value
            curve.append((trial.datetime_complete.timestamp() - started, best))
    return seconds, curve


def theirs(comparison):
    """The same with the script."""
    path = comparison.folder / "curve.csv"
    seconds = comparison.script("--curve", str(path))["seconds"]
    return seconds, [tuple(map(float, line.split(","))) for line in path.read_text().splitlines()]


def measure(options, seed):
    """Both sides' seconds and curves, the script's first; which one runs first changes with the seed."""
    found = {}
    for side in (theirs, ours) if seed % 2 == 0 else (ours, theirs):
        with tempfile.TemporaryDirectory() as folder:
            trials = options.hpo_trials or options.trials if side is ours else options.trials
            sized = argparse.Namespace(**vars(options) | {"trials": trials})
            found[side] = side(TableComparison(folder, sized, ("tpe", options.pruner, 1), seed))
    return found[theirs], found[ours]


def best_at(curve, second):
    """The best value that was known at `second`."""
    return max((value for moment, value in curve if moment <= second), default=NEVER)


def medians(curves, second):
    """Medians over the seeds at `second`, the script's and hpo's."""
    return [statistics.median(best_at(curve, second) for curve in side) for side in curves]


def stays(curves, ahead):
    """The first moment from which on `ahead(script's median, hpo's median)` holds for good; None if never.

    Medians change only where a curve does, so these moments are all there is to look at.
    """
    moments = sorted({0.0, *(moment for side in curves for curve in side for moment, _ in curve)})
    since = None
    for moment in moments:
        holds = ahead(*medians(curves, moment))
        since = (moment if since is None else since) if holds else None
    return since


def spread(values):
    """Median, least and most; a dash where some seed has none yet."""
    if not all(map(math.isfinite, values)):
        return f"{'-':>28}"
    return f"{statistics.median(values):12.4f} ({min(values):.4f}…{max(values):.4f})".rjust(28)


def report(curves, ends, moments):
    """Print the table, and from when on hpo is ahead."""
    print(f"{'second':>8}{'script':>28}{'hpo':>28}{'hpo - script':>28}")
    for moment in moments:
        script, mine = ([best_at(curve, moment) for curve in side] for side in curves)
        differences = [
            b - a if math.isfinite(a) and math.isfinite(b) else NEVER
            for a, b in zip(script, mine, strict=True)
        ]
        print(f"{moment:8g}" + "".join(map(spread, (script, mine, differences))))
    script_end, end = map(statistics.median, ends)
    print(f"median end of the search: script {script_end:.1f} s, hpo {end:.1f} s")
    tests = {
        "ahead, and stays so": lambda a, b: b > a,
        "not behind, and stays so": lambda a, b: b >= a > NEVER or b > a,
    }
    for name, test in tests.items():
        since = stays(curves, test)
        print(f"hpo's median is {name}: " + ("never" if since is None else f"from {since:.1f} s on"))


def main():
    """Measure each seed, then print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--hpo-trials", type=int, help="of hpo, by default as many as the script's")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pruner", default="none", choices=list(PRUNERS))
    parser.add_argument(
        "--at", type=float, nargs="+", default=[2, 3, 5, 7, 10, 15, 20, 30, 60, 120, 180, 300]
    )
    parser.add_argument("--save", help="write all curves here")
    options = parser.parse_args()
    pairs = []
    for seed in range(options.seeds):
        pairs.append(measure(options, seed))
        (script, _), (mine, _) = pairs[-1]
        print(f"seed {seed}: script {script:.1f} s, hpo {mine:.1f} s", flush=True)
    if options.save:
        Path(options.save).write_text(json.dumps(pairs))
    ends, curves = ([[pair[side][part] for pair in pairs] for side in (0, 1)] for part in (0, 1))
    last = max(max(end) for end in ends)
    moments = [moment for moment in options.at if moment < last]
    print(
        f"{options.trials} trials (hpo: {options.hpo_trials or options.trials}), {options.epochs} epochs, "
        f"{options.processes} processes, tpe, pruner {options.pruner}, n = {options.seeds}; "
        "median (least…most)"
    )
    report(curves, ends, [*moments, math.ceil(last)])


if __name__ == "__main__":
    main()
