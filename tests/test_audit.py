"""`hpo audit`: each check finds what was planted, and does not accuse what is sound."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from commands import Desk
from conftest import study_of
from image_files import drawn, write_idx, write_part
from image_files import study as images_of
from optuna.trial import FrozenTrial, TrialState, create_trial
from searching import search, submitted

from hpo.config import StudyConfig
from hpo.data import parts as parts_module
from hpo.data.cache import DIGESTS, load_digests
from hpo.data.digests import RowDigests
from hpo.data.prepare import prepare
from hpo.data.table import Rows
from hpo.results import audit_pruner, audit_search, audit_space, audit_test
from hpo.results.audit import CHECKS, audit, subject_of
from hpo.results.candidates import Candidate
from hpo.results.finalize import FinalResult
from hpo.results.findings import Finding, Subject
from hpo.results.lanes import silent
from hpo.results.metrics import ClassificationMetrics
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.status import INFEASIBLE, OPENINGS, WARM_START
from hpo.search.studies import Studies

SPACE = (
    "search: {learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}, width: {low: 16, high: 256}, "
    "dropout: {low: 0.0, high: 0.5}, optimizer: {choices: [adam, sgd]}}\n"
)
BEGAN = datetime(2026, 1, 1)
Value = Callable[[dict[str, Any]], float]


def subject(config: StudyConfig, trials: Sequence[FrozenTrial] = (), **known: Any) -> Subject:
    return replace(Subject(config, trials, 0, {}, None, None, "no data are needed"), **known)


def simulated(config: StudyConfig, value: Value, count: int = 60, seed: int = 0) -> list[FrozenTrial]:
    """Complete trials of random search, whose values are what `value` says and a little noise."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        kinds = {name: parameter.distribution() for name, parameter in config.search.items()}
        params = study.ask(kinds).params
        reached = value(params) + 0.01 * rng.normal()
        trials.append(ended(number, reached, params, kinds))
    return trials


def ended(
    number: int, value: float | None, params: dict[str, Any] | None = None, kinds: Any = None, **more: Any
) -> FrozenTrial:
    state = more.pop("state", TrialState.COMPLETE)
    trial = create_trial(state=state, value=value, params=params or {}, distributions=kinds or {}, **more)
    trial.number = number
    trial.datetime_complete = BEGAN + timedelta(seconds=number)
    return trial


def found(check: Any, subject: Subject, severity: str) -> list[Finding]:
    findings = list(check(subject))
    assert {finding.severity for finding in findings} == {severity}, findings
    return findings


def peak(at: float) -> Value:
    """Best where the learning rate is this."""
    return lambda params: -abs(np.log10(params["learning_rate"]) - np.log10(at))


# --- leakage


def tables(folder: Path, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], **more: Any) -> StudyConfig:
    np.savez(folder / "table.npz", x=x, y=y)
    (folder / "mine.py").write_text(
        "from pathlib import Path\nimport numpy as np\n\ndef load():\n"
        "    file = np.load(Path(__file__).parent / 'table.npz')\n    return file['x'], file['y']\n"
    )
    config = study_of(f"data: {{source: mine.py:load}}\n{SPACE}", folder)
    return config.model_copy(update=more)


def leaks(config: StudyConfig) -> dict[str, Finding]:
    made = subject(config, prepared=prepare(config))
    names = ("test leakage", "validation leakage", "contradicting targets")
    return {name: finding for name in names for finding in CHECKS[name](made)}


def sound() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = np.random.default_rng(0).normal(size=(200, 4))
    return x, (x[:, 0] > 0).astype(int)


def test_rows_that_are_all_different_are_not_accused(tmp_path: Path) -> None:
    found = leaks(tables(tmp_path, *sound()))
    assert {finding.severity for finding in found.values()} == {"fine"}
    assert found["test leakage"].evidence["test_examples"] == 30
    assert found["validation leakage"].evidence["validation_examples"] == 30


