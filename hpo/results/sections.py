"""A report's figures, by section."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from hpo.config import StudyConfig
from hpo.results import contours, effect_figures, figures, importance, parallel, slices, winner_figures
from hpo.results.effects import Effects, effects
from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.page import Panel, drawn_panel
from hpo.results.reported import Reported
from hpo.results.theme import NothingToDraw
from hpo.results.values import LABELS, complete_trials

MAX_LEADING = 3
"""Parameters whose pairs have a contour."""


@dataclass(frozen=True)
class Sections:
    """The figures of a report."""

    effects: Effects | NothingToDraw
    """What the figures of `found` draw, or why it cannot be told."""
    test: Sequence[Panel]
    found: Sequence[Panel]
    """What the parameters did."""
    contours: Sequence[Panel]
    slices: Sequence[Panel]
    course: Sequence[Panel]
    """How the search went."""

    @property
    def panels(self) -> list[Panel]:
        """All of them."""
        return [*self.test, *self.found, *self.contours, *self.slices, *self.course]


def draw(study: Reported) -> Sections:
    """All figures of a study."""
    found = told_effects(study)
    return Sections(
        effects=found,
        test=list(_test(study)),
        found=list(_found(study, found)),
        contours=list(_contours(study, found)),
        slices=list(_slices(study)),
        course=list(_course(study)),
    )


def told_effects(study: Reported) -> Effects | NothingToDraw:
    """The effects of the parameters, or why they cannot be told."""
    try:
        return effects(study.trials, study.config)
    except NothingToDraw as reason:
        return reason


def _found(study: Reported, found: Effects | NothingToDraw) -> Iterator[Panel]:
    trials, config = study.trials, study.config
    if isinstance(found, Effects):
        yield drawn_panel(
            "effects",
            "What each parameter changed",
            "Each parameter's best group of values against its others, other parameters held equal; lines "
            "are 95 % intervals. Right of the dashed line is better.",
            lambda: effect_figures.effects_figure(found, config),
        )
    yield drawn_panel(
        "importances",
        "Parameter importances",
        "What share of the differences between trials each parameter explains: fANOVA over the whole space, "
        "of parameters that every trial has; PED-ANOVA for reaching the best tenth. From few trials both are "
        "rough." + _sampled(study, importance.MAX_FANOVA_TRIALS, "fANOVA sees"),
        lambda: importance.importances(trials, config),
    )


def _contours(study: Reported, found: Effects | NothingToDraw) -> Iterator[Panel]:
    if not complete_trials(study.trials):
        return
    for first, second in leading_pairs(study.config, found):
        yield drawn_panel(
            f"contour-{first}-{second}",
            f"{first} and {second}",
            f"Validation {LABELS[study.config.metric]} over both",
            partial(contours.contour, study.trials, study.config, (first, second)),
        )


def leading_pairs(config: StudyConfig, found: Effects | NothingToDraw) -> list[tuple[str, str]]:
    """Pairs of the parameters that explain most; in their order in the study where that cannot be told."""
    told = [effect.name for effect in found.found] if isinstance(found, Effects) else []
    names = [*told, *(name for name in config.search if name not in told)][:MAX_LEADING]
    return [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]


def _slices(study: Reported) -> Iterator[Panel]:
    try:
        drawn = slices.slices(study.trials, study.config)
    except NothingToDraw as reason:
        yield Panel("slice-0", "Slices", "", None, str(reason))
        return
    for index, (name, figure) in enumerate(drawn.items()):
        yield Panel(f"slice-{index}", name, f"{LABELS[study.config.metric]} over {name}", figure)


def _course(study: Reported) -> Iterator[Panel]:
    trials, config = study.trials, study.config
    better = "Higher" if config.direction == "maximize" else "Lower"
    yield drawn_panel(
        "history",
        "Optimization history",
        f"Each complete trial's {LABELS[config.metric]} and the best so far. {better} is better; outliers "
        "on the other side may lie outside the axis. Failed and pruned trials are not drawn."
        + _sampled(study, figures.points_of_history(config), "the figure shows"),
        lambda: figures.history(trials, config),
    )
    yield drawn_panel(
        "anytime",
        "Best value over time",
        "The best value so far over the time since the first trial began; breaks of the search count.",
        lambda: figures.anytime(trials, config),
    )
    yield drawn_panel(
        "intermediate",
        "Learning curves",
        "The metric after each epoch; pruned trials are faded and dotted. "
        f"Of more than {figures.MAX_CURVES} trials an even sample is drawn.",
        lambda: figures.intermediate_values(trials, config),
    )
    yield drawn_panel(
        "parallel",
        "Parallel coordinates",
        "One line per complete trial, through its parameters to its value."
        + _sampled(study, parallel.lines_of(config), "the figure shows"),
        lambda: parallel.parallel_coordinates(trials, config),
        min_width=110 * (len(config.search) + 1),
    )


def _sampled(study: Reported, most: int, who: str) -> str:
    """That not every trial is there, where it is so."""
    complete = len(complete_trials(study.trials))
    return f" Of {complete:,} complete trials {who} {most:,}, evenly spread." if complete > most else ""


def _test(study: Reported) -> Iterator[Panel]:
    if study.result is None:
        return
    test = study.result.test
    if isinstance(test, RegressionMetrics):
        caption = "Test rows: predictions against the truth. On the dashed line they agree."
        yield drawn_panel(
            "predicted", "Predicted and true values", caption, lambda: winner_figures.predicted(test)
        )
        return
    yield drawn_panel(
        "roc",
        "ROC curves",
        f"True positives against false positives as the decision threshold moves. {_which(test, 'AUC')}",
        lambda: winner_figures.roc(test),
    )
    yield drawn_panel(
        "precision-recall",
        "Precision and recall",
        f"Of what is called positive, how much is; of what is positive, how much is found. "
        f"{_which(test, 'average precision (AP)')}",
        lambda: winner_figures.precision_recall(test),
    )
    yield drawn_panel(
        "confusion",
        "Confusion matrix",
        "Test rows by true and predicted class; the colour is the share of the true class.",
        lambda: winner_figures.confusion(test),
    )
    yield drawn_panel(
        "calibration",
        "Calibration",
        "How often predictions are right, over how sure the model was: below the dashed line it is surer "
        "than right. Larger points have more examples; ECE is their mean distance from the line.",
        lambda: winner_figures.calibration(test),
    )


def _which(test: ClassificationMetrics, measure: str) -> str:
    if len(test.roc_curves) > winner_figures.MAX_CURVES:
        return f"The {winner_figures.MAX_CURVES} classes with the lowest {measure} are shown."
    return "Class by class against the others." if len(test.classes) > 2 else "The positive class is named."
