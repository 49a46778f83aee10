"""What a network costs, found without training it: trained numbers, and operations of a forward pass."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hpo.config import AtMost, Constraints, TrialSettings
from hpo.training.architecture import Architecture


def parameters_of(module: nn.Module) -> int:
    """Trained numbers."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def forward_flops(module: nn.Module, input_shape: Sequence[int]) -> int:
    """Floating-point operations of the forward pass of one example, a multiply-add counted as two.

    Matrix products, convolutions and attention count; elementwise operations, pooling and normalization do
    not.
    """
    counter = FlopCounterMode(display=False)
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    with counter:
        module.eval()(torch.zeros(1, *input_shape, device=device))
    return int(counter.get_total_flops())


_NAMES = {"parameters": "parameters", "flops": "FLOPs for an example"}


class Limits:
    """A study's constraints, against the networks of its trials."""

    def __init__(self, constraints: Constraints, architecture: Architecture) -> None:
        limits: dict[str, AtMost | None] = {name: getattr(constraints, name) for name in _NAMES}
        self.most = {name: limit.max for name, limit in limits.items() if limit is not None}
        self.architecture = architecture
        self._costs: dict[str, dict[str, int]] = {}
        """By the options of the network, `dropout` aside, which costs nothing."""

    def costs(self, settings: TrialSettings) -> dict[str, int]:
        """What is limited, by name.

        Raises:
            TrialError: the network cannot be built.
        """
        plain = {name: value for name, value in settings.options.items() if name != "dropout"}
        key = json.dumps(plain, sort_keys=True)
        if key not in self._costs:
            self._costs[key] = self._measured(settings.options)
        return self._costs[key]

    def _measured(self, options: Mapping[str, Any]) -> dict[str, int]:
        try:
            with torch.device("meta"):  # shapes without numbers: nothing is drawn or computed
                return self._counted(options)
        except Exception:  # noqa: BLE001  (the user's own module may need numbers)
            with torch.random.fork_rng(devices=[]):
                return self._counted(options)

    def _counted(self, options: Mapping[str, Any]) -> dict[str, int]:
        module = self.architecture.build(options)
        counts = {"parameters": parameters_of(module)}
        if "flops" in self.most:
            counts["flops"] = forward_flops(module, self.architecture.input_shape)
        return {name: counts[name] for name in self.most}

    def excess(self, settings: TrialSettings) -> list[float]:
        """As Optuna has constraints: each cost over its limit, less 1; above 0 it is violated."""
        costs = self.costs(settings)
        return [costs[name] / most - 1 for name, most in self.most.items()]

    def violation(self, settings: TrialSettings) -> str:
        """Which limits the network exceeds, in words; empty if none.

        Raises:
            TrialError: the network cannot be built.
        """
        costs = self.costs(settings)
        return ", and ".join(
            f"its network has {costs[name]:,} {_NAMES[name]}, more than constraints.{name}.max {most:,}"
            for name, most in self.most.items()
            if costs[name] > most
        )
