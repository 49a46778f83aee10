"""The honest winner."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.errors import HpoError
from hpo.results import finalize as finalize_module
from hpo.results import lanes as lanes_module
from hpo.results import reevaluate as reevaluate_module
from hpo.results.candidates import (
    Entrant,
    assess,
    best_trials,
    epochs_of,
    mean_interval,
    shrink,
)
from hpo.results.finalize import Finalized, FinalResult, finalize, rebuild
from hpo.results.reevaluate import fresh_seeds

DISTRIBUTIONS = {"learning_rate": FloatDistribution(1e-6, 1e6), "dropout": FloatDistribution(0, 1)}


def study(**changes: Any) -> StudyConfig:
    raw: dict[str, Any] = {
        "name": "finalized",
        "data": {"source": "sklearn", "name": "wine"},
        "search": {"learning_rate": {"low": 1e-6, "high": 1e6}, "dropout": {"low": 0.0, "high": 1.0}},
        "options": {"width": 8},
        "training": {"epochs": 3, "batch_size": 32},
        "final": {"top": 3, "seeds": 3},
    }
    return StudyConfig.model_validate(raw | changes)


def trial(
    number: int, value: float | None, state: TrialState = TrialState.COMPLETE, **fields: Any
) -> FrozenTrial:
    params = fields.pop("params", {"learning_rate": 0.01 + 0.001 * number, "dropout": 0.1})
    known = {name: DISTRIBUTIONS[name] for name in params}
    made = create_trial(state=state, value=value, params=params, distributions=known, **fields)
    made.number = number
    return made


TRIALS = [
    trial(0, 0.9),
    trial(1, 0.97, params={"learning_rate": 0.03, "dropout": 0.2}),
    trial(2, 0.99, params={"learning_rate": 1e-6, "dropout": 0.9}),
    trial(3, None, TrialState.FAIL, user_attrs={"failure": "epoch 1: the training loss is nan"}),
    trial(4, 0.2),
]


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    return prepare(study(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def finalized(wine: PreparedData) -> Finalized:
    return finalize(study(), wine, TRIALS, lambda: None)


@pytest.mark.slow
def test_lucky_trial_does_not_win(finalized: Finalized) -> None:
    """Trial 2 has the search's best value, and parameters that hardly learn."""
    result = finalized.result
    assert [candidate.number for candidate in result.candidates] == [2, 1, 0, None]
    assert result.winner.number != 2
    lucky = result.candidates[0]
    assert lucky.mean is not None and lucky.mean < 0.7 < result.winner.mean
    assert lucky.value == 0.99
    assert all(candidate.n == 3 and len(candidate.values) == 3 for candidate in result.candidates)


def test_winner_is_tested_with_every_seed(finalized: Finalized) -> None:
    result = finalized.result
    assert result.test.n == 27
    assert set(result.seeds) == {"accuracy", "precision", "recall", "f1", "roc_auc", "loss"}
    assert all(statistics.n == 3 for statistics in result.seeds.values())
    assert (result.seed, result.failed_seeds, result.epochs) == (0, [], 3)
    assert result.parameters == sum(parameter.numel() for parameter in finalized.module.parameters())
    assert not finalized.module.training


def test_result_survives_json(finalized: Finalized) -> None:
    result = finalized.result
    assert FinalResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.slow
def test_same_inputs_give_the_same_result(wine: PreparedData, finalized: Finalized) -> None:
    torch.manual_seed(123)
    again = finalize(study(), wine, TRIALS, lambda: None)
    clock = {"seconds": 0, "retraining_seconds": 0}
    assert again.result.model_copy(update=clock) == finalized.result.model_copy(update=clock)
    for name, tensor in again.module.state_dict().items():
        assert torch.equal(tensor, finalized.module.state_dict()[name])


