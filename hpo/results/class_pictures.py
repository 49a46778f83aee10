"""Pictures of a class: what speaks for it on average, and an input that the model takes for it most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hpo.results.attribution import PASSES

ASCENT = 150
"""Steps towards the input that maximises an output."""
RATE = 0.08
"""Of Adam, in deviations of a pixel."""
SMOOTH, NEAR = 0.3, 0.02
"""Weights of the regulariser: of the mean absolute difference of neighbours, of the mean square distance from
the background; both summed over pixels' deviations."""
SHIFT = 0.08
"""Share of the width and height by which each step moves the picture at most, at random."""
REGULARISER = (
    "neighbouring pixels differ little (total variation), pixels stay near the background (L2), each step "
    "moves the picture at random by up to 8 % of its size, and no pixel leaves the range of the examples"
)


@dataclass(frozen=True)
class Maximal:
    """Inputs that maximise one output each, of their own."""

    pictures: Tensor
    """[C, *input_shape] on the CPU."""
    scores: tuple[float, ...]
    """What the model says of each: the class's probability, or the number."""


def mean_by_group(values: Tensor, groups: Tensor, count: int) -> list[Tensor | None]:
    """The mean of `values`, [N, …], over each of `count` groups, [N] int64; None of an empty one."""
    members = [values[groups == group] for group in range(count)]
    return [some.mean(0) if len(some) else None for some in members]


def maximal(module: nn.Module, examples: Tensor, baseline: Tensor, count: int) -> Maximal:
    """For each of `count` outputs an input that maximises it, from `baseline` on (Simonyan et al., 2014).

    Of classes the log-odds are maximised, so that other classes' strokes do not help; the regulariser is
    `REGULARISER`. examples: [N, *input_shape], for the range of a pixel.
    """
    low, high = _range(examples, baseline)
    parts = [
        _ascend(module, baseline, torch.tensor(some, device=baseline.device), low, high)
        for some in _split(list(range(count)))
    ]
    pictures = torch.cat(parts)
    with torch.no_grad():
        outputs = torch.cat([module(some.clone()) for some in torch.split(pictures, PASSES)]).float()
        scores = outputs.softmax(1).diagonal() if outputs.shape[1] > 1 else outputs[:, 0]
    return Maximal(pictures.cpu(), tuple(scores.cpu().tolist()))


def _split(outputs: list[int]) -> list[list[int]]:
    return [outputs[start : start + 64] for start in range(0, len(outputs), 64)]


def _range(examples: Tensor, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest pixel of each channel, shaped to go with pictures."""
    channels = examples.movedim(0, -1).flatten(-3)
    low, high = channels.amin(-1), channels.amax(-1)
    return (low[..., None, None], high[..., None, None]) if baseline.ndim == 3 else (low, high)


def _ascend(module: nn.Module, baseline: Tensor, outputs: Tensor, low: Tensor, high: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((len(outputs), *baseline.shape), generator=generator).to(baseline) * 0.01
    pictures = (baseline + noise).requires_grad_()
    optimizer = torch.optim.Adam([pictures], lr=RATE)
    reach = [round(SHIFT * side) for side in baseline.shape[-2:]]
    for _ in range(ASCENT):
        optimizer.zero_grad()
        moved = torch.roll(pictures, _moves(reach, generator), dims=(-2, -1))
        with torch.enable_grad():
            gain = _goal(module(moved), outputs) - _regulariser(pictures - baseline)
            # Of the pictures alone: the module's parameters gather no gradients.
            (pictures.grad,) = torch.autograd.grad(-gain.sum(), pictures)
        optimizer.step()
        with torch.no_grad():
            pictures.copy_(torch.minimum(torch.maximum(pictures, low), high))
    return pictures.detach()


def _moves(reach: Sequence[int], generator: torch.Generator) -> tuple[int, int]:
    down, right = (int(torch.randint(-most, most + 1, (), generator=generator)) for most in reach)
    return down, right


def _goal(scores: Tensor, outputs: Tensor) -> Tensor:
    """[N]: of classes the log-odds of the wanted one."""
    wanted = scores.gather(1, outputs[:, None])[:, 0]
    if scores.shape[1] == 1:
        return wanted
    others = scores.scatter(1, outputs[:, None], -torch.inf)
    return wanted - others.logsumexp(1)


def _regulariser(away: Tensor) -> Tensor:
    """[N], of distances from the background, [N, *input_shape]."""
    down, right = (away.diff(dim=dim).abs().flatten(1).sum(1) for dim in (-2, -1))
    return SMOOTH * (down + right) / 2 + NEAR * away.square().flatten(1).sum(1)