def test_rows_that_are_in_two_parts_are_found_without_opening_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("rows were opened")

    x, y = sound()
    twice = np.concatenate([x, x[:60]]), np.concatenate([y, y[:60]])
    config = tables(tmp_path, *twice)
    prepare(config)
    monkeypatch.setattr(parts_module, "load_rows", opened)
    leak = leaks(config)
    digests = load_digests(prepare(config))
    planted = np.isin(digests.test.examples, digests.rows.examples).sum()
    assert leak["test leakage"].severity == leak["validation leakage"].severity == "warning"
    assert leak["test leakage"].evidence == {
        "test_examples": 39,
        "identical": planted,
        "identical_with_another_target": 0,
    }
    assert f"{planted} of 39 test examples (" in leak["test leakage"].sentence and planted > 3
    assert leak["contradicting targets"].severity == "fine"


def test_validation_leaks_are_counted_over_the_folds(tmp_path: Path) -> None:
    x, y = sound()
    tables(tmp_path, np.concatenate([x, x[:40]]), np.concatenate([y, y[:40]]))
    config = study_of(f"data: {{source: mine.py:load}}\nvalidation: {{folds: 4}}\n{SPACE}", tmp_path)
    digests = load_digests(prepare(config))
    assert sorted(set(digests.fold)) == [0, 1, 2, 3]
    twins = {}
    for place, (digest, fold) in enumerate(zip(digests.rows.examples, digests.fold, strict=True)):
        twins.setdefault(digest, []).append((place, fold))
    apart = sum(len(rows) for rows in twins.values() if len({fold for _, fold in rows}) > 1)
    leak = leaks(config)["validation leakage"]
    assert (leak.severity, leak.evidence["identical"]) == ("warning", apart)
    assert leak.evidence["validation_examples"] == len(digests.rows)


def test_missing_cells_categories_and_both_zeros_are_compared_as_what_they_are() -> None:
    frame = pd.DataFrame({"a": [0.0, -0.0, np.nan, np.nan, 1.0], "b": ["x", "x", None, np.nan, "x"]})
    for rows in (frame, frame.drop(columns="b"), frame["a"].to_numpy()[:, None]):
        digests = RowDigests.of(Rows(rows, np.array([0, 0, 1, 1, 0])))
        assert [len(set(found.tolist())) for found in (digests.features, digests.examples)] == [3, 3]
        assert digests.features[0] == digests.features[1] and digests.features[2] == digests.features[3]
    other = RowDigests.of(Rows(frame, np.array([0, 1, 1, 1, 0])))
    assert other.features[0] == other.features[1] and other.examples[0] != other.examples[1]


def test_equal_features_with_different_targets_are_found(tmp_path: Path) -> None:
    x, y = sound()
    config = tables(tmp_path, np.concatenate([x, x[:10]]), np.concatenate([y, 1 - y[:10]]))
    contradiction = leaks(config)["contradicting targets"]
    assert (contradiction.severity, contradiction.evidence["contradicting"]) == ("warning", 20)
    assert "20 of 210 examples (9.5%) have the features of another one" in contradiction.sentence


def test_images_that_are_in_both_parts_are_found(tmp_path: Path) -> None:
    write_idx(tmp_path)
    images, labels = drawn(seed=2)
    ours, _ = drawn()
    write_part(tmp_path, "test", np.concatenate([ours[:3], images[3:]]), labels)
    leak = leaks(images_of(tmp_path, {"source": "idx", "path": "."}))["test leakage"]
    assert (leak.severity, leak.evidence["identical"]) == ("warning", 3)


def test_a_cache_of_before_digests_is_prepared_again_under_the_same_fingerprint(tmp_path: Path) -> None:
    config = tables(tmp_path, *sound())
    before = prepare(config)
    manifest = json.loads((before.cache / "manifest.json").read_text())
    del manifest["files"][DIGESTS]
    (before.cache / "manifest.json").write_text(json.dumps(manifest))
    (before.cache / DIGESTS).unlink()
    after = prepare(config)
    assert after.fingerprint == before.fingerprint and (after.cache / DIGESTS).exists()


# --- the space


CONFIG = study_of(f"{SPACE}sampler: random\ntrials: 60")


