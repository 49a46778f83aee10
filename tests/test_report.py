"""The report and its figures, without a browser."""

import html
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import report_example as example
from optuna.trial import FrozenTrial, TrialState

from hpo.config import StudyConfig
from hpo.errors import HpoError
from hpo.results import figures, importance, parallel, slices, winner_figures
from hpo.results.confusions import Confusion
from hpo.results.finalize import FinalResult
from hpo.results.findings import Finding
from hpo.results.metrics import evaluate
from hpo.results.report import as_json, render
from hpo.results.reported import Reported
from hpo.results.sections import Sections, draw
from hpo.results.summary import duration, failures, number, summary
from hpo.results.theme import NothingToDraw

CLASSES = ["healthy", example.HOSTILE]


@pytest.fixture(scope="module")
def study() -> StudyConfig:
    return example.config()


@pytest.fixture(scope="module")
def trials(study: StudyConfig) -> list[FrozenTrial]:
    return example.trials(study, 60)


@pytest.fixture(scope="module")
def told(study: StudyConfig, trials: list[FrozenTrial]) -> Reported:
    return example.reported(study, trials, example.result(study, trials, CLASSES))


@pytest.fixture(scope="module")
def drawn(told: Reported) -> Sections:
    """The figures, which are most of the work; the same for tests that change something else."""
    return draw(told)


@pytest.fixture(scope="module")
def page(told: Reported, drawn: Sections) -> str:
    return render(told, drawn)


def test_classes_confused_most_are_named_and_shown(told: Reported, drawn: Sections) -> None:
    confused = Confusion(true=example.HOSTILE, predicted="healthy", count=7, of=60, images=("aGk=",))
    assert told.result is not None
    result = told.result.model_copy(update={"confusions": (confused,)})
    page = render(replace(told, result=result), drawn)
    assert (
        "<strong>&lt;script&gt;alert(1)&lt;/script&gt;</strong> taken for <strong>healthy</strong>: 7 of 60"
        in page
    )
    assert '<img src="data:image/png;base64,aGk="' in page and example.HOSTILE not in page


