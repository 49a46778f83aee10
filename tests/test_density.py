"""TPE's densities, against Optuna's own."""

from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights

from hpo.search.density import Density

SPACE: dict[str, BaseDistribution] = {
    "choice": CategoricalDistribution(("a", "b", "c")),
    "float": FloatDistribution(-1.0, 2.0),
    "log": FloatDistribution(1e-5, 1e-1, log=True),
    "int": IntDistribution(0, 9),
    "log int": IntDistribution(1, 512, log=True),
    "other choice": CategoricalDistribution((16, 32)),
    "step": FloatDistribution(0.0, 1.0, step=0.25),
}


def both(names: list[str], trials: int, draw: np.random.Generator) -> tuple[Density, _ParzenEstimator]:
    """Ours and Optuna's of random observations, their bounds among them."""
    space = {name: SPACE[name] for name in names}
    observed: dict[str, Any] = {}
    for name, kind in space.items():
        if isinstance(kind, CategoricalDistribution):
            observed[name] = draw.integers(0, len(kind.choices), trials).astype(float)
            continue
        assert isinstance(kind, FloatDistribution | IntDistribution)
        low, high = (np.log(kind.low), np.log(kind.high)) if kind.log else (kind.low, kind.high)
        values = draw.uniform(low, high, trials)
        values[:2] = [low, high][:trials]
        values = np.exp(values) if kind.log else values
        if kind.step:
            values = kind.low + np.round((values - kind.low) / kind.step) * kind.step
        observed[name] = np.clip(values, kind.low, kind.high)
    parameters = _ParzenEstimatorParameters(1.0, True, False, default_weights, len(names) > 1)
    return Density(observed, space, parameters), _ParzenEstimator(observed, space, parameters)


@pytest.mark.parametrize("trials", [0, 1, 2, 25, 250])
@pytest.mark.parametrize("names", [*([name] for name in SPACE), list(SPACE)], ids=" ".join)
def test_it_draws_what_optuna_s_draws_and_tells_the_same_densities(names: list[str], trials: int) -> None:
    draw = np.random.default_rng(trials)
    for seed in range(5):
        ours, theirs = both(names, trials, draw)
        drawn = ours.sample(np.random.RandomState(seed), 24)
        expected = theirs.sample(np.random.RandomState(seed), 24)
        assert drawn.keys() == expected.keys()
        for name, values in drawn.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(ours.log_pdf(expected), theirs.log_pdf(expected), rtol=1e-9, atol=1e-12)