def test_an_optimum_beyond_the_end_of_a_range_is_found() -> None:
    (edge,) = found(audit_space.edges, subject(CONFIG, simulated(CONFIG, peak(1.0))), "warning")
    assert (edge.evidence["parameter"], edge.evidence["end"]) == ("learning_rate", "high")
    assert edge.advice == "Widen search.learning_rate above 0.1."
    (edge,) = found(audit_space.edges, subject(CONFIG, simulated(CONFIG, peak(1e-5))), "warning")
    assert (edge.evidence["end"], edge.evidence["bound"]) == ("low", 1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_an_optimum_inside_the_space_is_not_accused(seed: int) -> None:
    found(audit_space.edges, subject(CONFIG, simulated(CONFIG, peak(3e-3), seed=seed)), "fine")
    found(audit_space.edges, subject(CONFIG, simulated(CONFIG, lambda _: 0.0, seed=seed)), "fine")


def test_an_end_that_no_value_can_go_beyond_is_not_accused() -> None:
    value: Value = lambda params: -params["dropout"]  # noqa: E731
    found(audit_space.edges, subject(CONFIG, simulated(CONFIG, value)), "fine")
    narrow = study_of("search: {dropout: {low: 0.2, high: 0.5}}")
    found(audit_space.edges, subject(narrow, simulated(narrow, value)), "warning")


@pytest.mark.slow
def test_a_parameter_that_does_nothing_is_told_from_one_that_matters() -> None:
    value: Value = lambda params: peak(3e-3)(params) + 0.5 * (params["optimizer"] == "sgd")  # noqa: E731
    idle = found(audit_space.idle, subject(CONFIG, simulated(CONFIG, value, 120)), "warning")
    assert {finding.evidence["parameter"] for finding in idle} == {"width", "dropout"}
    lost = idle[0].evidence["r2_lost_when_shuffled"]
    assert lost["learning_rate"]["mean"] > lost["optimizer"]["mean"] > 0.05 > lost["width"]["up_to"]


@pytest.mark.slow
def test_where_every_parameter_matters_none_is_called_idle() -> None:
    def value(params: dict[str, Any]) -> float:
        sgd = 1.0 * (params["optimizer"] == "sgd")
        return peak(3e-3)(params) + 2 * params["dropout"] + params["width"] / 200 + sgd

    found(audit_space.idle, subject(CONFIG, simulated(CONFIG, value, 120)), "fine")


@pytest.mark.slow
def test_noise_and_few_trials_accuse_no_parameter() -> None:
    found(audit_space.idle, subject(CONFIG, simulated(CONFIG, lambda _: 0.0)), "unchecked")
    found(audit_space.idle, subject(CONFIG, simulated(CONFIG, peak(3e-3), 20)), "unchecked")
    found(audit_space.edges, subject(CONFIG, simulated(CONFIG, peak(1.0), 9)), "unchecked")


# --- the search


def test_a_search_that_still_improves_is_told_from_one_that_is_through() -> None:
    rising = [ended(n, 0.5 + n / 100) for n in range(40)]
    (late,) = found(audit_search.still_improving, subject(CONFIG, rising), "warning")
    assert (
        "the last 4 complete trials of 40 improved the best accuracy from 0.850 to 0.890"
        in late.sentence.lower()
    )
    through = [ended(n, min(0.8, 0.5 + n / 100)) for n in range(40)]
    found(audit_search.still_improving, subject(CONFIG, through), "fine")
    found(audit_search.still_improving, subject(CONFIG, rising[:9]), "unchecked")


def test_an_improvement_within_the_noise_of_epochs_is_no_improvement() -> None:
    steps = {epoch: 0.85 + 0.03 * (-1) ** epoch for epoch in range(1, 10)}
    trials = [ended(n, 0.8) for n in range(30)] + [ended(30, 0.82, intermediate_values=steps)]
    found(audit_search.still_improving, subject(CONFIG, trials), "fine")


def test_a_budget_that_is_small_for_the_space_or_mostly_random_is_found() -> None:
    tpe = study_of(f"{SPACE}sampler: {{name: tpe, startup_trials: 10}}\ntrials: 20")
    few = [ended(n, 0.5) for n in range(20)]
    (budget,) = found(audit_search.trials_per_parameter, subject(tpe, few), "warning")
    assert budget.sentence.startswith("20 finished trials for 4 parameters: 5.0 for each")
    (start,) = found(audit_search.random_start, subject(tpe, few), "warning")
    assert start.sentence.startswith("10 of 20 trials are drawn at random")
    many = [ended(n, 0.5) for n in range(80)]
    found(audit_search.trials_per_parameter, subject(tpe, many), "fine")
    found(audit_search.random_start, subject(tpe, many), "fine")
    found(audit_search.random_start, subject(CONFIG, few), "fine")


def test_failed_and_not_finite_trials_are_counted_with_their_main_reason() -> None:
    kinds = {"learning_rate": CONFIG.search["learning_rate"].distribution()}

    def lost(number: int, reason: str) -> FrozenTrial:
        attrs, params = {"failure": reason}, {"learning_rate": 0.09}
        return ended(number, None, params, kinds, state=TrialState.FAIL, user_attrs=attrs)

    good = [ended(n, 0.5, {"learning_rate": 1e-3}, kinds) for n in range(40)]
    bad = [lost(40 + n, f"epoch {n}: the training loss is nan") for n in range(6)] + [lost(46, "a cable")]
    (failed,) = found(audit_search.failed, subject(CONFIG, good + bad), "warning")
    assert (
        "7 of 47 finished trials (15%) failed; the main reason, 6 times: the training loss is nan"
        in failed.sentence
    )
    (broken,) = found(audit_search.not_finite, subject(CONFIG, good + bad), "warning")
    assert "median learning rate was 0.09, that of the others 0.001" in broken.sentence
    assert broken.advice == "Lower the upper end of search.learning_rate."
    found(audit_search.failed, subject(CONFIG, good), "fine")
    found(audit_search.failed, subject(CONFIG, [*good, bad[-1]]), "fine")
    found(audit_search.not_finite, subject(CONFIG, [*good, bad[-1]]), "fine")


def test_constraints_that_refuse_most_of_the_space_are_found() -> None:
    config = study_of(f"{SPACE}constraints: {{parameters: {{max: 99}}}}")
    pruned = {"state": TrialState.PRUNED, "user_attrs": {INFEASIBLE: "its network has 100 parameters"}}
    trials = [ended(n, None, **pruned) for n in range(8)] + [ended(n, 0.5) for n in range(8, 12)]
    (refused,) = found(audit_search.constraints, subject(config, trials), "warning")
    assert "8 of 12 finished trials violated a constraint" in refused.sentence
    assert "trial 0: its network has 100 parameters" in refused.sentence
    found(audit_search.constraints, subject(config, trials[4:]), "fine")
    found(audit_search.constraints, subject(CONFIG, trials[8:]), "fine")


@pytest.mark.parametrize(("same", "severity"), [(False, "warning"), (True, "fine")])
def test_a_warm_start_from_other_data_is_found(same: bool, severity: str) -> None:
    attrs = {WARM_START: {"study": "early", "same_data": same, "trials": [{}, {}]}}
    (began,) = found(audit_search.warm_start, subject(CONFIG, attrs=attrs), severity)
    assert "The search began with 2 trials of study 'early'" in began.sentence
    found(audit_search.warm_start, subject(CONFIG), "fine")


def test_a_second_look_at_the_test_part_is_found() -> None:
    times = [{"time": "2026-01-01T00:00:00Z"}, {"time": "2026-02-01T00:00:00Z"}]
    (twice,) = found(audit_test.openings, subject(CONFIG, attrs={OPENINGS: times}), "warning")
    assert "opened 2 times, at 2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z" in twice.sentence
    found(audit_test.openings, subject(CONFIG, attrs={OPENINGS: times[:1]}), "fine")
    found(audit_test.openings, subject(CONFIG), "fine")


# --- the test


def concluded(validation: float, test: float, metric: str = "accuracy") -> Subject:
    """A study whose winner was re-evaluated to one value, and tested to the other; intervals of ±0.05."""
    result = FinalResult.model_construct(
        winner=Candidate.model_construct(
            mean=validation, interval=(validation - 0.05, validation + 0.05), number=3
        ),
        test=ClassificationMetrics.model_construct(
            **dict.fromkeys(("accuracy", "precision", "recall", "f1", "roc_auc", "loss"), test),
            accuracy_interval=(test - 0.05, test + 0.05),
            intervals={metric: (test - 0.05, test + 0.05)},
        ),
    )
    return subject(study_of(f"{SPACE}metric: {metric}"), result=result)


def test_a_gap_beyond_both_intervals_is_found() -> None:
    (worse,) = found(audit_test.gap, concluded(0.90, 0.75), "warning")
    assert "0.900 re-evaluated (95 %: 0.850 to 0.950) and 0.750 in the test" in worse.sentence
    assert "the test is worse by more than both explain" in worse.sentence
    found(audit_test.gap, concluded(0.90, 0.82), "fine")
    (better,) = found(audit_test.gap, concluded(0.75, 0.95), "warning")
    assert "the test is better" in better.sentence and "may be easier" in better.advice
    (lower,) = found(audit_test.gap, concluded(0.90, 0.50, "loss"), "warning")
    assert "the test is better" in lower.sentence, "less is better"
    found(audit_test.gap, concluded(0.90, 0.88, "loss"), "fine")
    found(audit_test.gap, subject(CONFIG), "unchecked")


# --- the pruner, with real training


LEARNS = (
    "name: bloom\ndata: {source: sklearn, name: wine}\noptions: {width: 8, depth: 1}\n"
    "search: {learning_rate: {low: 1.0e-4, high: 3.0e-2, log: true}}\nsampler: random\n"
    "training: {epochs: 8, batch_size: 16}\nmetric: loss\ntrials: 8\npruner: PRUNER\n"
)


@pytest.fixture
def searched(sqlite: Database) -> tuple[Database, StudyConfig]:
    """Eight trials that trained to their end."""
    config = study_of(LEARNS.replace("PRUNER", "none"))
    search(sqlite, config)
    return sqlite, config


def pruned_as(subject_: Subject, numbers: Sequence[int], epoch: int) -> Subject:
    """The same study, if a pruner had ended these trials after so many epochs."""
    trials = []
    for trial in subject_.trials:
        if trial.number in numbers:
            steps = {step: value for step, value in trial.intermediate_values.items() if step <= epoch}
            attrs = trial.user_attrs | {"epochs": epoch}
            trial = ended(
                trial.number,
                steps[epoch],
                trial.params,
                trial.distributions,
                state=TrialState.PRUNED,
                intermediate_values=steps,
                user_attrs=attrs,
            )
        trials.append(trial)
    return replace(subject_, trials=trials)


@pytest.mark.slow
def test_a_pruner_that_ended_the_best_trials_is_found_with_the_regret_to_the_bit(
    searched: tuple[Database, StudyConfig],
) -> None:
    database, _ = searched
    study = Studies(database).study("bloom")
    whole = subject_of(database, study)
    order = [trial.number for trial in sorted(whole.trials, key=lambda trial: trial.value or 0.0)]
    late = pruned_as(whole, order[:2], 1)
    (judged,) = list(audit_pruner.pruner(late, 2, silent))
    values = {str(trial.number): trial.value for trial in whole.trials}
    assert judged.severity == "warning", judged
    assert judged.evidence["retrained"] == pytest.approx({str(n): values[str(n)] for n in order[:2]})
    assert judged.evidence["regret"] == pytest.approx(values[str(order[2])] - values[str(order[0])])
    assert "2 trials were pruned; of 2 that were trained to their end the best" in judged.sentence
    assert read_trials(database, study.study_id) == whole.trials, "nothing is written to the study"
    benign = pruned_as(whole, order[-3:], 1)
    (judged,) = list(audit_pruner.pruner(benign, None, silent))
    assert (judged.severity, judged.evidence["regret"]) == ("fine", 0.0)


@pytest.mark.slow
def test_the_pruner_is_judged_within_a_budget_or_not_at_all(
    searched: tuple[Database, StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, _ = searched
    whole = subject_of(database, Studies(database).study("bloom"))
    (none,) = list(audit_pruner.pruner(whole, None, silent))
    assert none.sentence == "No trial was pruned in training."
    benign = pruned_as(whole, [1, 2, 3], 1)
    (left_out,) = list(audit_pruner.pruner(benign, 0, silent))
    assert left_out.severity == "unchecked" and "left out (--retrain 0)" in left_out.sentence
    monkeypatch.setattr(audit_pruner, "SECONDS", 0.0)
    (long,) = list(audit_pruner.pruner(benign, None, silent))
    assert long.severity == "unchecked" and "--retrain 3 does it" in long.sentence
    assert "by what their epochs took" in long.sentence
    gone = replace(benign, prepared=None, no_data="they are elsewhere")
    (missing,) = list(audit_pruner.pruner(gone, 2, silent))
    assert "the data are not at hand: they are elsewhere" in missing.sentence


def test_half_of_those_that_are_retrained_looked_best_and_half_are_drawn() -> None:
    pruned = [ended(n, 0.1, state=TrialState.PRUNED, intermediate_values={1: 0.01 * n}) for n in range(40)]
    chosen = [trial.number for trial in audit_pruner.sample(pruned, 6, CONFIG)]
    assert chosen[:3] == [39, 38, 37] and len(set(chosen)) == 6
    assert [trial.number for trial in audit_pruner.sample(pruned, 99, CONFIG)][:2] == [39, 38]
    assert len(audit_pruner.sample(pruned, 99, CONFIG)) == 40


# --- all of it


def test_an_unfinished_study_is_audited_and_told_what_cannot_be_checked_and_why(
    sqlite: Database, tmp_path: Path
) -> None:
    config = tables(tmp_path, *sound())
    study = submitted(sqlite, config)
    findings = {finding.name: finding for finding in audit(subject_of(sqlite, study))}
    assert set(findings) == {*CHECKS, "pruner"}
    assert findings["test leakage"].severity == "fine"
    assert findings["idle parameters"].severity == findings["still improving"].severity == "unchecked"
    assert findings["validation-test gap"].sentence.startswith("The study has not been finalized")
    (tmp_path / "mine.py").unlink()
    without = {finding.name: finding for finding in audit(subject_of(sqlite, study))}
    assert without["test leakage"].severity == "unchecked"
    assert "The data are not at hand: " in without["test leakage"].sentence
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\ndef load():\n    return np.eye(40), np.arange(40) % 2"
    )
    other = {finding.name: finding for finding in audit(subject_of(sqlite, study))}
    assert "was submitted with other data" in other["test leakage"].sentence


@pytest.mark.slow
def test_the_command_tells_warnings_first_and_exits_1_only_if_it_is_to_be_strict(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    study = desk.study(LEARNS.replace("PRUNER", "none").replace("name: wine", "name: iris"))
    desk.hpo("run", study, "--workers", "1", "--lanes", "8")
    before = [trial.number for trial in desk.optuna("bloom").trials]
    told = desk.hpo("audit", "bloom").stdout
    assert told.index("could be wrong") < told.index("not checked") < told.index("checked, and fine")
    answer = desk.json("audit", study)
    assert answer["study"] == "bloom" and answer["warnings"] > 0
    warned = {finding["name"]: finding for finding in answer["findings"] if finding["severity"] == "warning"}
    assert {"test leakage", "trials per parameter"} & set(warned)
    assert all(finding["advice"] and finding["evidence"] for finding in warned.values())
    desk.hpo("audit", "bloom", "--strict", code=1)
    desk.hpo("audit", "nothing", code=2)
    assert [trial.number for trial in desk.optuna("bloom").trials] == before
    assert len(desk.optuna("bloom").user_attrs[OPENINGS]) == 1