class Outline(HTMLParser):
    """What a test asks about a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.plots: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.ids += [known["id"]] if known.get("id") else []
        self.loaded += [str(known[name]) for name in ("src", "srcset", "data") if name in known]
        self.loaded += ["<link>"] if tag == "link" else []
        self.links += [str(known["href"])] if tag == "a" else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.scripts += tag == "script"
        self.plots += [known] if known.get("class") == "plot" else []


def test_page_is_one_file_that_loads_nothing(page: str) -> None:
    outline = Outline(page)
    assert outline.loaded == []
    assert outline.scripts == 4, "plotly, the page's own, and two of data"
    assert "default-src 'none'" in page
    assert len(page.encode()) < 6_000_000
    assert page.count("* plotly.js v") == 1


def test_page_is_a_well_formed_outline_with_described_plots(page: str) -> None:
    outline = Outline(page)
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(
        deeper - level <= 1 for level, deeper in zip(outline.headings, outline.headings[1:], strict=False)
    )
    assert len(outline.ids) == len(set(outline.ids))
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)
    assert len(outline.plots) == 13 + len(example.config().search)
    assert all(plot["role"] == "img" and len(str(plot["aria-label"])) > 20 for plot in outline.plots)


def test_hostile_names_are_text_everywhere(page: str) -> None:
    assert example.HOSTILE not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def data_of(page: str, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_hostile_names_cannot_leave_the_data_and_are_escaped_for_plotly(page: str) -> None:
    drawn = data_of(page, "figures")
    assert {"history", "intermediate", "importances", "parallel", "roc", "confusion"} <= set(drawn)
    strings = list(_strings(drawn))
    assert any("&lt;script&gt;" in text for text in strings)
    assert not any("<script" in text for text in strings)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def test_summary_tells_the_outcome_in_numbers(study: StudyConfig, trials: list[FrozenTrial]) -> None:
    result = example.result(study, trials, CLASSES)
    told = " ".join(summary(study, trials, result, example.SIZES))
    assert "60 trials of mlp searched dropout, batch_size, optimizer, learning_rate and momentum" in told
    assert "538 rows to train on, 115 rows to validate on, 115 rows to test on" in told
    assert "38 are complete, 19 were pruned, 3 failed" in told
    winner = result.winner
    assert f"The winner is trial {winner.number}, with dropout" in told
    assert f"a validation accuracy of {winner.value:.3f}; re-evaluated with 10 fresh seeds" in told
    assert f"had flattered it by {winner.value - (winner.shrunk or 0):.3f}" in told
    assert f"a test accuracy of {result.test.scalars()['accuracy']:.3f} on 115 held-out rows" in told
    assert "Retraining was not finite with these seeds: 12." in told


def test_candidates_that_chance_explains_are_said_to_be_indistinct(
    study: StudyConfig, trials: list[FrozenTrial]
) -> None:
    result = example.result(study, trials, CLASSES)
    same = [
        candidate.model_copy(update={"shrunk": 0.8}) for candidate in result.candidates if not candidate.out
    ]
    apart = [candidate.model_copy(update={"shrunk": 0.8 + n / 100}) for n, candidate in enumerate(same)]
    for candidates, says in ((same, True), (apart, False)):
        changed = result.model_copy(update={"candidates": candidates})
        told = " ".join(summary(study, trials, changed, example.SIZES))
        assert ("The 5 candidates cannot be told apart" in told) is says


def test_study_that_is_not_finalized_is_reported_as_that(study: StudyConfig) -> None:
    page = render(example.reported(study, example.trials(study, 4)))
    assert "has not been finalized" in page
    assert 'id="winner"' not in page
    assert "Importances need at least 10 complete trials; there are 3." in page


def test_study_whose_trials_all_failed_is_still_reported(study: StudyConfig) -> None:
    failed = [trial for trial in example.trials(study, 60) if trial.state is TrialState.FAIL]
    page = render(example.reported(study, failed))
    assert page.count("No trial is complete, so there are no values to draw.") == 7
    assert "epoch 3: the training loss is nan" in page
    assert data_of(page, "figures") == {}


@pytest.mark.slow
def test_regression_is_reported_with_its_own_figures() -> None:
    study = example.config("regression")
    trials = example.trials(study, 20)
    page = render(example.reported(study, trials, example.result(study, trials, [])))
    assert "predicted" in data_of(page, "figures")
    assert "roc" not in data_of(page, "figures")
    assert "RMSE" in page


def test_history_draws_complete_trials_only_and_their_running_best(
    study: StudyConfig, trials: list[FrozenTrial]
) -> None:
    points, best = figures.history(trials, study).data
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    assert list(points.x) == [trial.number for trial in complete]
    assert list(points.y) == [trial.value for trial in complete]
    assert best.y[-1] == max(points.y)
    assert all(later >= earlier for earlier, later in zip(best.y, best.y[1:], strict=False))


def test_running_best_of_a_loss_falls() -> None:
    study = example.config("regression")
    points, best = figures.history(example.trials(study, 30), study).data
    assert best.y[-1] == min(points.y)


def test_one_wild_value_does_not_flatten_the_history(study: StudyConfig, trials: list[FrozenTrial]) -> None:
    wild = example.trials(study, 1)[0]
    wild.value, wild.number = -1e6, 100
    low, high = figures.history([*trials, wild], study).layout.yaxis.range
    assert high - low < 1


def test_learning_curves_fade_pruned_trials_and_lift_the_best(
    study: StudyConfig, trials: list[FrozenTrial]
) -> None:
    pruned, complete, best = figures.intermediate_values(trials, study).data
    assert (pruned.name, complete.name) == ("pruned", "complete")
    assert best.name.startswith("best (trial ")
    assert pruned.line.dash == "dot" and best.line.width > complete.line.width
    assert list(complete.y).count(None) == sum(trial.state is TrialState.COMPLETE for trial in trials)


@pytest.mark.slow
def test_importances_find_the_parameter_that_matters(study: StudyConfig, trials: list[FrozenTrial]) -> None:
    estimates = importance.importance_estimates(example.trials(study, 200), study)
    assert set(estimates) == {importance.FANOVA, importance.PED_ANOVA}
    for shares in estimates.values():
        assert max(shares, key=lambda name: shares[name]) == "learning_rate"
        assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize(("count", "value", "says"), [(5, None, "at least 10"), (60, 0.5, "the same value")])
def test_importances_that_cannot_be_told_say_why(
    study: StudyConfig, count: int, value: float | None, says: str
) -> None:
    trials = example.trials(study, count)
    for trial in trials:
        if trial.state is TrialState.COMPLETE and value is not None:
            trial.value = value
    with pytest.raises(NothingToDraw, match=says):
        importance.importances(trials, study)


def test_slices_show_each_parameter_in_its_own_scale(study: StudyConfig, trials: list[FrozenTrial]) -> None:
    drawn = slices.slices(trials, study)
    assert set(drawn) == set(study.search)
    assert drawn["learning_rate"].layout.xaxis.type == "log"
    assert drawn["optimizer"].layout.xaxis.categoryarray == ("adam", "rmsprop", "sgd")
    having = [trial for trial in trials if trial.state is TrialState.COMPLETE and "momentum" in trial.params]
    assert len(drawn["momentum"].data[0].x) == len(having) > 0


def test_parallel_coordinates_have_a_place_for_absent_parameters(
    study: StudyConfig, trials: list[FrozenTrial]
) -> None:
    drawn = parallel.parallel_coordinates(trials, study)
    assert drawn.layout.xaxis.ticktext[-1] == "accuracy"
    assert "not set" in {annotation.text for annotation in drawn.layout.annotations}
    places = [y for trace in drawn.data for y in trace.y if y is not None]
    assert len(places) == 6 * sum(trial.state is TrialState.COMPLETE for trial in trials)
    assert min(places) == parallel.ABSENT and max(places) <= 1


def test_every_axis_has_a_title(study: StudyConfig, trials: list[FrozenTrial]) -> None:
    drawn = [
        figures.history(trials, study),
        figures.intermediate_values(trials, study),
        *slices.slices(trials, study).values(),
    ]
    for figure in drawn:
        assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text


def test_confusion_matrix_is_written_into_its_cells() -> None:
    test = evaluate("classification", [[2.0, 0], [0, 2], [0, 2]], [0, 0, 1], ["a", "b"])
    assert test.task == "classification"
    drawn = winner_figures.confusion(test).data[0]
    assert drawn.text.tolist() == [[1, 1], [0, 1]]
    assert drawn.z.tolist() == [[0.5, 0.5], [0, 1]]


def test_roc_of_a_single_class_says_what_it_lacks() -> None:
    test = evaluate("classification", [[2.0, 0], [0, 2]], [0, 0], ["a", "b"])
    assert test.task == "classification"
    with pytest.raises(NothingToDraw, match="at least two classes"):
        winner_figures.roc(test)
    assert issubclass(NothingToDraw, HpoError)


def test_failures_are_counted_by_reason(trials: list[FrozenTrial]) -> None:
    assert failures(trials) == [
        f"epoch 3: the training loss is nan {example.HOSTILE} (3 trials, first trial 16)"
    ]


def test_unfinished_study_without_recorded_data_says_both(told: Reported, drawn: Sections) -> None:
    running = example.trials(told.config, 1)[0]
    running.state, running.number = TrialState.RUNNING, 60
    going_on = replace(told, trials=[*told.trials, running], waiting=139, result=None, sizes={}, noticed=None)
    page = render(going_on, drawn)
    assert "The search has not ended: 1 trial runs and 139 wait." in page
    assert "has not been finalized" in page
    assert "It was not recorded by the version of hpo" in page
    assert "rows to train on" not in page


@pytest.mark.slow
def test_result_of_an_earlier_version_still_renders(told: Reported) -> None:
    assert told.result is not None
    stored = told.result.model_dump(mode="json")
    for name in ("openings", "input_shape", "predictions", "confusions", "weights", "baselines"):
        del stored[name]
    for name in ("precision_recall_curves", "calibration", "intervals"):
        del stored["test"][name]
    earlier = replace(told, result=FinalResult.model_validate(stored))
    page = render(earlier)
    assert "Precision-recall curves were not recorded by the version of hpo" in page
    assert "Calibration was not recorded by the version of hpo" in page
    assert "roc" in data_of(page, "figures")


def test_audit_is_told_with_its_advice(told: Reported, drawn: Sections) -> None:
    warning = Finding("edge of the space", "warning", f"dropout <{example.HOSTILE}>", {}, "Widen it.")
    page = render(replace(told, audited=[warning]), drawn)
    assert "Could be wrong" in page and "Widen it." in page and example.HOSTILE not in page
    assert "Nothing that it checked looks wrong." in render(replace(told, audited=[]), drawn)


def test_page_says_how_to_repeat_it_and_what_it_took(told: Reported, drawn: Sections) -> None:
    page = render(replace(told, extensions=[50]), drawn)
    for command in ("run study.yaml", "extend example --trials 50", "report example --out example.html"):
        assert f"hpo {command}" in page
    assert told.fingerprint in page and told.config.digest() in page


def test_json_has_what_the_page_says(told: Reported, drawn: Sections, page: str) -> None:
    answer = json.loads(json.dumps(as_json(told, drawn)))
    assert answer["study"] == "example" and answer["finalized"] is True
    assert {effect["name"] for effect in answer["effects"]} <= set(told.config.search)
    assert all(
        html.escape(sentence, quote=True).replace("&#x27;", "&#39;") in page
        for sentence in answer["sentences"]
    )


@pytest.mark.slow
def test_ten_thousand_trials_make_a_page_in_seconds_and_under_six_megabytes(study: StudyConfig) -> None:
    trials = example.trials(study, 10_000)
    result = example.result(study, trials, CLASSES)
    began = time.process_time()
    page = render(example.reported(study, trials, result))
    assert time.process_time() - began < 3 * 30  # promised are 30 s; the machine that checks is slow
    assert len(page.encode()) < 6_000_000
    complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
    for most in (400, 1000, 2000):
        assert re.search(rf"Of {complete:,} complete trials [\w ]+ {most:,}, evenly spread", page), most


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(1.234, "1.2 s"), (59, "59 s"), (119, "2 min"), (7200, "2 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("accuracy", 0.98765, "0.988"),
        ("loss", 0.0123456, "0.01235"),
        ("r2", -0.0001, "0.000"),
        ("f1", None, "undefined"),
    ],
)
def test_numbers_read_well(metric: str, value: float | None, shown: str) -> None:
    assert number(metric, value) == shown
