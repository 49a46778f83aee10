"""A comparison as one self-contained HTML file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import plotly.graph_objects as go

from hpo.results import compare_text, winner_figures
from hpo.results.compare import Comparison
from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.page import Panel, drawn_panel, page
from hpo.results.winner_figures import MAX_CELLS_WITH_NUMBERS, MAX_CURVES

Test = TypeVar("Test", ClassificationMetrics, RegressionMetrics)


@dataclass(frozen=True)
class Section:
    """The same figure of every study, side by side."""

    id: str
    title: str
    caption: str
    panels: Sequence[Panel]
    wide: bool = False
    """At most two of them fit side by side."""


def render_comparison(comparison: Comparison) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    sections = list(_sections(comparison))
    confusions = {study.name: study.result.confusions for study in comparison.studies}
    return page(
        "compare.html",
        [panel for section in sections for panel in section.panels],
        names=[study.name for study in comparison.studies],
        examples=comparison.studies[0].result.test.n,
        rows=compare_text.rows(comparison),
        notes=compare_text.notes(comparison),
        sentences=[compare_text.sentence(comparison, pair) for pair in comparison.pairs],
        about_tests=compare_text.about_tests(comparison),
        sections=sections,
        confusions=confusions if comparison.classification else {},
        with_images=any(found.images for each in confusions.values() for found in each),
    )


def _sections(comparison: Comparison) -> Iterator[Section]:
    by_name = {study.name: study.result.test for study in comparison.studies}
    classifiers = {name: test for name, test in by_name.items() if isinstance(test, ClassificationMetrics)}
    if classifiers:
        yield from _of_classifiers(classifiers)
        return
    regressors = {name: test for name, test in by_name.items() if isinstance(test, RegressionMetrics)}
    yield Section(
        "predicted",
        "Predicted and true values",
        "Test examples: predictions against the truth. On the dashed line they agree.",
        _panels("predicted", regressors, winner_figures.predicted),
    )


def _of_classifiers(tested: Mapping[str, ClassificationMetrics]) -> Iterator[Section]:
    classes = len(next(iter(tested.values())).classes)
    hardest = f" Of each study's classes the {MAX_CURVES} with the lowest AUC are shown."
    yield Section(
        "roc",
        "ROC curves",
        "True positives against false positives as the decision threshold moves."
        + (hardest if classes > MAX_CURVES else ""),
        _panels("roc", tested, winner_figures.roc),
    )
    many = classes > MAX_CELLS_WITH_NUMBERS
    yield Section(
        "confusion",
        "Confusion matrices",
        "Test examples by true and predicted class; the colour is the share of the true class.",
        # A label for each class needs its place.
        _panels("confusion", tested, winner_figures.confusion, min(560, 60 + 12 * classes) if many else 0),
        wide=many,
    )


def _panels(
    kind: str, tested: Mapping[str, Test], draw: Callable[[Test], go.Figure], min_width: int = 0
) -> list[Panel]:
    return [
        drawn_panel(f"{kind}-{number}", name, "", partial(draw, test), min_width)
        for number, (name, test) in enumerate(tested.items())
    ]
