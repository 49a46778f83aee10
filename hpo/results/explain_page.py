"""An explanation as one self-contained HTML file."""

from collections.abc import Iterator
from functools import partial

from hpo.results import explain_figures, explain_text
from hpo.results.attribution import STEPS
from hpo.results.explain import Explanation
from hpo.results.explain_cards import Card, Cards
from hpo.results.page import Panel, drawn_panel, page
from hpo.results.shown import Shown
from hpo.results.theme import short

MAX_EXAMPLES = 12
"""Of a table: one bar chart each."""


def render_explanation(found: Explanation) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    subject = found.subject
    columns, examples = list(_columns(found)), list(_examples(found))
    sanity = _sanity(found)
    cards: list[Card] = []
    pairs: list[Card] = []
    if subject.table is None:
        drawing = Cards(found)
        cards, pairs = drawing.of_classes(), drawing.of_pairs()
    return page(
        "explain.html",
        [*columns, *examples, sanity],
        subject=subject,
        matters=explain_text.matters(found),
        about=[explain_text.reached(subject), *subject.about],
        verdict=explain_text.verdict(found),
        checks=[explain_text.sanity_sentence(check) for check in found.checks],
        impossible=explain_text.impossible(found),
        how=list(_how(found)),
        numbers=list(_numbers(found)),
        columns=columns,
        examples=examples,
        cards=cards,
        pairs=pairs,
        sanity=sanity,
    )


def panels(found: Explanation) -> Iterator[Panel]:
    """All figures of the page, for pictures of them; heat maps of images are none."""
    yield from _columns(found)
    yield from _examples(found)
    yield _sanity(found)


def _sanity(found: Explanation) -> Panel:
    return drawn_panel(
        "sanity",
        "Attributions as weights become random",
        explain_text.about_check(),
        partial(explain_figures.sanity_lines, found.checks),
    )


def _numbers(found: Explanation) -> Iterator[tuple[str, str, str]]:
    """(label, figure, note) of what stands first."""
    subject = found.subject
    if (known := explain_text.score(subject)) is not None:
        note = f"on {len(subject.features):,} examples that explain it"
        yield known[0], explain_text.number(known[1], subject), note
    if found.importances is not None and found.importances.columns:
        first = found.importances.columns[0]
        yield "counts most", first.column, f"shuffled it costs {explain_text.number(first.cost, subject)}"
    for check in found.checks:
        note = f"rank correlation {round(check.final, 2) + 0.0:.2f} with random weights"
        yield check.method, "passes" if check.passed else "fails", note


def _columns(found: Explanation) -> Iterator[Panel]:
    costs, subject = found.importances, found.subject
    if costs is None:
        return
    title = "RMSE gained"
    if subject.classification:
        title = f"{'agreement' if subject.targets is None else 'accuracy'} lost"
    yield drawn_panel(
        "importance",
        "What shuffling a column costs",
        f"Permutation importance on {costs.rows:,} rows, with 95 % intervals over {costs.resamples} "
        "resamples of the rows; grey where the interval reaches 0. Columns that tell the same stand in for "
        "each other, so that each of them seems to matter less. "
        + _first(len(costs.columns), explain_figures.MAX_COLUMNS, "columns"),
        partial(
            explain_figures.importance_bars,
            costs,
            title,
            "when shuffled" if subject.classification else "target's unit",
        ),
    )
    yield drawn_panel(
        "by-class",
        "What speaks for each class" if subject.classes else "What raises the prediction",
        f"{found.by_class.method}, averaged over {sum(found.by_class.counts):,} examples"
        f"{', each towards its own class' if subject.classes else ''}: vermilion for it, blue against it, "
        f"compared with {subject.baseline_text}. "
        + _first(len(costs.columns), explain_figures.MAX_COLUMNS, "columns"),
        partial(explain_figures.class_heatmap, found),
        min_width=min(1200, 230 + 30 * len(subject.classes)) if len(subject.classes) > 5 else 0,
    )
    for number, curve in enumerate(found.dependences):
        yield drawn_panel(
            f"dependence-{number}",
            f"Partial dependence on {curve.column}",
            "The mean prediction if all rows had this value and kept their others.",
            partial(explain_figures.dependence_lines, curve, found),
        )


def _first(count: int, most: int, noun: str) -> str:
    return f"The first {most} of {count} {noun}." if count > most else ""


def _examples(found: Explanation) -> Iterator[Panel]:
    if found.subject.table is None:
        return
    every = [shown for group in found.shown.values() for shown in group]
    # Wrong ones tell more.
    chosen = sorted(every, key=lambda shown: shown.right is not False)[:MAX_EXAMPLES]
    for number, shown in enumerate(chosen):
        yield drawn_panel(
            f"example-{number}",
            _title(shown, found),
            f"Row {shown.row + 1} of those that explain the model.",
            partial(explain_figures.example_bars, shown, found),
        )


def _title(shown: Shown, found: Explanation) -> str:
    subject = found.subject
    if not subject.classes:
        title = f"Predicted {short(float(subject.predicted[shown.row]))}"
        return (
            title if subject.targets is None else f"{title}, true {short(float(subject.targets[shown.row]))}"
        )
    name = subject.classes[shown.explained]
    sure = f"(probability {float(subject.probabilities[shown.row, shown.explained]):.2f})"
    if shown.right is None:
        return f"Taken for {name} {sure}"
    if shown.right:
        return f"Right: {name} {sure}"
    return f"Wrong: {subject.classes[int(subject.groups[shown.row])]} taken for {name} {sure}"


def _how(found: Explanation) -> Iterator[str]:
    subject = found.subject
    if found.methods.differentiable:
        yield (
            f"Integrated gradients (Sundararajan et al., 2017): {STEPS} steps from the baseline, which is "
            f"{subject.baseline_text}."
        )
    names = {method.name for method in found.methods.possible}
    if "Grad-CAM" in names:
        yield (
            "Grad-CAM (Selvaraju et al., 2017) on the last convolution, found by watching a forward pass, in "
            "the form of HiResCAM (Draelos and Carin, 2020): gradients are not averaged first."
        )
    if "Occlusion" in names:
        what = "a square of a quarter of the height or width" if subject.features.ndim > 2 else "a column"
        yield f"Occlusion (Zeiler and Fergus, 2014): {what} is covered by the baseline."
    if found.maximal is not None:
        yield f"Pictures that maximise a class: {explain_text.about_maximal()}"
    if found.importances is not None:
        yield "Permutation importance (Breiman, 2001) and partial dependence (Friedman, 2001) of raw columns."
    yield f"Examples are drawn evenly from all classes with fixed seeds; the page took {found.seconds:.0f} s."
