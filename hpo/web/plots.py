"""Figures of ours on a study's page, drawn at each look rather than stored with the study."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter, ValidationError

from hpo.config import Folds, StudyConfig
from hpo.results import winner_figures
from hpo.results.figures import intermediate_values, params_text
from hpo.results.metrics import ClassificationMetrics, TestMetrics
from hpo.results.theme import BLUE, DASHES, GREY, PALETTE, VERMILLION, NothingToDraw, figure, text
from hpo.results.values import METRIC_LABELS, evenly, focus, value_label, value_of
from hpo.search.status import RESULT
from hpo.web.watched import StudyRow, Watched

BEST = 10
"""Learning curves."""
MAX_POINTS = 600
"""Of a figure: a browser draws a thousand in a tenth of a second."""
_MOMENTS = {"tickangle": 0, "nticks": 4}
"""Of an axis of times: labels that turn change the margin, which may turn them back, and so on."""
_METRICS: TypeAdapter[TestMetrics] = TypeAdapter(TestMetrics)


def plots(study: Watched, others: Sequence[StudyRow], curves: bool) -> list[dict[str, str]]:
    """The figures that there is something for, as the page takes them: an id and JSON.

    others: all studies, for the comparison. curves: whether to draw intermediate values: the page does not.
    """
    config = study.config
    if config is None:
        return []
    drawn = []
    for name, title, draw in _figures(config, study, others, curves):
        try:
            made = draw()
        except NothingToDraw:
            continue
        # The page gives each figure its place, and has a light and a dark side.
        layout = {"height": None, "autosize": True, "paper_bgcolor": "#fff", "plot_bgcolor": "#fff"}
        # A title of this size fits into the width of a phone.
        head = {"text": title, "x": 0.02, "y": 0.98, "yanchor": "top", "font": {"size": 15}}
        made.update_layout(title=head, **layout)
        made.update_layout(margin={"l": 64, "r": 16, "t": 88, "b": 56})
        drawn.append({"id": name, "graph_object": made.to_json(engine="json")})
    return drawn


_Drawn = tuple[str, str, Callable[[], go.Figure]]


def _figures(
    config: StudyConfig, study: Watched, others: Sequence[StudyRow], curves: bool
) -> Iterator[_Drawn]:
    trials = study.trials
    if curves:
        yield "intermediate", "Intermediate values", lambda: intermediate_values(trials, config)
    yield (
        "learning-curves",
        f"Learning curves of the {BEST} best trials",
        lambda: best_curves(study.best(BEST), config),
    )
    label = METRIC_LABELS[config.metric]
    yield "over-time", f"{label[0].upper()}{label[1:]} against time", lambda: over_time(trials, config)
    yield "lanes", "Lanes in use", lambda: lanes(trials, _folds(config))
    test = tested(study.row)
    if isinstance(test, ClassificationMetrics):
        yield "roc", "ROC curves on the test set", lambda: winner_figures.roc(test)
        yield "confusion", "Confusion matrix on the test set", lambda: winner_figures.confusion(test)
    elif test is not None:
        yield "predicted", "Predicted and true values of the test set", lambda: winner_figures.predicted(test)
    if test is not None:
        yield "comparison", "Studies on this test set", lambda: comparison(study.row, others)


def _folds(config: StudyConfig) -> int:
    return config.validation.folds if isinstance(config.validation, Folds) else 1


def best_curves(best: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """The values of each epoch of these trials, the first of them in front.

    Raises:
        NothingToDraw: none reported a value.
    """
    curves = []
    for rank, trial in enumerate(best):
        steps = [(s, v) for s, v in sorted(trial.intermediate_values.items()) if math.isfinite(v)]
        if not steps:
            continue
        color = VERMILLION if rank == 0 else [c for c in PALETTE if c != VERMILLION][rank % 5]
        curves.append(
            go.Scatter(
                x=[step for step, _ in steps],
                y=[float(f"{value:.5g}") for _, value in steps],
                name=str(trial.number),
                mode="lines+markers" if len(steps) == 1 else "lines",
                line={"color": color, "width": 3 if rank == 0 else 1.4, "dash": DASHES[rank // 5 % 4]},
                hovertemplate=f"trial {trial.number}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            )
        )
    if not curves:
        raise NothingToDraw("No complete trial reported a value of an epoch.")
    drawn = figure(*reversed(curves), x="epoch", y=value_label(config))
    values = [value for curve in curves for value in curve.y]
    legend = {"traceorder": "reversed"}
    return drawn.update_yaxes(range=focus(values, config)).update_layout(legend=legend)


def over_time(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """Each complete trial's value when it came to its end, and the best up to then.

    Raises:
        NothingToDraw: no trial is complete.
    """
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.datetime_complete]
    complete.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    if not complete:
        raise NothingToDraw("No trial is complete.")
    better = max if config.direction == "maximize" else min
    best = list(itertools.accumulate(map(value_of, complete), better))
    shown = evenly(len(complete), MAX_POINTS)
    rises = sorted({0, len(best) - 1, *(i for i in range(1, len(best)) if best[i] != best[i - 1])})
    ends = [trial.datetime_complete for trial in complete]
    drawn = figure(
        go.Scatter(
            x=[ends[i] for i in shown],
            y=[value_of(complete[i]) for i in shown],
            mode="markers",
            name="trial",
            marker={"color": BLUE, "size": 6, "opacity": 0.5},
            text=[f"trial {complete[i].number}<br>{params_text(complete[i].params)}" for i in shown],
            hovertemplate="%{y:.4f}<br>%{text}<extra></extra>",
        ),
        go.Scatter(
            x=[ends[i] for i in rises],
            y=[best[i] for i in rises],
            mode="lines",
            name="best so far",
            line={"color": VERMILLION, "shape": "hv", "width": 2.5},
            hovertemplate="best: %{y:.4f}<extra></extra>",
        ),
        x="time of completion",
        y=value_label(config),
    )
    drawn.update_yaxes(range=focus([value_of(trial) for trial in complete], config))
    return drawn.update_xaxes(**_MOMENTS)


def lanes(trials: Sequence[FrozenTrial], folds: int) -> go.Figure:
    """Lanes in training over time: a trial has one for each fold, from its last claim to its end.

    Raises:
        NothingToDraw: no trial was claimed.
    """
    begun = [(trial.datetime_start, folds) for trial in trials if trial.datetime_start]
    ended = [(t.datetime_complete, -folds) for t in trials if t.datetime_start and t.datetime_complete]
    if not begun:
        raise NothingToDraw("No trial was claimed.")
    changes = sorted(begun + ended, key=lambda change: (change[0], change[1]))
    moments = [moment for moment, _ in changes]
    used = list(itertools.accumulate(change for _, change in changes))
    shown = evenly(len(changes), MAX_POINTS)
    line = go.Scatter(
        x=[moments[i] for i in shown],
        y=[used[i] for i in shown],
        mode="lines",
        line={"color": BLUE, "shape": "hv", "width": 1.6},
        fill="tozeroy",
        hovertemplate="%{y} lanes<extra></extra>",
    )
    drawn = figure(line, x="time", y="lanes", showlegend=False).update_yaxes(rangemode="tozero")
    return drawn.update_xaxes(**_MOMENTS)


def tested(row: StudyRow) -> TestMetrics | None:
    """What finalizing measured, if that was done and by a version that this one understands."""
    try:
        return _METRICS.validate_python(_result(row)["test"])
    except (ValidationError, KeyError):
        return None


def _result(row: StudyRow) -> Mapping[str, Any]:
    stored = row.attrs.get(RESULT)
    result = stored.get("result") if isinstance(stored, Mapping) else None
    return result if isinstance(result, Mapping) else {}


def _test_set(row: StudyRow) -> Any:
    predictions = _result(row).get("predictions")
    return predictions.get("test") if isinstance(predictions, Mapping) else None


def comparison(row: StudyRow, others: Sequence[StudyRow]) -> go.Figure:
    """The test accuracy, with its interval, or RMSE of all studies tested on the same examples.

    Raises:
        NothingToDraw: there is no other one.
    """
    digest = _test_set(row)
    found = [(other, tested(other)) for other in others if digest and _test_set(other) == digest]
    known = [(other.name, test) for other, test in found if test is not None]
    if len(known) < 2:
        raise NothingToDraw("No other study was tested on the same examples.")
    names = [text(name) for name, _ in known]
    colors = [VERMILLION if name == row.name else GREY for name, _ in known]
    classifiers = [test for _, test in known if isinstance(test, ClassificationMetrics)]
    if len(classifiers) == len(known):
        metric, values = "accuracy", [test.accuracy for test in classifiers]
        above = [test.accuracy_interval[1] - test.accuracy for test in classifiers]
        below = [test.accuracy - test.accuracy_interval[0] for test in classifiers]
        bars: Any = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    else:
        metric, bars = "rmse", None
        values = [value for _, test in known if (value := test.scalars()["rmse"]) is not None]
    points = go.Scatter(
        x=values,
        y=names,
        error_x=bars,
        mode="markers",
        marker={"color": colors, "size": 11},
        hovertemplate="%{y}: %{x:.4f}<extra></extra>",
    )
    label = f"test {METRIC_LABELS[metric]}" + (", 95 %" if bars else "")
    drawn = figure(points, x=label, y="", showlegend=False)
    return drawn.update_yaxes(type="category", autorange="reversed")
