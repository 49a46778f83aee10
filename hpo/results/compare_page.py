"""A comparison as one self-contained HTML file."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import plotly.graph_objects as go

from hpo.results import compare_text, winner_figures
from hpo.results.compare import Compared, Comparison
from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.page import Panel, drawn_panel, page
from hpo.results.winner_figures import MAX_CURVES


@dataclass(frozen=True)
class Section:
    """The same figure of every study, side by side."""

    id: str
    title: str
    caption: str
    panels: Sequence[Panel]


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
    if not comparison.classification:
        yield Section(
            "predicted",
            "Predicted and true values",
            "Test examples: predictions against the truth. On the dashed line they agree.",
            [_regression(number, study) for number, study in enumerate(comparison.studies)],
        )
        return
    several = f"Of each study's classes the {MAX_CURVES} with the lowest AUC are shown at most."
    yield Section(
        "roc",
        "ROC curves",
        f"True positives against false positives as the decision threshold moves. {several}",
        [_panel("roc", number, study, winner_figures.roc) for number, study in enumerate(comparison.studies)],
    )
    yield Section(
        "confusion",
        "Confusion matrices",
        "Test examples by true and predicted class; the colour is the share of the true class.",
        [
            _panel("confusion", number, study, winner_figures.confusion)
            for number, study in enumerate(comparison.studies)
        ],
    )


def _panel(
    kind: str, number: int, study: Compared, draw: Callable[[ClassificationMetrics], go.Figure]
) -> Panel:
    test = study.result.test
    assert isinstance(test, ClassificationMetrics)
    return drawn_panel(f"{kind}-{number}", study.name, "", partial(draw, test))


def _regression(number: int, study: Compared) -> Panel:
    test = study.result.test
    assert isinstance(test, RegressionMetrics)
    return drawn_panel(f"predicted-{number}", study.name, "", partial(winner_figures.predicted, test))
