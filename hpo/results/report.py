"""The report: a study's outcome as one self-contained HTML file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from hpo.config import StudyConfig
from hpo.data.prepared import Finding
from hpo.results import figures, importance, parallel, summary, winner_figures
from hpo.results.candidates import selection_cost
from hpo.results.finalize import FinalResult
from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.page import Panel, drawn_panel, page
from hpo.results.theme import NothingToDraw
from hpo.results.values import LABELS, METRIC_LABELS


def render(
    config: StudyConfig,
    trials: Sequence[FrozenTrial],
    result: FinalResult | None,
    findings: Sequence[Finding],
    data_sizes: Mapping[str, int],
) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    search, slices, test = list(_search(trials, config)), list(_slices(trials, config)), list(_test(result))
    return page(
        "report.html",
        [*search, *slices, *test],
        config=config,
        result=result,
        findings=findings,
        sentences=summary.summary(config, trials, result, data_sizes),
        failures=summary.failures(trials),
        metric_label=LABELS[config.metric],
        costs={c.number: selection_cost(config, c) for c in result.candidates} if result else {},
        metrics=_metrics(result) if result else [],
        search=search,
        slices=slices,
        test=test,
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )


def _search(trials: Sequence[FrozenTrial], config: StudyConfig) -> Iterator[Panel]:
    better = "Higher" if config.direction == "maximize" else "Lower"
    yield drawn_panel(
        "history",
        "Optimization history",
        f"Each complete trial's {LABELS[config.metric]} and the best so far. {better} is better; outliers "
        "on the other side may lie outside the axis. Failed and pruned trials are not drawn.",
        lambda: figures.history(trials, config),
    )
    yield drawn_panel(
        "intermediate",
        "Learning curves",
        "The metric after each epoch; pruned trials are faded and dotted. "
        f"Of more than {figures.MAX_CURVES} trials an even sample is drawn.",
        lambda: figures.intermediate_values(trials, config),
    )
    yield drawn_panel(
        "importances",
        "Parameter importances",
        "What share of the differences between trials each parameter explains: fANOVA over the whole space, "
        "of parameters that every trial has; PED-ANOVA for reaching the best tenth. From few trials both are "
        f"rough. Of more than {importance.MAX_FANOVA_TRIALS} trials fANOVA sees an even sample.",
        lambda: importance.importances(trials, config),
    )
    yield drawn_panel(
        "parallel",
        "Parallel coordinates",
        "One line per complete trial, through its parameters to its value.",
        lambda: parallel.parallel_coordinates(trials, config),
        min_width=110 * (len(config.search) + 1),
    )


def _slices(trials: Sequence[FrozenTrial], config: StudyConfig) -> Iterator[Panel]:
    try:
        drawn = figures.slices(trials, config)
    except NothingToDraw as reason:
        yield Panel("slice-0", "Slices", "", None, str(reason))
        return
    for index, (name, figure) in enumerate(drawn.items()):
        yield Panel(f"slice-{index}", name, f"{LABELS[config.metric]} over {name}", figure)


def _test(result: FinalResult | None) -> Iterator[Panel]:
    if result is None:
        return
    test = result.test
    if isinstance(test, RegressionMetrics):
        caption = "Test rows: predictions against the truth. On the dashed line they agree."
        yield drawn_panel(
            "predicted", "Predicted and true values", caption, lambda: winner_figures.predicted(test)
        )
        return
    yield drawn_panel("roc", "ROC curves", _roc_caption(test), lambda: winner_figures.roc(test))
    yield drawn_panel(
        "confusion",
        "Confusion matrix",
        "Test rows by true and predicted class; the colour is the share of the true class.",
        lambda: winner_figures.confusion(test),
    )


def _roc_caption(test: ClassificationMetrics) -> str:
    if len(test.roc_curves) > winner_figures.MAX_CURVES:
        shown = f"The {winner_figures.MAX_CURVES} classes with the lowest AUC are shown."
    else:
        shown = (
            "Class by class against the others." if len(test.classes) > 2 else "The positive class is named."
        )
    return f"True positives against false positives as the decision threshold moves. {shown}"


def _metrics(result: FinalResult) -> list[dict[str, Any]]:
    """Rows of the table of test metrics."""
    test = result.test
    rows: list[dict[str, Any]] = []
    for name, value in test.scalars().items():
        rows.append(
            {
                "name": name,
                "label": METRIC_LABELS[name],
                "value": value,
                "interval": test.interval(name),
                "seeds": result.seeds.get(name),
            }
        )
    return rows
