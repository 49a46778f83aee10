"""What each parameter changed, all others held equal: least squares over groups of complete trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from optuna.trial import FrozenTrial
from scipy.stats import f as f_distribution
from scipy.stats import t as student_t

from hpo.config import StudyConfig
from hpo.results.groups import Grouping, groupings
from hpo.results.theme import NothingToDraw
from hpo.results.values import drawable, focus, value_of

Array = npt.NDArray[np.float64]

MIN_FREE = 10
"""Degrees of freedom that a claim needs: trials beyond those that the groups' means take."""
MIN_GROUP = 5
"""Trials that a group of which something is claimed needs, and all other groups together."""
LEAST_REST = 0.05
"""Of 1 - leverage: a trial that alone decides its group's mean has no residual to learn from."""


@dataclass(frozen=True)
class Effect:
    """One parameter's best group of values against its others, other parameters held equal."""

    name: str
    group: str
    """`adam`, or `0.001 to 0.004`."""
    gain: float
    """By how much the metric is better there: above 0 also for a metric that is to shrink."""
    interval: tuple[float, float]
    """95 %, of all groups of this parameter together (Bonferroni): the best one was chosen among them."""
    share: float
    """Of the variance between trials, what this parameter alone explains."""
    n: int
    """Trials in the group."""
    of: int
    """Trials that have the parameter."""

    @property
    def clear(self) -> bool:
        """Whether the interval excludes that there is none."""
        return self.interval[0] > 0


@dataclass(frozen=True)
class Interaction:
    """Whether the effects of two parameters add up."""

    names: tuple[str, str]
    p: float
    """Of the F test that they do."""
    share: float
    """Of the variance between trials, what the pair explains beyond both alone."""
    best: tuple[str, str]
    """The pair of groups with the best mean."""
    mean: float
    """Of its trials' values."""
    n: int
    """Its trials."""


@dataclass(frozen=True)
class Effects:
    """What complete trials say of their parameters."""

    found: tuple[Effect, ...]
    """The largest share first."""
    untold: tuple[str, ...]
    """Parameters of which too few trials differ, or that only changed together with others."""
    interaction: Interaction | None
    """Of the leading two; None where the trials do not tell."""
    trials: int
    explained: float
    """Share of the variance between trials that all parameters together explain."""


def effects(trials: Sequence[FrozenTrial], config: StudyConfig) -> Effects:
    """The effect of each parameter on the value of the complete trials.

    A linear model has a mean for each choice, and for thirds (of fewer trials, halves) of the trials along a
    number. Its standard errors allow for unequal variances (HC3: MacKinnon and White, 1985). Values beyond
    the limits that figures show count as these.

    Raises:
        NothingToDraw: too few trials are complete to tell the parameters apart, or all have one value.
    """
    complete = drawable(trials)
    low, high = focus([value_of(trial) for trial in complete], config)
    values = np.clip([value_of(trial) for trial in complete], low, high)
    if np.ptp(values) == 0:
        raise NothingToDraw("All complete trials have the same value: no parameter made a difference.")
    fit = _fitted(complete, values, config)
    sign = 1 if config.direction == "maximize" else -1
    tried = [(grouping, _effect(fit, grouping, sign)) for grouping in fit.groupings]
    found = sorted((effect for _, effect in tried if effect), key=lambda effect: -effect.share)
    told = {effect.name for effect in found}
    leading = [grouping for effect in found[:2] for grouping in fit.groupings if grouping.name == effect.name]
    return Effects(
        tuple(found),
        tuple(name for name in config.search if name not in told),
        _interaction(fit, leading, sign) if len(leading) == 2 else None,
        len(complete),
        1 - fit.unexplained / float(np.square(values - values.mean()).sum()),
    )


