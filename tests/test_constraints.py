"""Constraints: a trial whose network is too large ends untrained, and its sampler learns of it."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from commands import Desk
from conftest import study_of
from optuna.trial import TrialState
from searching import search, submitted

import models
from hpo import terminal
from hpo.config import StudyConfig
from hpo.errors import HpoError, StudyFileError
from hpo.results.candidates import best_trials
from hpo.results.summary import searched
from hpo.search.database import CONSTRAINTS, Database
from hpo.search.objective import Objective
from hpo.search.status import INFEASIBLE, StatusReader
from hpo.search.trainer import TrialCohort
from hpo.training.architecture import Architecture
from hpo.training.cost import Limits, forward_flops, parameters_of

HEAD = "data: {source: sklearn, name: wine}\ntraining: {epochs: 1, batch_size: 64}\noptions: {depth: 1}\n"
SPACE = f"{HEAD}search: {{width: {{low: 4, high: 64}}, dropout: {{low: 0.0, high: 0.5}}}}\n"


def limited(most: int, sampler: str = "random", trials: int = 12, **more: object) -> StudyConfig:
    text = f"name: limited\n{SPACE}sampler: {sampler}\ntrials: {trials}\n"
    return study_of(f"{text}constraints: {json.dumps({'parameters': {'max': most}} | more)}")


def size(width: int) -> int:
    return parameters_of(models.builder("mlp")((13,), 3, width=width, depth=1))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_networks_beyond_the_limit_are_not_trained_and_those_within_are(
    sqlite: Database, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    add = TrialCohort.add

    def noted(group: TrialCohort, number: int, *rest: Any) -> None:
        trained.append(number)
        add(group, number, *rest)

    monkeypatch.setattr(TrialCohort, "add", noted)
    trials = search(sqlite, limited(size(32), sampler), lanes=4)
    assert len(trials) == 12
    for trial in trials:
        small = trial.params["width"] <= 32
        assert trial.state == (TrialState.COMPLETE if small else TrialState.PRUNED)
        assert (INFEASIBLE in trial.user_attrs) == (not small) == (not trial.intermediate_values)
        (excess,) = trial.system_attrs[CONSTRAINTS]
        assert excess == pytest.approx(size(trial.params["width"]) / size(32) - 1)
        assert trial.user_attrs["attempt"] == 1
        assert (trial.number in trained) == small
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    theirs = optuna.load_study(study_name="limited", storage=str(sqlite.url))
    assert theirs.best_trial.params["width"] <= 32
    assert theirs.best_trial.number in {trial.number for trial in trials if trial.value is not None}


def test_the_reason_names_the_count_the_limit_and_its_key(sqlite: Database) -> None:
    trials = search(sqlite, limited(100, trials=1))
    width = trials[0].params["width"]
    said = f"its network has {size(width):,} parameters, more than constraints.parameters.max 100"
    assert trials[0].user_attrs[INFEASIBLE] == said


def test_status_and_report_count_them(sqlite: Database) -> None:
    config = limited(size(32))
    trials = search(sqlite, config)
    status = StatusReader(sqlite, submitted(sqlite, config)).read()
    refused = sum(INFEASIBLE in trial.user_attrs for trial in trials)
    assert status.infeasible == status.as_json()["infeasible"] == status.pruned == refused > 0
    assert f"{refused} pruned ({refused} beyond constraints)" in terminal.status_line(status)
    told = searched(config, trials, {})
    assert f"({refused} of them untrained, since they violate a constraint; the first, trial" in told


@pytest.mark.slow
def test_a_sampler_that_learns_stays_within_the_limit(sqlite: Database) -> None:
    """Three of four random trials are beyond this limit."""
    trials = search(sqlite, limited(size(19), "{name: tpe, startup_trials: 8}", trials=40), lanes=2)
    late = [trial for trial in trials if trial.number >= 20]
    assert sum(INFEASIBLE in trial.user_attrs for trial in late) < len(late) / 2


@pytest.mark.slow
def test_a_space_in_which_nothing_satisfies_the_constraints_ends_with_the_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    limit = "constraints: {parameters: {max: 9}}"
    study = desk.study(f"name: hopeless\n{SPACE}sampler: tpe\ntrials: 9\n{limit}")
    done = desk.hpo("run", study, "--workers", "1", "--lanes", "2", code=1)
    assert "hopeless: 9/9 finished (0 complete, 9 pruned (9 beyond constraints), 0 failed)" in done.stdout
    assert "has no complete trial to choose a winner from: of 9 trials 0 failed and 9" in done.stderr
    assert "9 of these untrained, since they violate a constraint; the first, trial 0: its" in done.stderr


def test_flops_are_limited_likewise() -> None:
    config = limited(10**9, flops={"max": 1000})
    limits = Limits(config.constraints, Architecture(config, (13,), 3))  # type: ignore[arg-type]
    settings = config.settings({"width": 32, "dropout": 0.1})
    wanted = forward_flops(models.builder("mlp")((13,), 3, width=32, depth=1), (13,))
    assert limits.costs(settings) == {"parameters": size(32), "flops": wanted}
    assert limits.excess(settings) == [size(32) / 10**9 - 1, wanted / 1000 - 1]
    said = f"its network has {wanted:,} FLOPs for an example, more than constraints.flops.max 1,000"
    assert limits.violation(settings) == said
    assert limits.violation(config.settings({"width": 4, "dropout": 0.1})) == ""


@pytest.mark.parametrize("name", ["mlp", "cnn", "vgg11", "resnet"])
def test_counting_draws_no_random_number_and_equals_the_real_network(name: str) -> None:
    shape = (13,) if name == "mlp" else (1, 16, 16)
    config = limited(10**9, flops={"max": 10**12}).model_copy(update={"architecture": name, "options": {}})
    before = torch.random.get_rng_state()
    limits = Limits(config.constraints, Architecture(config, shape, 3))  # type: ignore[arg-type]
    costs = limits.costs(config.settings({"width": 8, "dropout": 0.1}))
    assert torch.equal(torch.random.get_rng_state(), before)
    module = models.builder(name)(shape, 3, width=8, dropout=0.1)
    assert costs == {"parameters": parameters_of(module), "flops": forward_flops(module, shape)}


def test_a_network_that_needs_real_numbers_is_built_with_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build(shape, classes, *, width=3):\n"
        "    torch.ones(width).sum().item()\n    return nn.Linear(shape[0], classes)\n"
    )
    config = study_of(
        "architecture: mine.py:build\nsearch: {width: {low: 1, high: 3}}\n"
        "constraints: {parameters: {max: 9}}",
        tmp_path,
    )
    limits = Limits(config.constraints, Architecture(config, (4,), 2))  # type: ignore[arg-type]
    assert limits.costs(config.settings({"width": 2})) == {"parameters": 10}


def test_in_a_notebook_they_hold_too() -> None:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(Objective(limited(size(32))), n_trials=8)
    for trial in study.trials:
        assert (trial.state == TrialState.COMPLETE) == (trial.params["width"] <= 32)
        assert max(trial.constraints.values()) == pytest.approx(size(trial.params["width"]) / size(32) - 1)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("constraints: {}", r"constraints: must have parameters: \{max: …\}, flops: \{max: …\} or both"),
        ("constraints: {parameters: {max: 0}}", "constraints.parameters.max: must be 1 or more, not 0"),
        ("constraints: {parameters: 5}", "constraints.parameters: must be a mapping, not 5"),
        ("constraints: {params: {max: 5}}", r"constraints.params: unknown key; did you mean 'parameters'\?"),
        ("constraints: {flops: {most: 5}}", "constraints.flops.most: unknown key; valid: max"),
        (
            "constraints: {flops: {max: 5}}\nsampler: gp",
            "sampler: must be tpe, random, qmc or grid with const",
        ),
        ("warm_start: {study: a b}", "warm_start.study: must match .*, not 'a b'; .*earlier study"),
        ("warm_start: {study: early, top: 0}", "warm_start.top: must be 1 or more, not 0"),
        ("warm_start: {top: 3}", "warm_start.study: missing; the earlier study's name"),
    ],
)
def test_mistakes_are_named_with_file_key_value_and_what_is_valid(text: str, said: str) -> None:
    with pytest.raises(StudyFileError, match=f"study.yaml: [12] mistakes?\n(.*\n)*  {said}"):
        study_of(f"{SPACE}{text}")


def test_without_a_complete_trial_the_message_tells_how_many_are_refused(sqlite: Database) -> None:
    config = limited(9, trials=3)
    with pytest.raises(HpoError, match="of 3 trials 0 failed and 3 were pruned, 3 of these untrained"):
        best_trials(config, search(sqlite, config))
