"""Whether attributions are about the model: they must change when its weights are random.

Adebayo et al., "Sanity checks for saliency maps" (2018): an attribution that stays as it was, as an edge
detector's does, shows the picture and not what was learned.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hpo.results.attribution import Attribute, Method
from hpo.results.metrics import Array
from hpo.results.tracing import layers_from_the_output
from hpo.results.values import evenly

LIMIT = 0.5
"""Rank correlation with the random model's attributions from which on a method fails: half of "unchanged"."""
REPEATS = 4
"""Random models whose correlations are averaged."""
MAX_STAGES = 6


@dataclass(frozen=True)
class SanityCheck:
    """Rank correlations of a method's attributions with those of the model as more layers are random."""

    method: str
    layers: tuple[int, ...]
    """How many are random, from the output down; the last are all."""
    correlations: tuple[float, ...]
    """Mean over the random models; 1: as they were."""

    @property
    def final(self) -> float:
        """With all layers random."""
        return self.correlations[-1]

    @property
    def passed(self) -> bool:
        return self.final < LIMIT


def check_sanity(module: nn.Module, method: Method, inputs: Tensor, wanted: Tensor) -> SanityCheck | None:
    """Check one method on `inputs`; None if the model has no weights.

    inputs: [N, *input_shape]. wanted: [N], the outputs that are explained.
    """
    groups = layers_from_the_output(module, inputs[:2])
    if not groups:
        return None
    trained = method.attribute(module, inputs, wanted)
    stages = [count + 1 for count in evenly(len(groups), MAX_STAGES)]
    means = []
    for layers in stages:
        found = [
            _correlation(module, method.attribute, groups[:layers], (inputs, wanted, trained), seed)
            for seed in range(REPEATS)
        ]
        means.append(float(np.mean(found)))
    return SanityCheck(method.name, tuple(stages), tuple(means))


def _correlation(
    module: nn.Module,
    attribute: Attribute,
    groups: Sequence[Sequence[nn.Parameter]],
    examples: tuple[Tensor, Tensor, Tensor],
    seed: int,
) -> float:
    inputs, wanted, trained = examples
    with randomized(module, groups, inputs, seed):
        return rank_correlation(trained, attribute(module, inputs, wanted))


@contextlib.contextmanager
def randomized(
    module: nn.Module, groups: Sequence[Sequence[nn.Parameter]], inputs: Tensor, seed: int
) -> Iterator[None]:
    """The module with random numbers for these parameters, of the same root mean square.

    The statistics of batch norm are those of `inputs` meanwhile, or what follows would be saturated.
    """
    kept = [(tensor, tensor.detach().clone()) for tensor in (*module.parameters(), *module.buffers())]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter in (parameter for group in groups for parameter in group):
                drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(drawn * parameter.square().mean().sqrt())
            _renew_statistics(module, inputs)
        yield
    finally:
        with torch.no_grad():
            for tensor, values in kept:
                tensor.copy_(values)


def _renew_statistics(module: nn.Module, inputs: Tensor) -> None:
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    if not norms or len(inputs) < 2:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
        norm.train()
    try:
        module(inputs.clone())
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, over all inputs of all examples to which either attributes anything.

    Each example counts alike: its attributions are taken relative to its largest. 0 where all are equal: no
    order is left.
    """
    first, second = (_relative(found) for found in (one, other))
    somewhere = (first != 0) | (second != 0)
    if somewhere.sum() < 2:
        return 0.0
    ranks = [rankdata(found[somewhere]) for found in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _relative(found: Tensor) -> Array:
    flat = np.nan_to_num(found.flatten(1).numpy().astype(np.float64))
    relative: Array = flat / np.maximum(np.abs(flat).max(axis=1, keepdims=True), 1e-30)
    return relative
