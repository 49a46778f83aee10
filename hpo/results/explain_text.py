"""An explanation in sentences with numbers, and as JSON."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from hpo.results.class_pictures import REGULARISER
from hpo.results.columns import Dependence, Importance
from hpo.results.explain import Explanation
from hpo.results.heatmaps import strongest_ninth
from hpo.results.sanity import LIMIT, REPEATS, SanityCheck
from hpo.results.subject import RawTable, Subject
from hpo.results.theme import short

MAX_NAMED = 4
"""Columns, or classes, that the sentences name."""


def listed(words: Iterable[str]) -> str:
    """`a, b and c`"""
    *first, last = list(words)
    return f"{', '.join(first)} and {last}" if first else last


def matters(found: Explanation) -> list[str]:
    """What the model goes by, in paragraphs."""
    topics = [] if found.importances is None else [_leaning(found), _moving(found)]
    return [" ".join(told) for topic in (*topics, _towards(found), _confused(found)) if (told := list(topic))]


def score(subject: Subject) -> tuple[str, float] | None:
    """What the model reaches on the examples that explain it; None where their targets are not known."""
    if subject.targets is None:
        return None
    if subject.classification:
        return "accuracy", float((subject.predicted == subject.targets).float().mean())
    return "RMSE", float((subject.predicted - subject.targets).square().mean().sqrt())


def reached(subject: Subject) -> str:
    """The same as a sentence."""
    known, count = score(subject), len(subject.features)
    if known is None:
        return f"It is explained by {count:,} examples whose targets are not known."
    name, value = known
    reaches = f"{article(name)} {name} of {number(value, subject)}"
    return f"It has {reaches} on the {count:,} examples that explain it."


def article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeior" else "a"


def number(value: float, subject: Subject) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if subject.classification else f"{value:.4g}"


# --- tables


def _leaning(found: Explanation) -> Iterator[str]:
    assert found.importances is not None
    columns, subject = found.importances.columns, found.subject
    beyond = [one for one in columns if one.beyond_noise]
    what = lost(subject)
    if not beyond:
        yield f"Shuffling no single column costs more {what} than chance explains."
        return
    first, *others = beyond[:MAX_NAMED]
    yield f"The model leans most on {first.column}: shuffling it costs {_cost(first, subject, what)}."
    if others:
        named = listed(f"{one.column} {_cost(one, subject)}" for one in others)
        rest = len(beyond) - MAX_NAMED
        more = f"; {rest} more {'cost' if rest > 1 else 'costs'} less" if rest > 0 else ""
        yield f"Then {named}{more}."
    if rest := len(columns) - len(beyond):
        other = f"the other {rest} columns" if rest > 1 else "the other column"
        yield f"Shuffling {other} costs no more {what} than chance explains."


def lost(subject: Subject) -> str:
    if subject.targets is None:
        return "agreement with its own predictions"
    return "accuracy" if subject.classification else "RMSE"


def _cost(one: Importance, subject: Subject, what: str = "") -> str:
    low, high = (number(end, subject) for end in one.interval)
    return f"{number(one.cost, subject)}{what and ' '}{what} (95 %: {low} to {high})"


def _moving(found: Explanation) -> Iterator[str]:
    assert found.importances is not None
    beyond = {one.column for one in found.importances.columns if one.beyond_noise}
    for curve in found.dependences[:2]:
        if not curve.categorical and len(curve.grid) > 1 and curve.column in beyond:
            yield _move(curve, found.subject)


def _move(curve: Dependence, subject: Subject) -> str:
    output = int(np.ptp(curve.means, axis=1).argmax())
    start, end = float(curve.means[output, 0]), float(curve.means[output, -1])
    what = "the mean prediction"
    if subject.classification:
        what = f"the mean probability of class {curve_names(curve, subject)[output]}"
    return (
        f"As {curve.column} goes from {short(curve.grid[0])} to {short(curve.grid[-1])}, the other columns "
        f"as they are, {what} goes from {number(start, subject)} to {number(end, subject)}."
    )


def curve_names(curve: Dependence, subject: Subject) -> tuple[str, ...]:
    """What a partial dependence has lines of: of two classes the second alone."""
    return subject.outputs_named[-len(curve.means) :]


def by_column(values: Tensor, table: RawTable) -> Tensor:
    """Attributions of network inputs, […, F], added up by raw column, […, columns]."""
    return torch.stack([values[..., list(column.places)].sum(-1) for column in table.columns], dim=-1)


# --- classes


def _towards(found: Explanation) -> Iterator[str]:
    subject = found.subject
    if subject.table is not None:
        if subject.classification and len(subject.classes) <= 2 * MAX_NAMED:
            yield from filter(
                None, (column_sentence(found, output) for output in range(len(subject.classes)))
            )
        return
    places = [
        (share, output, where)
        for output, mean in enumerate(found.by_class.means)
        if mean is not None and (place := strongest_ninth(mean)) is not None
        for where, share in [place]
    ]
    for _, output, _ in sorted(places, reverse=True)[:MAX_NAMED]:
        yield picture_sentence(found, output)


def column_sentence(found: Explanation, output: int) -> str:
    """Which columns speak for a class in examples of it; empty if none does."""
    subject, mean = found.subject, found.by_class.means[output]
    assert subject.table is not None
    if mean is None:
        return ""
    totals = by_column(mean, subject.table)
    leading = [
        int(place) for place in totals.argsort(descending=True)[:3] if totals[place] > 0.1 * totals.max()
    ]
    if not leading or totals.max() <= 0:
        return ""
    named = listed(_direction(found, output, place) for place in leading)
    return f"For class {subject.classes[output]} speak above all {named}."


def _direction(found: Explanation, output: int, place: int) -> str:
    table, correlations = found.subject.table, found.by_class.correlations[output]
    assert table is not None and correlations is not None
    column = table.columns[place]
    slope = float(correlations[column.places[0]])
    if column.categorical or abs(slope) < 0.5:
        return column.name
    return f"{'high' if slope > 0 else 'low'} {column.name}"


def picture_sentence(found: Explanation, output: int) -> str:
    """Where in the picture an output is decided; empty if nothing speaks for it."""
    mean = found.by_class.means[output]
    place = None if mean is None else strongest_ninth(mean)
    if place is None:
        return ""
    where, share = place
    name = f"class {found.subject.classes[output]}" if found.subject.classes else "the predicted value"
    percent = f"{share * 100:.0f} %"
    return (
        f"For {name} the {where} ninth of the picture counts most, with {percent} of what speaks for it "
        f"(mean over {found.by_class.counts[output]} examples)."
    )


def _confused(found: Explanation) -> Iterator[str]:
    if found.pairs:
        names = found.subject.classes
        named = listed(
            f"{names[p.true]} for {names[p.predicted]} ({p.count} of {p.of})" for p in found.pairs[:3]
        )
        yield f"It most often takes {named}."


# --- trust


def sanity_sentence(check: SanityCheck) -> str:
    """Whether a method passes on this model."""
    layers = "its layer" if check.layers[-1] == 1 else f"all its {check.layers[-1]} layers"
    same = f"a rank correlation of {round(check.final, 2) + 0.0:.2f} with those of the model"
    if check.passed:
        return (
            f"{check.method} passes: with random weights in {layers}, attributions have {same}, so that they "
            "are about what the model has learned."
        )
    return (
        f"{check.method} fails: with random weights in {layers}, attributions still have {same}; they show "
        "the input more than what the model has learned, and should not be relied on."
    )


def verdict(found: Explanation) -> str:
    """All methods in one sentence."""
    if not found.checks:
        return "The model has no weights, so that random ones cannot be tried."
    passed, failed = (
        [check.method for check in found.checks if check.passed is kind] for kind in (True, False)
    )
    parts = [f"{listed(passed)} {'pass' if len(passed) > 1 else 'passes'}"] if passed else []
    parts += [f"{listed(failed)} {'fail' if len(failed) > 1 else 'fails'}"] if failed else []
    return f"Random weights must change attributions: {', but '.join(parts)} that check on this model."


def about_check() -> str:
    """How it is made."""
    return (
        f"Layers are given random weights from the output down ({REPEATS} times, of the size of the learned "
        "ones), and attributions of the same examples are compared by Spearman's rank correlation. 1 means "
        f"that nothing changed. From {LIMIT} on, all layers random, a method fails (Adebayo et al., 2018)."
    )


def about_maximal() -> str:
    """How inputs that maximise a class were made."""
    return f"Found by gradient ascent on the log-odds from the background; the regulariser: {REGULARISER}."


def impossible(found: Explanation) -> list[str]:
    """A sentence for each thing that another model, or other data, would have on the page."""
    sentences = list(found.methods.impossible)
    if found.subject.features.ndim > 2 and found.maximal is None:
        sentences.append("An input that maximises a class: it needs gradients.")
    if found.subject.targets is None:
        sentences.append("Right and wrong examples, confused classes: the targets are not known.")
    empty = [
        name
        for name, count in zip(found.subject.outputs_named, found.by_class.counts, strict=True)
        if not count
    ]
    if empty:
        sentences.append(f"Means of {listed(empty)}: no example of it is there.")
    return sentences