def test_test_part_stays_sealed_until_its_opening_is_recorded(
    wine: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    really_open = finalize_module.open_sealed

    def opened(*arguments: Any) -> Any:
        events.append("opened")
        return really_open(*arguments)

    monkeypatch.setattr(finalize_module, "open_sealed", opened)
    progress: list[tuple[str, int, int]] = []
    finalize(
        study(final={"top": 1, "seeds": 2}),
        wine,
        TRIALS,
        lambda: events.append(f"recorded after {progress[-1]}"),
        lambda *told: progress.append(told),
    )
    assert events == ["recorded after ('fitting baselines', 6, 6)", "opened"]
    assert ("re-evaluating", 12, 12) in progress and ("retraining", 6, 6) in progress


@pytest.mark.slow
def test_refused_opening_leaves_the_test_part_sealed(
    wine: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise HpoError("opened already")

    def opened(*_: Any) -> Any:
        pytest.fail("the test part was opened")

    monkeypatch.setattr(finalize_module, "open_sealed", opened)
    with pytest.raises(HpoError, match="opened already"):
        finalize(study(final={"top": 1, "seeds": 1}), wine, TRIALS, refuse)


FRAGILE = """
from torch import nn

def build(input_shape, classes, dropout=0.0):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Linear(8, classes))
"""


@pytest.fixture
def fragile(tmp_path: Path) -> StudyConfig:
    """A network without batch norm: plain gradient descent blows it up at a learning rate of 1e6."""
    (tmp_path / "fragile.py").write_text(FRAGILE)
    training = {"epochs": 4, "batch_size": 32, "optimizer": "sgd"}
    return study(architecture="fragile.py:build", options={}, training=training).at(tmp_path)


@pytest.fixture
def doomed(fragile: StudyConfig) -> StudyConfig:
    """The same, with defaults that blow it up too."""
    training = fragile.training.model_copy(update={"learning_rate": 1e6})
    return fragile.model_copy(update={"training": training}).at(fragile.folder)


def exploding(number: int, value: float = 1.0) -> FrozenTrial:
    return trial(number, value, params={"learning_rate": 1e6, "dropout": 0.0})


@pytest.mark.slow
def test_candidate_that_diverges_is_out_and_says_so(wine: PreparedData, fragile: StudyConfig) -> None:
    result = finalize(fragile, wine, [*TRIALS, exploding(9)], lambda: None).result
    out = result.candidates[0]
    assert out.number == 9
    assert out.out is not None and out.out.startswith("its training loss was not finite with seed ")
    assert (out.mean, out.interval, out.shrunk) == (None, None, None)
    assert result.winner.number == 1


def test_study_whose_candidates_all_diverge_has_no_winner(wine: PreparedData, doomed: StudyConfig) -> None:
    def opened() -> None:
        pytest.fail("the test part was opened")

    lost = r"its training loss was not finite with seed \d+"
    with pytest.raises(HpoError, match=rf"no winner.*trial 9: {lost}; the defaults: {lost}"):
        finalize(doomed, wine, [exploding(9)], opened)


def test_retraining_that_diverges_is_refused_before_the_test_part_is_opened(
    wine: PreparedData, fragile: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lucky(config: StudyConfig, entered: Any, values: Any, failures: Any, overlap: float) -> Any:
        return assess(config, entered, values | {number: [1.0] * 3 for number in failures}, {}, overlap)

    monkeypatch.setattr(reevaluate_module, "assess", lucky)

    def opened() -> None:
        pytest.fail("the test part was opened")

    with pytest.raises(HpoError, match="trial 9, was not finite in any of 3 retrainings"):
        finalize(fragile, wine, [exploding(9)], opened)


@pytest.mark.slow
def test_trials_of_several_shapes_and_chunks_come_to_the_same_as_together(
    wine: PreparedData, monkeypatch: pytest.MonkeyPatch, finalized: Finalized
) -> None:
    monkeypatch.setattr(lanes_module, "MAX_LANES", 2)
    chunked = finalize(study(), wine, TRIALS, lambda: None).result
    for one, other in zip(chunked.candidates, finalized.result.candidates, strict=True):
        assert one.values == pytest.approx(other.values, abs=0.05)
        assert one.n == other.n == 3
    assert {name: s.n for name, s in chunked.seeds.items()} == dict.fromkeys(chunked.seeds, 3)


@pytest.mark.slow
def test_regression_is_tested_in_the_targets_unit(tmp_path: Path) -> None:
    config = study(
        data={"source": "sklearn", "name": "diabetes"},
        metric="rmse",
        training={"epochs": 15, "batch_size": 32},
    )
    prepared = prepare(config, tmp_path)
    result = finalize(config, prepared, [trial(0, 60.0), trial(1, 55.0)], lambda: None).result
    assert result.test.task == "regression"
    assert 40 < result.test.rmse < 75, "the targets' standard deviation is 77"
    assert result.winner.mean is not None and 40 < result.winner.mean < 75
    assert result.candidates[0].number == 1, "lower is better"


def test_study_without_a_complete_trial_says_what_became_of_them(wine: PreparedData) -> None:
    trials = [TRIALS[3], trial(5, 0.5, TrialState.PRUNED)]
    with pytest.raises(HpoError) as caught:
        finalize(study(), wine, trials, lambda: None)
    assert str(caught.value) == (
        "study 'finalized' has no complete trial to choose a winner from: of 2 trials 1 failed and 1 were "
        "pruned; the first failure, of trial 3: epoch 1: the training loss is nan"
    )


def test_study_of_which_no_trial_began_says_so() -> None:
    with pytest.raises(
        HpoError, match=r"no complete trial to choose a winner from: none began within its 0\.5 h"
    ):
        best_trials(study(hours=0.5), [])


def test_rebuilt_model_has_the_weights_of_the_finalized_one(
    wine: PreparedData,
    finalized: Finalized,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(finalize_module, "open_sealed", lambda *_: pytest.fail("the test part was opened"))
    again = rebuild(study(), wine, finalized.result)
    assert again.result == finalized.result
    for name, tensor in again.module.state_dict().items():
        assert torch.equal(tensor, finalized.module.state_dict()[name])
    assert "differs" not in capsys.readouterr().out
    rebuild(study(), wine, finalized.result.model_copy(update={"weights": "of another machine"}))
    assert "is not to the bit the one that was tested" in capsys.readouterr().out


def test_best_trials_are_distinct_and_ranked_by_the_metrics_direction() -> None:
    twins = [trial(0, 0.5), trial(1, 0.7), trial(2, 0.9, params=trial(0, 0.5).params)]
    assert [found.number for found in best_trials(study(), twins)] == [2, 1]
    assert [found.number for found in best_trials(study(metric="loss"), twins)] == [0, 1]


def test_best_epoch_fixes_the_number_of_epochs() -> None:
    curve = trial(0, 0.9, intermediate_values={1: 0.5, 2: 0.9, 3: 0.9, 4: float("nan"), 5: 0.7})
    assert epochs_of(study(training={"epochs": 5, "select": "best_epoch"}), curve) == 2
    assert epochs_of(study(training={"epochs": 5}), curve) == 5


def test_fresh_seeds_are_distinct_and_not_the_searchs() -> None:
    seeds = fresh_seeds(study(final={"seeds": 1000}))
    assert len(set(seeds)) == 1000
    assert 0 not in seeds
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds[:3] == fresh_seeds(study())
    assert seeds[:3] != fresh_seeds(study(training={"seed": 1}))


def test_interval_of_independent_values_is_students() -> None:
    # Mean 2, s = 1, n = 3: 2 ± 4.3027/√3.
    assert mean_interval([1, 2, 3], overlap=0) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    low, high = mean_interval([1, 2, 3], overlap=0.25) or (0, 0)
    assert high - low == pytest.approx(2 * 2.4841 * math.sqrt(1 + 3 * 0.25), abs=1e-3)
    assert mean_interval([0.5], overlap=0.2) is None


def test_interval_ends_where_the_metric_does() -> None:
    (candidate,) = assess(study(), [Entrant(0, {}, 0.9, 3)], {0: [0.9, 1.0]}, {}, 0.2)
    assert candidate.interval is not None and candidate.interval[1] == 1


def test_real_differences_are_hardly_shrunk() -> None:
    shrunk = shrink([[0.70, 0.72, 0.71], [0.80, 0.82, 0.81], [0.90, 0.91, 0.92]], overlap=0.2)
    assert shrunk == pytest.approx([0.71, 0.81, 0.91], abs=0.001)


def test_what_a_hard_split_costs_all_candidates_is_no_reason_to_shrink() -> None:
    assert shrink([[0.9, 0.5, 0.7], [0.8, 0.4, 0.6]], overlap=0) == pytest.approx([0.7, 0.6])


def test_single_candidate_or_single_seed_is_not_shrunk() -> None:
    assert shrink([[0.7, 0.9]], overlap=0.2) == pytest.approx([0.8])
    assert shrink([[0.7], [0.9]], overlap=0.2) == [0.7, 0.9]


PICKY = """
from torch import nn

def build(input_shape, classes, width=64, dropout=0.0):
    if width > 32:
        raise ValueError("too wide")
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.ReLU(), nn.Linear(width, classes))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"architecture": "picky.py:build"}, "ValueError: too wide"),
        ({"constraints": {"parameters": {"max": 500}}}, "more than constraints.parameters.max 500"),
    ],
    ids=["cannot be built", "beyond a constraint"],
)
def test_defaults_that_cannot_be_trained_are_out_and_say_so(
    wine: PreparedData, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    (tmp_path / "picky.py").write_text(PICKY)
    search = {"width": {"low": 4, "high": 64}}
    config = study(search=search, options={}, final={"top": 1, "seeds": 2}, **changes).at(tmp_path)
    trial = create_trial(value=0.9, params={"width": 8}, distributions={"width": IntDistribution(4, 64)})
    result = finalize(config, wine, [trial], lambda: None).result
    assert result.winner.number == trial.number
    out = result.candidates[-1]
    assert out.number is None and out.out is not None and why in out.out
