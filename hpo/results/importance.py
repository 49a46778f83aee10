"""Which parameters made the difference."""

import warnings
from collections.abc import Sequence

import optuna
import plotly.graph_objects as go
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from hpo.config import StudyConfig
from hpo.results.theme import BLUE, ORANGE, NothingToDraw, figure, text
from hpo.results.values import drawable, evenly

MIN_TRIALS = 10
MAX_FANOVA_TRIALS = 400
"""fANOVA took 6.8 s of one core on 1,000 trials of 5 parameters: above this it sees an even sample."""
TREES = 32
"""Of its forest: shares move by 0.01 from those of the usual 64 trees, which take twice the time."""
FANOVA, PED_ANOVA = "fANOVA: whole space", "PED-ANOVA: best tenth"


def importances(trials: Sequence[FrozenTrial], config: StudyConfig) -> go.Figure:
    """What share of the differences between trials each parameter explains, by two estimates.

    fANOVA (Hutter et al., 2014) over the whole space, of the parameters that every trial has; PED-ANOVA
    (Watanabe et al., 2023) for getting among the best tenth.

    Raises:
        NothingToDraw: too few complete trials, or all of one value.
    """
    estimates = importance_estimates(trials, config)
    names = sorted(
        {name for shares in estimates.values() for name in shares},
        key=lambda name: [shares.get(name, 0.0) for shares in estimates.values()],
    )
    bars = [
        go.Bar(
            y=[text(name) for name in names],
            x=[shares.get(name) for name in names],
            name=label,
            orientation="h",
            marker={"color": color, "pattern": {"shape": pattern, "solidity": 0.25}},
            texttemplate="%{x:.0%}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
        for (label, shares), color, pattern in zip(estimates.items(), (BLUE, ORANGE), ("", "/"), strict=False)
    ]
    drawn = figure(*bars, x="share of importance", y="", height=130 + 56 * len(names), barmode="group")
    largest = max(share for shares in estimates.values() for share in shares.values())
    drawn.update_layout(legend={"traceorder": "normal"}, margin={"r": 24})
    return drawn.update_xaxes(tickformat=".0%", range=[0, 1.15 * largest])


def importance_estimates(trials: Sequence[FrozenTrial], config: StudyConfig) -> dict[str, dict[str, float]]:
    """Shares of importance, each estimate's summing to 1; seeded, so always the same.

    Raises:
        NothingToDraw: too few complete trials, or all of one value.
    """
    complete = drawable(trials)
    if len(complete) < MIN_TRIALS:
        raise NothingToDraw(
            f"Importances need at least {MIN_TRIALS} complete trials; there are {len(complete)}."
        )
    if len({trial.value for trial in complete}) == 1:
        raise NothingToDraw("All complete trials have the same value: no parameter made a difference.")
    sample = [complete[index] for index in evenly(len(complete), MAX_FANOVA_TRIALS)]
    studies = {
        FANOVA: (_in_memory(sample, config), FanovaImportanceEvaluator(n_trees=TREES, seed=0)),
        PED_ANOVA: (_in_memory(complete, config), PedAnovaImportanceEvaluator()),
    }
    with warnings.catch_warnings():
        # Both warn of few trials; `MIN_TRIALS` and the report's text speak of that.
        warnings.simplefilter("ignore", UserWarning)
        found = {
            name: optuna.importance.get_param_importances(study, evaluator=evaluator)
            for name, (study, evaluator) in studies.items()
        }
    return {name: shares for name, shares in found.items() if shares}


def _in_memory(trials: Sequence[FrozenTrial], config: StudyConfig) -> optuna.Study:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces each study
    try:
        study = optuna.create_study(direction=config.direction)
    finally:
        optuna.logging.set_verbosity(verbosity)
    for trial in trials:  # without the epochs, which would be copied: seconds for 10,000 trials
        study.add_trial(
            create_trial(value=trial.value, params=trial.params, distributions=trial.distributions)
        )
    return study
