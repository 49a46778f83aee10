"""Pictures of a class: what speaks for it on average, and an input that the model takes for it most."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpo.results.attribution import CHUNK, PASSES

ASCENT = 100
"""Steps towards the input that maximises an output."""
STEP = 0.06
"""Of the distance between the background and an average example."""
SMOOTH = 1 / 6
"""Share of the width or height, whichever is less, over which the gradient is averaged."""
SHIFT = 0.08
"""Share of the width and height by which each step moves the picture at most, at random."""
REGULARISER = (
    "the gradient is smoothed over a sixth of the picture's side, each step "
    "moves the picture at random by up to 8 % of its size, "
    "no pixel leaves the range of the examples, and the picture is no farther from the background than an "
    "average example (L2)"
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
    limits = _Limits.of(examples, baseline)
    wanted = torch.split(torch.arange(count, device=baseline.device), CHUNK)
    parts = [_ascend(module, baseline, outputs, limits) for outputs in wanted]
    pictures = torch.cat(parts)
    with torch.no_grad():
        outputs = torch.cat([module(some.clone()) for some in torch.split(pictures, PASSES)]).float()
        scores = outputs.softmax(1).diagonal() if outputs.shape[1] > 1 else outputs[:, 0]
    return Maximal(pictures.cpu(), tuple(scores.cpu().tolist()))


@dataclass(frozen=True)
class _Limits:
    """What a picture must not leave."""

    low: Tensor
    """The least pixel of each channel, shaped to go with pictures."""
    high: Tensor
    radius: float
    """The mean distance of examples from the background."""

    @classmethod
    def of(cls, examples: Tensor, baseline: Tensor) -> "_Limits":
        channels = examples.movedim(0, -1).flatten(-3)
        low, high = channels.amin(-1), channels.amax(-1)
        if baseline.ndim == 3:
            low, high = low[..., None, None], high[..., None, None]
        return cls(low, high, float((examples - baseline).flatten(1).norm(dim=1).mean()))

    def within(self, pictures: Tensor, baseline: Tensor) -> Tensor:
        away = torch.minimum(torch.maximum(pictures, self.low), self.high) - baseline
        size = away.flatten(1).norm(dim=1).clamp_min(1e-12)
        return baseline + away * _of_each((self.radius / size).clamp_max(1.0), away)


def _ascend(module: nn.Module, baseline: Tensor, outputs: Tensor, limits: _Limits) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((len(outputs), *baseline.shape), generator=generator).to(baseline)
    pictures = limits.within(baseline + 0.01 * noise, baseline)
    reach = [round(SHIFT * side) for side in baseline.shape[-2:]]
    window = max(3, int(SMOOTH * min(baseline.shape[-2:])) | 1)  # odd, so that it has a middle
    for _ in range(ASCENT):
        # Leaves of their own: the module's parameters gather no gradients.
        pictures = pictures.detach().requires_grad_()
        with torch.enable_grad():
            moved = torch.roll(pictures, _moves(reach, generator), dims=(-2, -1))
            (slopes,) = torch.autograd.grad(_goal(module(moved), outputs).sum(), pictures)
        slopes = functional.avg_pool2d(slopes, window, 1, window // 2, count_include_pad=False)
        size = slopes.flatten(1).norm(dim=1).clamp_min(1e-12)
        step = slopes * _of_each(STEP * limits.radius / size, slopes)
        pictures = limits.within(pictures.detach() + step, baseline)
    return pictures


def _of_each(numbers: Tensor, pictures: Tensor) -> Tensor:
    """[N] as it goes with [N, *input_shape]."""
    return numbers.view(-1, *([1] * (pictures.ndim - 1)))


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