@dataclass(frozen=True)
class _Fit:
    """Least squares: `values` [N] over the columns of all groupings."""

    groupings: Sequence[Grouping]
    values: Array

    @cached_property
    def columns(self) -> Array:
        """[N, P]: ones, then for each grouping its groups but the first."""
        return np.column_stack([np.ones(len(self.values)), *(found.columns for found in self.groupings)])

    @cached_property
    def inverse(self) -> Array:
        return np.asarray(np.linalg.pinv(self.columns), dtype=np.float64)

    @cached_property
    def rank(self) -> int:
        return int(np.linalg.matrix_rank(self.columns))

    @property
    def free(self) -> int:
        return len(self.values) - self.rank

    @cached_property
    def residuals(self) -> Array:
        return np.asarray(self.values - self.columns @ (self.inverse @ self.values))

    @property
    def unexplained(self) -> float:
        return float(np.square(self.residuals).sum())

    @cached_property
    def weights(self) -> Array:
        """[N]: each trial's squared residual, as it would be had it not drawn the fit to itself."""
        leverage = np.einsum("np,pn->n", self.columns, self.inverse)
        return np.asarray(np.square(self.residuals / np.maximum(1 - leverage, LEAST_REST)))

    def contrast(self, wanted: Array) -> tuple[float, float] | None:
        """A combination [P] of the coefficients and its standard error; None if the trials do not tell it."""
        row = wanted @ self.inverse  # [N]
        if not np.allclose(row @ self.columns, wanted, atol=1e-6):
            return None
        return float(row @ self.values), float(np.sqrt(np.square(row) @ self.weights))


def _fitted(complete: Sequence[FrozenTrial], values: Array, config: StudyConfig) -> _Fit:
    for parts in (3, 2):
        fit = _Fit(groupings(complete, config, parts), values)
        if fit.free >= MIN_FREE:
            return fit
    raise NothingToDraw(
        f"{len(complete)} complete trials are too few to tell the effects of {len(config.search)} parameters "
        f"from chance: at least {fit.rank + MIN_FREE} are needed."
    )


def _effect(fit: _Fit, grouping: Grouping, sign: int) -> Effect | None:
    told = [
        (sign * contrast[0], contrast[1], group)
        for group in range(len(grouping.labels))
        if (contrast := _against_others(fit, grouping, group)) is not None
    ]
    if not told:
        return None
    gain, error, group = max(told)
    reach = float(student_t.ppf(1 - 0.025 / len(grouping.labels), fit.free)) * error
    without = _Fit([other for other in fit.groupings if other is not grouping], fit.values)
    total = float(np.square(fit.values - fit.values.mean()).sum())
    return Effect(
        name=grouping.name,
        group=grouping.labels[group],
        gain=gain,
        interval=(gain - reach, gain + reach),
        share=max(0.0, (without.unexplained - fit.unexplained) / total),
        n=grouping.counts[group],
        of=sum(grouping.counts),
    )


def _against_others(fit: _Fit, grouping: Grouping, group: int) -> tuple[float, float] | None:
    """One group's mean less that of the grouping's other trials, and its standard error."""
    counts = np.array(grouping.counts, dtype=np.float64)
    others = counts.sum() - counts[group]
    if min(counts[group], others) < MIN_GROUP:
        return None
    each = -counts / others
    each[group] = 1
    before = sum(found.columns.shape[1] for found in fit.groupings[: fit.groupings.index(grouping)])
    wanted = np.zeros(fit.columns.shape[1])
    wanted[1 + before : before + len(counts)] = each[1:]
    return fit.contrast(wanted)


def _interaction(fit: _Fit, pair: Sequence[Grouping], sign: int) -> Interaction | None:
    """Whether products of the columns of `pair` explain more than chance does."""
    one, other = pair
    products = one.columns[:, :, None] * other.columns[:, None, :]
    crossed = Grouping("", (), (), products.reshape(len(products), -1), ())
    more = _Fit([*fit.groupings, crossed], fit.values)
    added = more.rank - fit.rank
    cells = _cells(pair, fit.values)
    covered = sum(n for _, n in cells.values())
    if more.free < MIN_FREE or added < 1 or covered < len(fit.values) / 2 or more.unexplained <= 0:
        return None
    gained = fit.unexplained - more.unexplained
    ratio = (gained / added) / (more.unexplained / more.free)
    best = max(cells, key=lambda cell: sign * cells[cell][0])
    return Interaction(
        names=(one.name, other.name),
        p=float(f_distribution.sf(ratio, added, more.free)),
        share=gained / float(np.square(fit.values - fit.values.mean()).sum()),
        best=(one.labels[best[0]], other.labels[best[1]]),
        mean=cells[best][0],
        n=cells[best][1],
    )


def _cells(pair: Sequence[Grouping], values: Array) -> dict[tuple[int, int], tuple[float, int]]:
    """Mean and number of trials of each pair of groups that has `MIN_GROUP` of them."""
    groups = list(zip(pair[0].of_trials, pair[1].of_trials, strict=True))
    found = {}
    for cell in set(groups):
        inside = values[[group == cell for group in groups]]
        if min(cell) >= 0 and len(inside) >= MIN_GROUP:
            found[cell] = (float(inside.mean()), len(inside))
    return found
