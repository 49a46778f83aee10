"""What a model goes by: attributions of examples and classes, and whether they can be trusted."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hpo.errors import HpoError
from hpo.results.attribution import Method, Methods, methods
from hpo.results.class_pictures import Maximal, maximal, mean_by_group
from hpo.results.columns import Dependence, Importances, dependences, importances
from hpo.results.sanity import SanityCheck, check_sanity
from hpo.results.shown import ConfusedPair, Shown, by_group, confused_pairs
from hpo.results.subject import Subject, spread

CLASS_EXAMPLES = 512
"""Examples whose attributions are averaged by class."""
COVERED_EXAMPLES = 128
"""The same, where the model has no gradients: occlusion takes longer."""
SANITY_EXAMPLES = 24
LEADING = 4
"""Columns whose partial dependence is drawn."""

Doing = Callable[[str], None]
"""Told what is being computed."""


@dataclass(frozen=True)
class ByClass:
    """Mean attributions towards each output, over examples that belong to it."""

    method: str
    counts: tuple[int, ...]
    """Examples of each."""
    means: tuple[Tensor | None, ...]
    """[*input_shape] each; None without examples."""
    inputs: tuple[Tensor | None, ...]
    """The mean example of each."""
    correlations: tuple[Tensor | None, ...]
    """Of a table, [F] each: of an input with its attribution, over all these examples: above 0 where high
    values speak for the output."""


@dataclass(frozen=True)
class Explanation:
    """All that the page shows."""

    subject: Subject
    methods: Methods
    by_class: ByClass
    shown: dict[int, list[Shown]]
    pairs: tuple[ConfusedPair, ...]
    checks: tuple[SanityCheck, ...]
    seconds: float
    importances: Importances | None = None
    """Of a table."""
    dependences: tuple[Dependence, ...] = ()
    maximal: Maximal | None = None
    """Of pictures."""


def explain(subject: Subject, doing: Doing = lambda _: None) -> Explanation:
    """Explain a model. Equal arguments give equal results.

    Raises:
        HpoError: captum is not installed, or the model does something that its methods cannot take.
    """
    began = time.monotonic()
    doing("what can be done with this model")
    try:
        found = methods(subject.module, subject.features[:2], subject.baseline)
        doing("attributions by class")
        by_class = _by_class(subject, found)
        doing("single examples")
        shown, pairs = by_group(subject, found.possible), confused_pairs(subject, found.possible)
        doing("whether random weights change the attributions")
        checks = tuple(_checks(subject, found.possible))
        costs, curves = None, []
        if subject.table is not None:
            doing("shuffled columns")
            costs = importances(subject)
            doing("partial dependence")
            curves = dependences(subject, [one.column for one in costs.columns[:LEADING]])
        greatest = None
        if subject.table is None and found.differentiable and subject.features.ndim > 2:
            doing("inputs that maximise each class")
            count = len(subject.outputs_named)
            greatest = maximal(subject.module, subject.features, subject.baseline, count)
    except (RuntimeError, AssertionError) as error:  # captum asserts what it needs
        raise HpoError(f"{subject.name}: the model cannot be explained: {error}") from error
    return Explanation(
        subject,
        found,
        by_class,
        shown,
        tuple(pairs),
        checks,
        time.monotonic() - began,
        costs,
        tuple(curves),
        greatest,
    )


def _by_class(subject: Subject, found: Methods) -> ByClass:
    method, count = found.possible[0], len(subject.outputs_named)
    rows = spread(subject.groups, CLASS_EXAMPLES if found.differentiable else COVERED_EXAMPLES)
    inputs, groups = subject.features[rows], subject.groups[rows]
    towards = method.attribute(subject.module, inputs, groups)
    correlations: list[Tensor | None] = [None] * count
    if subject.features.ndim == 2:
        correlations = [
            _correlation(
                inputs.cpu(), method.attribute(subject.module, inputs, torch.full_like(groups, output))
            )
            for output in range(count)
        ]
    return ByClass(
        method.name,
        tuple(int((groups == group).sum()) for group in range(count)),
        tuple(mean_by_group(towards, groups, count)),
        tuple(mean_by_group(inputs.cpu(), groups, count)),
        tuple(correlations),
    )


def _correlation(inputs: Tensor, attributions: Tensor) -> Tensor:
    """[F], Pearson's, over examples; 0 where one of the two does not vary."""
    first, second = inputs - inputs.mean(0), attributions - attributions.mean(0)
    scale = first.norm(dim=0) * second.norm(dim=0)
    return torch.where(scale > 0, (first * second).sum(0) / scale.clamp_min(1e-12), 0.0)


def _checks(subject: Subject, possible: tuple[Method, ...]) -> list[SanityCheck]:
    rows = spread(subject.groups, SANITY_EXAMPLES)
    inputs = subject.features[rows]
    wanted = subject.predicted[rows] if subject.classification else subject.groups[rows]
    found = [check_sanity(subject.module, method, inputs, wanted) for method in possible]
    return [check for check in found if check is not None]
