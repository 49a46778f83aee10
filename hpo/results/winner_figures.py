"""Plotly figures of the winner on the test part."""

import numpy as np
import plotly.graph_objects as go

from hpo.results.metrics import ClassificationMetrics, RegressionMetrics
from hpo.results.theme import BLUE, DASHES, GREY, PALETTE, NothingToDraw, cut, figure, text

MAX_CURVES = 12
MAX_CELLS_WITH_NUMBERS = 12
MAX_LABELLED_CLASSES = 40
CHARACTERS_BELOW = 24
"""That fit side by side below a matrix on a phone."""


def roc(metrics: ClassificationMetrics) -> go.Figure:
    """ROC curves, one for each class against the others; of many classes, the hardest `MAX_CURVES`.

    Raises:
        NothingToDraw: no class has both positive and negative test examples.
    """
    if not metrics.roc_curves:
        raise NothingToDraw("ROC curves need test examples of at least two classes.")
    hardest = sorted(metrics.roc_curves, key=lambda curve: curve.auc)[:MAX_CURVES]
    curves = [
        _curve(
            index,
            curve.false_positive_rate,
            curve.true_positive_rate,
            name=f"{text(cut(curve.name, 28))} (AUC {curve.auc:.3f})",
            hovertemplate="false positives %{x:.1%}, true positives %{y:.1%}<extra></extra>",
        )
        for index, curve in enumerate(curve for curve in metrics.roc_curves if curve in hardest)
    ]
    chance = go.Scatter(
        x=[0, 1],
        y=[0, 1],
        name="chance",
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1},
        hoverinfo="skip",
    )
    return _unit_square([*curves, chance], "false positive rate", "true positive rate")


def precision_recall(metrics: ClassificationMetrics) -> go.Figure:
    """Precision over recall, one curve for each class against the others; of many, the hardest `MAX_CURVES`.

    Raises:
        NothingToDraw: no class has both kinds of examples, or the curves were not recorded.
    """
    if not metrics.precision_recall_curves:
        raise NothingToDraw(
            "Precision-recall curves were not recorded by the version of hpo that finalized this study."
            if metrics.roc_curves
            else "Precision-recall curves need test examples of at least two classes."
        )
    hardest = sorted(metrics.precision_recall_curves, key=lambda curve: curve.average_precision)[:MAX_CURVES]
    curves = [
        _curve(
            index,
            curve.recall,
            curve.precision,
            name=f"{text(cut(curve.name, 28))} (AP {curve.average_precision:.3f})",
            hovertemplate=f"recall %{{x:.1%}}, precision %{{y:.1%}}; guessing {curve.prevalence:.1%}"
            "<extra></extra>",
        )
        for index, curve in enumerate(curve for curve in metrics.precision_recall_curves if curve in hardest)
    ]
    return _unit_square(curves, "recall", "precision")


def _curve(index: int, x: list[float], y: list[float], **content: str) -> go.Scatter:
    """The line of the class that is drawn as number `index`."""
    line = {
        "color": PALETTE[index % len(PALETTE)],
        "dash": DASHES[index // len(PALETTE) % len(DASHES)],
        "width": 2.2,
    }
    return go.Scatter(x=x, y=y, mode="lines", line=line, **content)


def _unit_square(curves: list[go.Scatter], x: str, y: str) -> go.Figure:
    """Curves between 0 and 1, below a legend of two columns."""
    rows = -(-len(curves) // 2)
    drawn = figure(*curves, x=x, y=y, height=440 + 22 * rows, showlegend=True)
    drawn.update_xaxes(range=[-0.01, 1.01], tickformat=".0%")
    return drawn.update_yaxes(range=[-0.01, 1.02], tickformat=".0%")


def confusion(metrics: ClassificationMetrics) -> go.Figure:
    """Counts by true and predicted class, coloured by the share of the true class."""
    counts = np.asarray(metrics.confusion_matrix)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(counts) <= MAX_CELLS_WITH_NUMBERS
    places = list(range(len(counts)))
    names = [text(cut(found.name, 16)) for found in metrics.classes]
    hover = [
        [f"true {true}, predicted {guess}: {counts[row, column]}" for column, guess in enumerate(names)]
        for row, true in enumerate(names)
    ]
    # From white to blue: plotly writes black on the light cells and white on the dark ones.
    heatmap = go.Heatmap(
        z=shares.round(4),
        x=places,
        y=places,
        text=counts if few else None,
        texttemplate="%{text}" if few else None,
        hovertext=hover,
        hovertemplate="%{hovertext} (%{z:.1%})<extra></extra>",
        zmin=0,
        zmax=1,
        colorscale=[[0, "#f4f7fb"], [0.5, "#7fb5dc"], [1, BLUE]],
        xgap=1,
        ygap=1,
        showscale=not few,
        colorbar={"title": {"text": "share of<br>true class"}, "tickformat": ".0%", "thickness": 12},
    )
    drawn = figure(heatmap, x="predicted class", y="true class", height=min(760, 300 + 36 * len(counts)))
    step = -(-len(counts) // MAX_LABELLED_CLASSES)
    ticks = {"tickmode": "array", "tickvals": places[::step], "ticktext": names[::step]}
    # Slanted to the left: to the right the last one would leave a narrow figure, and plotly drops it.
    crowded = max(map(len, names)) * len(names) > CHARACTERS_BELOW
    drawn.update_xaxes(**ticks, tickangle=-45 if crowded else 0, showgrid=False, zeroline=False)
    return drawn.update_yaxes(**ticks, autorange="reversed", showgrid=False, zeroline=False)


def predicted(metrics: RegressionMetrics) -> go.Figure:
    """Predictions against the truth, with the line on which they would agree."""
    ends = [min(metrics.truth + metrics.predicted), max(metrics.truth + metrics.predicted)]
    points = go.Scatter(
        x=metrics.truth,
        y=metrics.predicted,
        mode="markers",
        name="test example",
        marker={"color": BLUE, "size": 7, "opacity": 0.6},
        hovertemplate="true %{x:.4g}, predicted %{y:.4g}<extra></extra>",
    )
    agreement = go.Scatter(
        x=ends,
        y=ends,
        mode="lines",
        name="agreement",
        line={"color": GREY, "dash": "dash", "width": 1.5},
        hoverinfo="skip",
    )
    return figure(
        points, agreement, x="true value (target's unit)", y="predicted value (target's unit)", height=460
    )


def calibration(metrics: ClassificationMetrics) -> go.Figure:
    """The reliability diagram: how often predictions are right, over how sure the model was of them.

    Raises:
        NothingToDraw: it was not recorded.
    """
    known = metrics.calibration
    if known is None:
        raise NothingToDraw("Calibration was not recorded by the version of hpo that finalized this study.")
    largest = max(found.n for found in known.bins)
    points = go.Scatter(
        x=[found.confidence for found in known.bins],
        y=[found.accuracy for found in known.bins],
        customdata=[found.n for found in known.bins],
        mode="lines+markers",
        name=f"exported model (ECE {known.ece:.3f})",
        line={"color": BLUE, "width": 2},
        marker={"color": BLUE, "size": [6 + 14 * (found.n / largest) ** 0.5 for found in known.bins]},
        hovertemplate="%{customdata} examples: %{x:.1%} sure, %{y:.1%} right<extra></extra>",
    )
    agreement = go.Scatter(
        x=[0, 1],
        y=[0, 1],
        name="as sure as right",
        mode="lines",
        line={"color": GREY, "dash": "dash", "width": 1},
        hoverinfo="skip",
    )
    return _unit_square([points, agreement], "probability of the predicted class", "accuracy")
