"""What is said of the parameters: planted truths, and nothing where trials are too few."""

from typing import Any

import numpy as np
import pytest
import report_example as example
from optuna.trial import FrozenTrial, create_trial

from hpo.config import StudyConfig
from hpo.results import contours, effect_figures, effect_text
from hpo.results.effects import effects
from hpo.results.groups import groupings
from hpo.results.sections import leading_pairs
from hpo.results.theme import NothingToDraw
from hpo.space import distributions

GAIN = 0.06
"""What `adam` adds over the other two optimizers, which are alike."""


def config(**changes: Any) -> StudyConfig:
    search: dict[str, Any] = {
        "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
        "batch_size": {"choices": [16, 32, 64]},
        "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": ["sgd", "rmsprop"]}},
    }
    return example.config(search=search, **changes)


def planted(
    study: StudyConfig, count: int, seed: int, together: float = 0.0, sign: int = 1
) -> list[FrozenTrial]:
    """Random trials in which the optimizer matters, and `together` with one batch size; nothing else does."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        optimizer = ["adam", "rmsprop", "sgd"][generator.integers(3)]
        params: dict[str, Any] = {
            "optimizer": optimizer,
            "batch_size": [16, 32, 64][generator.integers(3)],
            "learning_rate": float(10 ** generator.uniform(-4, -1)),
        }
        if optimizer != "adam":
            params["momentum"] = float(generator.uniform(0, 0.9))
        value = 0.8 + sign * GAIN * (optimizer == "adam") + generator.normal(0, 0.03)
        value += sign * together * (optimizer == "adam" and params["batch_size"] == 16)
        known = {name: kind for name, kind in distributions(study.search).items() if name in params}
        found.append(create_trial(value=value, params=params, distributions=known))
        found[-1].number = number
    return found


@pytest.mark.slow
def test_planted_parameter_leads_with_an_interval_that_holds_the_truth() -> None:
    held, clear = 0, []
    for seed in range(40):
        study = config()
        found = effects(planted(study, 90, seed), study).found
        leader = found[0]
        assert (leader.name, leader.group, leader.clear) == ("optimizer", "adam", True)
        held += leader.interval[0] <= GAIN <= leader.interval[1]
        clear += [effect.name for effect in found[1:] if effect.clear]
    assert held >= 37, "95 % intervals of 40 studies"
    assert len(clear) <= 8, "of 120 parameters without an effect"


def test_planted_parameter_is_named_in_a_sentence_with_its_interval() -> None:
    study = config()
    found = effects(planted(study, 90, 0), study)
    first, *_ = effect_text.sentences(found, study)
    assert first.startswith("With optimizer adam the accuracy is 0.0")
    assert "higher than with its other values (95 % interval 0.0" in first
    assert "What made the difference: optimizer (adam: accuracy better by 0.0" in effect_text.headline(
        found, study
    )
    assert sum(told.startswith("No effect of ") for told in effect_text.sentences(found, study)) == 3


def test_gain_in_a_metric_that_is_to_shrink_is_a_gain() -> None:
    study = config(metric="loss")
    found = effects(planted(study, 90, 0, sign=-1), study)
    leader = found.found[0]
    assert (leader.name, leader.group) == ("optimizer", "adam")
    assert leader.interval[0] <= GAIN <= leader.interval[1]
    assert "lower than with its other values" in effect_text.sentences(found, study)[0]


@pytest.mark.slow
def test_planted_interaction_is_seen_and_an_absent_one_is_not_claimed() -> None:
    study = config()
    seen = effects(planted(study, 200, 1, together=0.1), study)
    assert seen.interaction is not None and seen.interaction.p < 0.001
    assert set(seen.interaction.names) == {"optimizer", "batch_size"}
    assert set(seen.interaction.best) == {"adam", "16"}
    assert any("depend on each other" in told for told in effect_text.sentences(seen, study))
    claimed = 0
    for seed in range(20):
        interaction = effects(planted(study, 150, seed), study).interaction
        claimed += interaction is not None and interaction.p < effect_text.P
    assert claimed <= 4


def test_too_few_trials_are_claimed_nothing_of() -> None:
    study = config()
    with pytest.raises(
        NothingToDraw, match=r"12 complete trials are too few .* at least 17 are needed"
    ) as refused:
        effects(planted(study, 12, 0), study)
    told = effect_text.headline(refused.value, study)
    assert told.startswith("Which parameters matter cannot be told. 12 complete trials are too few")


def test_parameter_that_hardly_varied_is_said_to_be_untold() -> None:
    study = config()
    trials = [trial for trial in planted(study, 200, 0) if trial.params["batch_size"] == 16]
    found = effects(trials, study)
    assert found.untold == ("batch_size",)
    assert "The trials do not tell the effect of batch_size." in effect_text.sentences(found, study)


def test_numbers_are_grouped_into_parts_with_equally_many_trials() -> None:
    study = config()
    trials = planted(study, 90, 0)
    by_name = {found.name: found for found in groupings(trials, study, 3)}
    assert by_name["learning_rate"].counts == (30, 30, 30)
    assert by_name["learning_rate"].labels[0].startswith("0.0001")
    assert sum(by_name["momentum"].counts) == sum("momentum" in trial.params for trial in trials) < 90


def test_one_wild_value_does_not_hide_an_effect() -> None:
    study = config(metric="loss")
    trials = planted(study, 90, 0, sign=-1)
    trials[5].value = 1e9
    assert effects(trials, study).found[0].name == "optimizer"


def test_figure_of_effects_marks_what_stands_out_by_shape_too() -> None:
    study = config()
    drawn = effect_figures.effects_figure(effects(planted(study, 90, 0), study), study)
    assert [trace.name for trace in drawn.data] == ["stands out from chance", "does not"]
    assert drawn.data[0].marker.symbol != drawn.data[1].marker.symbol
    assert list(drawn.data[0].y) == ["optimizer<br>adam"]


def test_contour_peaks_where_values_do_and_is_empty_without_trials() -> None:
    study = example.config()
    trials = [trial for trial in example.trials(study, 300) if trial.params["dropout"] < 0.3]
    surface = contours.contour(trials, study, ("learning_rate", "dropout")).data[0]
    height = np.asarray(surface.z, dtype=float)
    assert np.isnan(height[-1]).all(), "no trial has a dropout of 0.7"
    best = surface.x[int(np.nanargmax(np.nanmean(height[:10], axis=0)))]
    assert 1e-3 < best < 1e-2, "planted at 10 ** -2.5"


def test_contour_of_choices_has_a_row_for_each() -> None:
    study = example.config()
    drawn = contours.contour(example.trials(study, 200), study, ("learning_rate", "optimizer"))
    assert np.asarray(drawn.data[0].z).shape == (3, contours.STEPS)
    assert list(drawn.layout.yaxis.ticktext) == ["adam", "rmsprop", "sgd"]


def test_contours_are_of_the_parameters_that_explain_most() -> None:
    study = config()
    found = effects(planted(study, 90, 0), study)
    pairs = leading_pairs(study, found)
    assert len(pairs) == 3 and pairs[0] == (found.found[0].name, found.found[1].name)
    assert leading_pairs(study, NothingToDraw("too few"))[0] == ("optimizer", "batch_size")
