"""A search with hpo and one with a peer's script, one after the other on the very same rows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
import torch

from hpo.data.prepare import prepare
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.studies import Studies
from hpo.studyfile import load_study

PEERS = Path(__file__).parent / "peers"
EVERY = 240
"""Seconds of a peer's between two searches of hpo's."""


class Comparison:
    """One study for both sides, in a folder of its own."""

    def __init__(self, folder, study, processes):
        """`study`: the text of the study file. `processes`: hpo's workers."""
        self.folder, self.processes = Path(folder), processes
        self.study = self.folder / "study.yaml"
        self.study.write_text(study)
        self.config = load_study(self.study)
        self.prepared = prepare(self.config, self.folder / "cache")
        self.parts = self.folder / "parts.npz"
        np.savez(self.parts, **self.arrays())
        self.url = f"sqlite:///{self.folder}/hpo.db"
        self.log = self.folder / "hpo.log"
        self.wait([self.start("submit", self.study)])

    def arrays(self):
        """The rows that hpo trains and validates on, for the peer."""
        arrays = {}
        for number, fold in enumerate(self.prepared.folds):
            for name, part in (("train", fold.train), ("validation", fold.validation)):
                arrays[f"{name}_x{number}"] = features(part, fold.normalization).numpy()
                arrays[f"{name}_y{number}"] = part.targets.numpy()
        return arrays

    def search(self, *extra):
        """Search with hpo; answers when its processes started, the seconds that they took, the trials.

        extra: further arguments of `hpo worker`.
        """
        command = "worker", self.config.name, f"--workers={self.processes}", *extra
        started = time.time()
        self.wait([self.start(*command) for _ in range(self.processes)])
        seconds = time.time() - started
        with Database(self.url) as database:
            trials = read_trials(database, Studies(database).study(self.config.name).study_id)
        return started, seconds, trials

    def start(self, *command):
        """A process of hpo's."""
        environment = os.environ | {"HPO_STORAGE": self.url, "HPO_CACHE": str(self.prepared.cache.parent)}
        with self.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "hpo.cli", *command], env=environment, stdout=log, stderr=log
            )

    def wait(self, processes):
        """End with what they printed if one of them failed."""
        try:
            codes = [process.wait() for process in processes]
        except BaseException:
            for process in processes:
                process.terminate()
            raise
        if any(codes):
            sys.exit(f"hpo ended with exit code {max(codes, key=abs)}:\n{self.log.read_text()}")

    def peer(self, python, name, *arguments, between=None):
        """Run a peer's script; its summary is the last line that it prints.

        between: called each `EVERY` seconds, while the script and its processes stand still. These seconds
        do not count as the script's.
        """
        command = [python, str(PEERS / name), *map(str, arguments), "--parts", str(self.parts)]
        output, errors = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with output.open("w") as out, errors.open("w") as err:
            run = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
            try:
                still = self._seconds_between(run, between)
            except BaseException:  # Ctrl-C too, which it does not see
                os.killpg(run.pid, signal.SIGKILL)
                raise
        if run.returncode:
            sys.exit(f"{name} ended with exit code {run.returncode}:\n{errors.read_text()}")
        found = json.loads(output.read_text().splitlines()[-1])
        return found | {"seconds": found["seconds"] - still}

    def _seconds_between(self, run, between):
        """Wait until `run` has ended; answers how long it stood still."""
        still = 0.0
        while between:
            try:
                run.wait(EVERY)
                break
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGSTOP)
                stopped = time.time()
                between()
                still += time.time() - stopped
                os.killpg(run.pid, signal.SIGCONT)
        run.wait()
        return still


def features(part, normalization):
    """What a network is given of a part's examples: [N, *input_shape] float32."""
    if part.rows is None:
        return part.features
    means, deviations = (
        torch.tensor(values).view(-1, 1, 1) for values in (normalization.means, normalization.deviations)
    )
    return (part.features[part.rows] - means) / deviations


def cpu_seconds():
    """Of all processes that were waited for so far."""
    usage = getrusage(RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def row(first, cells):
    """Cells in columns."""
    return f"{first:8}" + "".join(f"{cell:>16}" for cell in cells)
