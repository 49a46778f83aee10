"""The winner trained on all of train + validation, once for each seed."""

import time
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hpo.config import StudyConfig
from hpo.data.prepared import FinalTraining, Fold, Part, PreparedData
from hpo.errors import HpoError
from hpo.results.candidates import Candidate
from hpo.results.lanes import Progress, Watch, in_chunks, train_lanes
from hpo.results.reevaluate import fresh_seeds
from hpo.training.architecture import Architecture
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Retrained:
    """The winner's models, one for each seed whose training stayed finite."""

    cohorts: list[Cohort]
    seed: int
    module: nn.Module
    """Of `seed`, in evaluation mode, on the CPU."""
    training: FinalTraining
    seconds: float
    """All of them together."""

    def outputs(self, test: Part) -> dict[int, Tensor]:
        """[N, outputs] by seed, of models whose are finite; the exported one's as its user will call it."""
        outputs = {self.seed: self._module_outputs(test.features)}
        for cohort in self.cohorts:
            parts = [cohort.predict(part) for part in torch.split(test.features, EVALUATION_BATCH)]
            for key, lane_outputs in zip(cohort.keys, torch.cat(parts, dim=1), strict=True):
                if key.seed != self.seed and bool(lane_outputs.isfinite().all()):
                    outputs[key.seed] = lane_outputs
        return outputs

    @torch.no_grad()
    def _module_outputs(self, features: Tensor) -> Tensor:
        outputs = torch.cat([self.module(part) for part in torch.split(features, EVALUATION_BATCH)])
        return outputs * self.training.target_scale + self.training.target_mean


def seeds_of_winner(config: StudyConfig) -> list[int]:
    """training.seed, whose model is exported, and fresh ones."""
    return [config.training.seed, *fresh_seeds(config)][: config.final.seeds]


def retrain(
    config: StudyConfig,
    prepared: PreparedData,
    architecture: Architecture,
    winner: Candidate,
    training: FinalTraining,
    tell: Progress,
) -> Retrained:
    """Train the winner on all of train + validation, once for each seed.

    Raises:
        HpoError: none of them stayed finite.
    """
    began = time.monotonic()
    nothing = Part(training.train.features[:0], training.train.targets[:0])
    fold = Fold(training.train, nothing, training.target_mean, training.target_scale, training.normalization)
    data = DeviceData((fold,), prepared.task, prepared.outputs)
    settings = config.settings(winner.params)
    lanes = [Lane(LaneKey(winner.lane_number, 0, seed), settings) for seed in seeds_of_winner(config)]
    watch = Watch(tell, "retraining", len(lanes) * winner.epochs)
    make = partial(Cohort, architecture, data, config.metric, settings, winner.epochs)
    chunks = in_chunks(lanes, lambda chunk: train_lanes(make(), chunk, winner.epochs, watch))
    cohorts = [cohort for _, cohort in chunks]
    finite = [(cohort, key) for cohort in cohorts for key in cohort.keys]
    if not finite:
        raise HpoError(
            f"study {config.name!r}: the loss of its winner, {winner.name}, was not finite in any of "
            f"{len(lanes)} retrainings on train + validation; the test part was not opened"
        )
    cohort, key = min(finite, key=lambda found: lanes.index(Lane(found[1], settings)))
    return Retrained(cohorts, key.seed, cohort.module(key).eval(), training, time.monotonic() - began)
