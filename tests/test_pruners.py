"""Pruners: Optuna's rules, with the study file's numbers."""

import random
from typing import Any

import optuna
import pytest
from conftest import study_of
from optuna.trial import TrialState

from hpo.search.pruners import Median, make_pruner


def test_pruners_have_the_resources_that_the_study_file_says() -> None:
    def pruner(text: str) -> Any:
        return make_pruner(
            study_of(
                f"search: {{dropout: {{low: 0.0, high: 0.5}}}}\ntraining: {{epochs: 27}}\npruner: {text}"
            )
        )

    asha = pruner("{name: asha, min_epochs: 3, reduction_factor: 2}")
    assert (asha._min_resource, asha._reduction_factor) == (3, 2)
    hyperband = pruner("{name: hyperband, min_epochs: 3}")
    assert (hyperband._min_resource, hyperband._max_resource) == (3, 27)
    median = pruner("{name: median, min_epochs: 4, startup_trials: 2}")
    assert (median.min_epochs, median.startup_trials) == (4, 2)
    assert isinstance(pruner("none"), optuna.pruners.NopPruner)


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_median_rule_decides_as_optuna_does(direction: str) -> None:
    draw, decisions = random.Random(0), set()
    study = optuna.create_study(direction=direction)
    ours = Median(startup_trials=3, min_epochs=2)
    theirs = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    for _ in range(40):
        running = [study.ask() for _ in range(3)]
        for epoch in range(1, draw.randint(2, 6)):
            for trial in running:
                trial.report(round(draw.random(), 1), epoch)  # of few values, so that some are equal
                frozen = study.trials[trial.number]
                decisions.add(theirs.prune(study, frozen))
                assert ours.prune(study, frozen) == theirs.prune(study, frozen), (trial.number, epoch)
        for trial in running:
            study.tell(trial, draw.random(), TrialState.COMPLETE)
    assert decisions == {False, True}
