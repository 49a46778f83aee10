"""What a user of Ray Tune would write: ASHA, random search, and actors that are used again.

usage: ray_script.py CSV TRIALS EPOCHS PROCESSES [--seed S] [--parts FILE.npz]

Data, network and training are those of optuna_script.py, and so is the JSON line that it prints. Ray's own
start (`ray.init`, some seconds) is not counted; the start of its actors is. What would slow it down and is
not needed for the result is off: checkpoints, and files for TensorBoard and as CSV and JSON. Needs ray[tune]
and torch.
"""

import argparse
import json
import logging
import math
import os
import tempfile
import time

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import torch
from optuna_script import Fold, load
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

SPACE = {
    "dropout": tune.uniform(0.0, 0.7),
    "batch_size": tune.choice([16, 32, 64, 128]),
    "optimizer": tune.choice(["Adam", "RMSprop", "SGD"]),
    "learning_rate": tune.loguniform(1e-4, 1e-1),
}


class Network(tune.Trainable):
    """One trial after another in one process."""

    def setup(self, config, parts=None):
        """Called once for each actor."""
        torch.set_num_threads(1)
        self.part = parts[0]
        self.reset_config(config)

    def reset_config(self, new_config):
        """The next trial."""
        self.fold = Fold(self.part, new_config)
        return True

    def step(self):
        """One epoch."""
        return {"accuracy": self.fold.epoch()}


def main():
    """Search and sum up."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv")
    for name in ("trials", "epochs", "processes"):
        parser.add_argument(name, type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts")
    options = parser.parse_args()
    ray.init(
        num_cpus=options.processes,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        scheduler = ASHAScheduler(
            metric="accuracy", mode="max", max_t=options.epochs, grace_period=3, reduction_factor=4
        )
        tuner = tune.Tuner(
            tune.with_parameters(Network, parts=load(options.csv, 1, options.parts)),
            param_space=SPACE,
            tune_config=tune.TuneConfig(
                num_samples=options.trials,
                max_concurrent_trials=options.processes,
                scheduler=scheduler,
                search_alg=BasicVariantGenerator(random_state=options.seed),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        started = time.time()
        results = tuner.fit()
        seconds = time.time() - started
    finished = [result.metrics for result in results if result.error is None and result.metrics]
    complete = [metrics for metrics in finished if metrics["training_iteration"] >= options.epochs]
    summary = {
        "seconds": round(seconds, 2),
        "trials": len(finished),
        "per_hour": round(len(finished) / seconds * 3600),
        "epochs": sum(metrics["training_iteration"] for metrics in finished),
        "best": max((metrics["accuracy"] for metrics in complete), default=math.nan),
    }
    print(json.dumps(summary))
    ray.shutdown()


if __name__ == "__main__":
    main()
