"""The report: a study's outcome as one self-contained HTML file."""

import base64
import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from optuna.trial import FrozenTrial
from plotly.io.json import to_json_plotly
from plotly.offline import get_plotlyjs

from hpo.config import StudyConfig
from hpo.data.prepared import Finding
from hpo.results import figures, importance, parallel, summary, winner_figures
from hpo.results.finalize import FinalResult
from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.theme import DARK, LIGHT, ON_DARK, PAGE_DARK, PAGE_LIGHT, NothingToDraw, short
from hpo.results.values import LABELS, METRIC_LABELS

PACKAGES = ("hpo", "torch", "optuna", "scikit-learn", "numpy", "plotly")


@dataclass(frozen=True)
class Panel:
    """A figure with its words, or the reason why it is not there."""

    id: str
    title: str
    caption: str
    drawn: go.Figure | None
    why_not: str = ""
    min_width: int = 0
    """In CSS pixels; a narrower screen scrolls it sideways."""


def render(
    config: StudyConfig,
    trials: Sequence[FrozenTrial],
    result: FinalResult | None,
    findings: Sequence[Finding],
    data_sizes: Mapping[str, int],
) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    environment = Environment(
        loader=PackageLoader("hpo", "results"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": summary.number,
        "interval": summary.interval_text,
        "csp_hash": _csp_hash,
    }
    environment.filters |= {"short": short}
    search, slices, test = list(_search(trials, config)), list(_slices(trials, config)), list(_test(result))
    drawn = {panel.id: panel.drawn for panel in [*search, *slices, *test] if panel.drawn is not None}
    return environment.get_template("report.html").render(
        config=config,
        result=result,
        findings=findings,
        sentences=summary.summary(config, trials, result, data_sizes),
        failures=summary.failures(trials),
        metric_label=LABELS[config.metric],
        costs={c.number: summary.selection_cost(config, c) for c in result.candidates} if result else {},
        metrics=_metrics(result) if result else [],
        search=search,
        slices=slices,
        test=test,
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        versions={"Python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        pages={"light": PAGE_LIGHT, "dark": PAGE_DARK},
        plotly_js=Markup(get_plotlyjs()),
        figures=_json({name: _bare(figure) for name, figure in drawn.items()}),
        themes=_json(
            {
                "light": {"template": LIGHT.to_plotly_json(), "colors": {}},
                "dark": {"template": DARK.to_plotly_json(), "colors": ON_DARK},
            }
        ),
    )


def _csp_hash(script: str) -> str:
    """A script's name in a Content-Security-Policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()}"


def _json(content: Any) -> Markup:
    """JSON for a script element: no `<` that could end it."""
    return Markup(to_json_plotly(content, engine="json").replace("<", "\\u003c"))


def _bare(figure: go.Figure) -> dict[str, Any]:
    """The figure without its template: the page puts in its own, light or dark."""
    content: dict[str, Any] = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return content


def _panel(name: str, title: str, caption: str, draw: Callable[[], go.Figure], min_width: int = 0) -> Panel:
    try:
        return Panel(name, title, caption, draw(), min_width=min_width)
    except NothingToDraw as reason:
        return Panel(name, title, caption, None, str(reason))


def _search(trials: Sequence[FrozenTrial], config: StudyConfig) -> Iterator[Panel]:
    better = "Higher" if config.direction == "maximize" else "Lower"
    yield _panel(
        "history",
        "Optimization history",
        f"Each complete trial's {LABELS[config.metric]} and the best so far. {better} is better; outliers "
        "on the other side may lie outside the axis. Failed and pruned trials are not drawn.",
        lambda: figures.history(trials, config),
    )
    yield _panel(
        "intermediate",
        "Learning curves",
        "The metric after each epoch; pruned trials are faded and dotted. "
        f"Of more than {figures.MAX_CURVES} trials an even sample is drawn.",
        lambda: figures.intermediate_values(trials, config),
    )
    yield _panel(
        "importances",
        "Parameter importances",
        "What share of the differences between trials each parameter explains: fANOVA over the whole space, "
        "of parameters that every trial has; PED-ANOVA for reaching the best tenth. From few trials both are "
        f"rough. Of more than {importance.MAX_FANOVA_TRIALS} trials fANOVA sees an even sample.",
        lambda: importance.importances(trials, config),
    )
    yield _panel(
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
        yield _panel(
            "predicted", "Predicted and true values", caption, lambda: winner_figures.predicted(test)
        )
        return
    yield _panel("roc", "ROC curves", _roc_caption(test), lambda: winner_figures.roc(test))
    yield _panel(
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
        interval = test.accuracy_interval if isinstance(test, ClassificationMetrics) else None
        rows.append(
            {
                "name": name,
                "label": METRIC_LABELS[name],
                "value": value,
                "interval": interval if name == "accuracy" else None,
                "seeds": result.seeds.get(name),
            }
        )
    return rows
