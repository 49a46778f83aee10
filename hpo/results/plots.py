"""A study's figures in a notebook: `import hpo; hpo.plot_history("quickstart")`.

Each takes a study by its name and the URL of its storage (by default `HPO_STORAGE`, else
`sqlite:///hpo.db`), or the study as `optuna.load_study` opens it, and answers a plotly figure.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.errors import HpoError, UsageError
from hpo.results import contours, effect_figures, figures, importance, parallel, slices
from hpo.results.effects import effects
from hpo.results.theme import NothingToDraw
from hpo.search.database import Database
from hpo.search.history import read_trials
from hpo.search.records import StudyRecord
from hpo.search.studies import Studies
from hpo.search.submission import config_of

if TYPE_CHECKING:
    from hpo.results.finalize import FinalResult
    from hpo.results.metrics import ClassificationMetrics, RegressionMetrics

DEFAULT_STORAGE = "sqlite:///hpo.db"


def plot_history(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """Each complete trial's value, and the best one so far.

    Raises:
        HpoError: there is no such study of hpo's, or nothing to draw yet; so do all others here.
    """
    return figures.history(*_searched(study, storage))


def plot_anytime(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """The best value over wall-clock time."""
    return figures.anytime(*_searched(study, storage))


def plot_intermediate_values(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """Learning curves, those of pruned trials faded."""
    return figures.intermediate_values(*_searched(study, storage))


def plot_importances(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """What share of the differences between trials each parameter explains, by fANOVA and PED-ANOVA."""
    return importance.importances(*_searched(study, storage))


def plot_effects(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """What each parameter changed, with 95 % intervals."""
    trials, config = _searched(study, storage)
    return effect_figures.effects_figure(effects(trials, config), config)


def plot_parallel(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """Each complete trial as a line through its parameters to its value."""
    return parallel.parallel_coordinates(*_searched(study, storage))


def plot_slices(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """The value over each parameter."""
    return slices.slices_together(*_searched(study, storage))


def plot_contour(
    study: str | optuna.Study, storage: str | None = None, *, params: tuple[str, str] | None = None
) -> go.Figure:
    """The value over two parameters; by default over those that explain most."""
    trials, config = _searched(study, storage)
    if params is None:
        return contours.contour(trials, config, _leading(trials, config))
    if unknown := [name for name in params if name not in config.search]:
        searched = ", ".join(config.search)
        raise UsageError(f"params: {unknown[0]!r} is not searched; must be two of {searched}")
    return contours.contour(trials, config, params)


def plot_roc(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """ROC curves of the winner on the test part, class by class."""
    from hpo.results import winner_figures

    return winner_figures.roc(_classification(study, storage))


def plot_precision_recall(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """Precision over recall of the winner on the test part, class by class."""
    from hpo.results import winner_figures

    return winner_figures.precision_recall(_classification(study, storage))


def plot_confusion(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """The winner's test examples by true and predicted class."""
    from hpo.results import winner_figures

    return winner_figures.confusion(_classification(study, storage))


def plot_calibration(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """How often the winner's test predictions are right, over how sure it was of them."""
    from hpo.results import winner_figures

    return winner_figures.calibration(_classification(study, storage))


def plot_predicted(study: str | optuna.Study, storage: str | None = None) -> go.Figure:
    """A regression's test examples: predictions against the truth."""
    from hpo.results import winner_figures

    return winner_figures.predicted(_regression(study, storage))


def _leading(trials: Sequence[FrozenTrial], config: StudyConfig) -> tuple[str, str]:
    if len(config.search) < 2:
        raise NothingToDraw("A contour needs two searched parameters; the study has one.")
    try:
        told = [effect.name for effect in effects(trials, config).found]
    except NothingToDraw:
        told = []
    first, second, *_ = [*told, *(name for name in config.search if name not in told)]
    return first, second


def _searched(study: str | optuna.Study, storage: str | None) -> tuple[Sequence[FrozenTrial], StudyConfig]:
    if isinstance(study, optuna.Study):
        return study.get_trials(deepcopy=False), config_of(_record(study))
    with _opened(storage) as database:
        record = Studies(database).study(study)
        return read_trials(database, record.study_id), config_of(record)


def _record(study: optuna.Study) -> StudyRecord:
    return StudyRecord(study._study_id, study.study_name, study.direction, study.user_attrs)


def _opened(storage: str | None) -> Database:
    database = Database(storage or os.environ.get("HPO_STORAGE") or DEFAULT_STORAGE)
    if not database.has_schema():
        raise UsageError(f"{database}: nothing of hpo's is in there")
    return database


def _result(study: str | optuna.Study, storage: str | None) -> "FinalResult":
    from hpo.results.conclude import recorded

    if isinstance(study, optuna.Study):
        record = _record(study)
    else:
        with _opened(storage) as database:
            record = Studies(database).study(study)
    conclusion = recorded(record)
    if conclusion is None:
        raise HpoError(
            f"study {record.name!r} is not finalized: `hpo finalize {record.name}` tests its winner"
        )
    return conclusion.result


def _classification(study: str | optuna.Study, storage: str | None) -> "ClassificationMetrics":
    test = _result(study, storage).test
    if test.task != "classification":
        raise NothingToDraw("The study predicts numbers: hpo.plot_predicted shows its test.")
    return test


def _regression(study: str | optuna.Study, storage: str | None) -> "RegressionMetrics":
    test = _result(study, storage).test
    if test.task != "regression":
        raise NothingToDraw("The study predicts classes: hpo.plot_confusion and hpo.plot_roc show its test.")
    return test
