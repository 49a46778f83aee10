"""scikit-learn beside the winner."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import study_of
from report_example import config as example_config
from report_example import result as example_result
from report_example import trials as example_trials
from sklearn.linear_model import LogisticRegression

from hpo.config import StudyConfig
from hpo.data.parts import final_training, fresh_folds, open_sealed
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.results import baselines as baselines_module
from hpo.results.baselines import Baseline, Baselines
from hpo.results.candidates import Candidate
from hpo.results.lanes import silent
from hpo.results.reevaluate import fresh_seeds
from hpo.results.summary import summary, unbeaten

TEXT = (
    "data: {source: sklearn, name: %s}\nsearch: {learning_rate: {low: 1e-3, high: 1e-2}}\n"
    "final: {seeds: 2}\n%s"
)


def winner(values: list[float]) -> Candidate:
    return Candidate(
        number=1, params={}, value=0.9, epochs=1, n=2, mean=0.9, interval=None, shrunk=0.9, values=values
    )


def beside(config: StudyConfig, prepared: PreparedData, values: list[float]) -> tuple[Baseline, ...]:
    folds, training = fresh_folds(config, prepared, fresh_seeds(config)), final_training(config, prepared)
    fitted = Baselines(config, prepared, folds, training, silent)
    return fitted.beside(winner(values), open_sealed(prepared, training))


@pytest.mark.slow
def test_a_table_has_two_on_the_winners_splits_and_on_the_test_part(tmp_path: Path) -> None:
    config = study_of(TEXT % ("wine", ""))
    prepared = prepare(config, tmp_path)
    linear, boosting = beside(config, prepared, [0.5, 0.6])
    assert (linear.name, boosting.name) == ("logistic regression", "gradient boosting")
    fold = fresh_folds(config, prepared, fresh_seeds(config))[1]
    model = LogisticRegression(max_iter=1000).fit(fold.train.features.numpy(), fold.train.targets.numpy())
    expected = model.score(fold.validation.features.numpy(), fold.validation.targets.numpy())
    assert linear.values[1] == pytest.approx(expected)
    assert linear.lead == pytest.approx(0.55 - np.mean(linear.values)) and linear.lead < 0
    assert linear.test["accuracy"] is not None and linear.test["accuracy"] > 0.9
    assert set(linear.test) == {"accuracy", "precision", "recall", "f1", "roc_auc", "loss"}
    assert not linear.beaten and not boosting.beaten


@pytest.mark.slow
def test_a_regression_has_ridge_and_lower_is_better(tmp_path: Path) -> None:
    config = study_of(TEXT % ("diabetes", "metric: rmse"))
    linear, boosting = beside(config, prepare(config, tmp_path), [10.0, 11.0])
    assert (linear.name, boosting.name) == ("ridge regression", "gradient boosting")
    assert all(40 < value < 80 for value in linear.values + boosting.values)
    assert linear.lead is not None and linear.lead > 30 and linear.beaten
    assert linear.test["r2"] is not None and linear.test["r2"] > 0.1


@pytest.mark.slow
def test_images_have_a_regression_of_their_pixels_on_a_subset_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines_module, "MOST_IMAGES", 400)
    config = study_of(TEXT.replace("%s}", "digits, images: true}", 1) % "architecture: cnn")
    (linear,) = beside(config, prepare(config, tmp_path), [1.0, 1.0])
    assert linear.how == "C 1, at most 100 iterations, 400 of 1,527 training examples"
    assert linear.test["accuracy"] is not None and linear.test["accuracy"] > 0.85


def test_one_that_cannot_be_fitted_says_why_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise ValueError("Input X contains infinity")

    monkeypatch.setattr(baselines_module, "_trained", refuse)
    config = study_of(TEXT % ("wine", ""))
    linear, _ = beside(config, prepare(config, tmp_path), [0.5, 0.6])
    assert linear.out == "it could not be fitted: Input X contains infinity"
    assert (linear.values, linear.mean, linear.lead, linear.test) == ([], None, None, {})


def baseline(lead: float, low: float, high: float) -> Baseline:
    return Baseline(
        name="logistic regression",
        how="C 1",
        values=[0.8] * 10,
        mean=0.8,
        interval=(0.7, 0.9),
        lead=lead,
        lead_interval=(low, high),
        test={"accuracy": 0.75},
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            baseline(-0.01, -0.03, 0.01),
            "does not beat logistic regression: on the same 10 splits its accuracy is worse by 0.010 (95 % "
            "interval of the lead -0.030 to 0.010); on the test rows it has ",
        ),
        (
            baseline(0.01, -0.01, 0.03),
            "does not beat logistic regression by more than noise: on the same 10 splits its accuracy is "
            "better by 0.010",
        ),
        (
            baseline(0.03, 0.01, 0.05).model_copy(update={"lead_interval": None}),
            "One split does not tell whether the tuned network beats logistic regression by more than luck: "
            "on the same split its accuracy is better by 0.030; on the test rows",
        ),
        (baseline(0.03, 0.01, 0.05), None),
    ],
    ids=["worse", "within noise", "no interval", "beaten"],
)
def test_a_winner_that_does_not_beat_one_says_so(found: Baseline, says: str | None) -> None:
    study = example_config()
    searched = example_trials(study, 40)
    result = example_result(study, searched, ["no", "yes"])
    winner = result.winner if found.lead_interval else result.winner.model_copy(update={"n": 1})
    result = result.model_copy(update={"baselines": (found,), "winner": winner})
    told = " ".join(unbeaten(study, result))
    assert (says in told) if says else told == ""
    assert told in " ".join(summary(study, searched, result, {}))


def test_defaults_that_win_say_that_the_search_found_nothing_better() -> None:
    study = example_config()
    searched = example_trials(study, 40)
    result = example_result(study, searched, ["no", "yes"])
    defaults = next(candidate for candidate in result.candidates if candidate.number is None)
    told = " ".join(summary(study, searched, result.model_copy(update={"winner": defaults}), {}))
    best = result.candidates[0]
    assert "The winner is the configuration's defaults, with dropout 0" in told
    assert f"The search found nothing better than the defaults: its best, {best.name}, had" in told
    assert "The defaults, re-evaluated with 10 fresh seeds, each on its own split, have a validation" in told
