"""What was found about the parameters, in sentences with numbers."""

import math

from hpo.config import StudyConfig
from hpo.results.effects import Effect, Effects, Interaction
from hpo.results.summary import number
from hpo.results.theme import NothingToDraw
from hpo.results.values import LABELS

MAX_NAMED = 6
"""Parameters that get a sentence; the table has all."""
P = 0.05


def headline(found: Effects | NothingToDraw, config: StudyConfig) -> str:
    """One sentence: which parameters made a difference, or why that cannot be told."""
    if isinstance(found, NothingToDraw):
        return f"Which parameters matter cannot be told. {found}"
    clear = [effect for effect in found.found if effect.clear]
    if not clear:
        return f"No parameter's effect stands out from chance in {found.trials:,} complete trials."
    named = [f"{effect.name} ({_group(effect)}: {_gain(config, effect)})" for effect in clear[:3]]
    return f"What made the difference: {_listed(named)}; other parameters held equal, with 95 % intervals."


def sentences(found: Effects, config: StudyConfig) -> list[str]:
    """The effect of each parameter, and whether the leading two work together."""
    told = [_sentence(effect, config) for effect in found.found[:MAX_NAMED]]
    if found.untold:
        told.append(f"The trials do not tell the effect of {_listed(list(found.untold))}.")
    if len(found.found) > 1:
        told.append(_together(found, config))
    return told


def _sentence(effect: Effect, config: StudyConfig) -> str:
    label, better = LABELS[config.metric], "higher" if config.direction == "maximize" else "lower"
    low, gain, high = _rounded(effect)
    interval = f"95 % interval {low} to {high}"
    if not effect.clear:
        return (
            f"No effect of {effect.name} stands out from chance: at its best, {_group(effect)}, the gain in "
            f"{label} is {gain} ({interval}, {effect.n:,} of {effect.of:,} trials)."
        )
    return (
        f"With {effect.name} {_group(effect)} the {label} is {gain} {better} than with its other values "
        f"({interval}, {effect.n:,} of {effect.of:,} trials)."
    )


def _together(found: Effects, config: StudyConfig) -> str:
    one, other = (effect.name for effect in found.found[:2])
    interaction = found.interaction
    if interaction is None:
        return (
            f"Whether {one} and {other} work together cannot be told from {found.trials:,} complete trials."
        )
    if interaction.p >= P:
        return (
            f"{one} and {other} do not visibly depend on each other (F test, p = {_p(interaction.p)}): their "
            f"effects add up. {_best_pair(interaction, config)}"
        )
    return (
        f"{one} and {other} depend on each other: which value of one is best differs with the other, which "
        f"explains another {100 * interaction.share:.0f} % of the differences between trials (F test, "
        f"p {_p_sign(interaction.p)}). {_best_pair(interaction, config)}"
    )


def _best_pair(interaction: Interaction, config: StudyConfig) -> str:
    (one, other), (first, second) = interaction.names, interaction.best
    return (
        f"Best together are {one} {first} with {other} {second}: {LABELS[config.metric]} "
        f"{number(config.metric, interaction.mean)} on average over {interaction.n:,} trials."
    )


def _group(effect: Effect) -> str:
    return f"from {effect.group}" if " to " in effect.group else effect.group


def _gain(config: StudyConfig, effect: Effect) -> str:
    low, gain, high = _rounded(effect)
    return f"{LABELS[config.metric]} better by {gain}, {low} to {high}"


def _rounded(effect: Effect) -> tuple[str, str, str]:
    """The interval's low end, the gain and the high end, to two digits of the interval's width."""
    low, high = effect.interval
    digits = 1 - math.floor(math.log10(high - low)) if high > low else 4
    low, gain, high = (round(number, digits) + 0.0 for number in (low, effect.gain, high))
    shown = max(0, digits)
    return f"{low:.{shown}f}", f"{gain:.{shown}f}", f"{high:.{shown}f}"


def _p(p: float) -> str:
    return f"{p:.2f}"


def _p_sign(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
