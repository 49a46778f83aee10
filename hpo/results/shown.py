"""Which examples are shown: right and wrong ones of each class, and pairs of classes that are confused."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.results.attribution import Method
from hpo.results.subject import Subject

OF_NUMBERS = 3
"""Examples of a regression that are predicted best, and as many that are predicted worst."""
MAX_PAIRS = 6


@dataclass(frozen=True)
class Shown:
    """One example, with attributions."""

    row: int
    right: bool | None
    """None where the truth is not known."""
    explained: int
    """The output whose attributions these are: of classes the predicted one."""
    maps: dict[str, Tensor]
    """[*input_shape] by method."""
    for_truth: Tensor | None = None
    """Of a wrong one: what speaks for the true class, by the first method."""


@dataclass(frozen=True)
class ConfusedPair:
    """Examples of one class that are taken for another."""

    true: int
    predicted: int
    count: int
    of: int
    """Examples of the true class."""
    example: Shown
    """The one that the model is surest of."""


def by_group(subject: Subject, methods: tuple[Method, ...]) -> dict[int, list[Shown]]:
    """For each output its examples: of a class the surest right and the surest wrong one, of numbers the
    best and the worst predicted ones."""
    wanted = dict(_classes(subject) if subject.classification else _numbers(subject))
    rows = [row for rows in wanted.values() for row in rows]
    shown = iter(_attributed(subject, methods, rows))
    return {group: [next(shown) for _ in rows] for group, rows in wanted.items()}


def _classes(subject: Subject) -> Iterator[tuple[int, list[int]]]:
    sureness = subject.probabilities.amax(1)
    right = subject.predicted == subject.truth
    for group in range(len(subject.classes)):
        members = subject.groups == group
        found = [_surest(sureness, members & kind) for kind in (right, ~right)]
        yield group, [row for row in found if row is not None]


def _surest(sureness: Tensor, members: Tensor) -> int | None:
    if not bool(members.any()):
        return None
    return int(torch.where(members, sureness, -1.0).argmax())


def _numbers(subject: Subject) -> Iterator[tuple[int, list[int]]]:
    order = (subject.predicted - subject.truth).abs().argsort(stable=True).tolist()
    count = min(OF_NUMBERS, len(order) // 2)
    yield 0, [*order[:count], *order[len(order) - count :][::-1]]


def _attributed(subject: Subject, methods: tuple[Method, ...], rows: list[int]) -> list[Shown]:
    if not rows:
        return []
    inputs = subject.features[rows]
    explained = subject.predicted[rows] if subject.classification else torch.zeros(len(rows))
    explained = explained.long()
    maps = {method.name: method.attribute(subject.module, inputs, explained) for method in methods}
    truths: list[Tensor | None] = [None] * len(rows)
    wrong = [place for place, row in enumerate(rows) if _right(subject, row) is False]
    if wrong and methods and subject.classification:
        of_truth = subject.groups[[rows[place] for place in wrong]]
        found = methods[0].attribute(subject.module, inputs[wrong], of_truth)
        for place, attribution in zip(wrong, found, strict=True):
            truths[place] = attribution
    return [
        Shown(
            row,
            _right(subject, row),
            int(explained[place]),
            {name: found[place] for name, found in maps.items()},
            truths[place],
        )
        for place, row in enumerate(rows)
    ]


def _right(subject: Subject, row: int) -> bool | None:
    if subject.targets is None or not subject.classification:
        return None
    return bool(subject.predicted[row] == subject.targets[row])


def confused_pairs(subject: Subject, methods: tuple[Method, ...]) -> list[ConfusedPair]:
    """The `MAX_PAIRS` pairs with the most confused examples."""
    if subject.targets is None or not subject.classification:
        return []
    size = len(subject.classes)
    counts = torch.bincount(subject.groups * size + subject.predicted, minlength=size**2).view(size, size)
    sizes = counts.sum(1)
    counts.fill_diagonal_(0)
    order = counts.flatten().argsort(descending=True, stable=True)[:MAX_PAIRS]
    pairs = [divmod(int(place), size) for place in order if counts.flatten()[place] > 0]
    sureness = subject.probabilities.amax(1)
    rows = []
    for true, predicted in pairs:
        row = _surest(sureness, (subject.groups == true) & (subject.predicted == predicted))
        assert row is not None
        rows.append(row)
    shown = _attributed(subject, methods, rows)
    return [
        ConfusedPair(true, predicted, int(counts[true, predicted]), int(sizes[true]), example)
        for (true, predicted), example in zip(pairs, shown, strict=True)
    ]
