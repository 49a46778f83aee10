"""The validation metrics, for all lanes at once; the same numbers as scikit-learn's.

Shapes: K lanes, N examples, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hpo.config import Metric


def score(metric: Metric, outputs: Tensor, targets: Tensor) -> Tensor:
    """`metric` of every lane; nan where it is not defined, or where an output is not finite.

    outputs: [K, N, C] logits, or [K, N, 1] predictions of a regression. targets: int64 classes or numbers,
    [K, N], or [N] where all lanes share them. → [K]
    """
    if outputs.shape[1] == 0:
        return outputs.new_full(outputs.shape[:1], torch.nan)
    targets = targets.expand(outputs.shape[:2])
    value = _METRICS[metric](outputs, targets)
    return torch.where(outputs.isfinite().flatten(1).all(1), value, torch.nan)


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(2) == targets).to(outputs.dtype).mean(1)


def _f1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the classes that occur, in the targets or among the predictions."""
    lanes, _, classes = outputs.shape
    predicted = outputs.argmax(2)

    def counts(labels: Tensor, weights: Tensor) -> Tensor:
        return torch.zeros(lanes, classes, dtype=weights.dtype, device=labels.device).scatter_add_(
            1, labels, weights
        )

    one = torch.ones_like(targets, dtype=outputs.dtype)
    hits = counts(targets, (predicted == targets).to(outputs.dtype))
    occurring = counts(targets, one) + counts(predicted, one)  # 2 hits + misses + false alarms
    f1 = torch.where(occurring > 0, 2 * hits / occurring, 0.0)
    return f1.sum(1) / (occurring > 0).sum(1)


def _roc_auc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of the second of two classes, or the mean over classes of each against the rest."""
    probabilities = outputs.softmax(2)
    if outputs.shape[2] == 2:
        # The difference of the logits orders as the probability does, but does not round to ties at 0 and 1.
        return _auc(outputs[..., 1] - outputs[..., 0], targets == 1)
    classes = range(outputs.shape[2])
    return torch.stack([_auc(probabilities[..., k], targets == k) for k in classes], 1).mean(1)


def _auc(scores: Tensor, positive: Tensor) -> Tensor:
    """Share of pairs of a positive and a negative example in the right order; ties count half.

    Mann and Whitney (1947): from the sum of the positives' ranks, where tied scores share their mean rank.
    scores, positive: [K, N] → [K], nan where one kind is missing.
    """
    ordered = scores.sort(1).values.contiguous()
    scores = scores.contiguous()
    below = torch.searchsorted(ordered, scores)
    up_to = torch.searchsorted(ordered, scores, right=True)
    rank = (below + up_to + 1) / 2
    positives = positive.sum(1).double()
    pairs = positives * (scores.shape[1] - positives)
    area = (rank.double() * positive).sum(1) - positives * (positives + 1) / 2
    return (area / pairs).to(scores.dtype)


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if not targets.is_floating_point():
        each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(targets.shape).mean(1)
    return (outputs.squeeze(-1) - targets).square().mean(1)


def _rmse(outputs: Tensor, targets: Tensor) -> Tensor:
    return _loss(outputs, targets).sqrt()


def _mae(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.squeeze(-1) - targets).abs().mean(1)


def _r2(outputs: Tensor, targets: Tensor) -> Tensor:
    """nan for a single example, or for targets that are all the same."""
    spread = (targets - targets.mean(1, keepdim=True)).square().mean(1)
    constant = targets.amax(1) == targets.amin(1)
    return torch.where(constant, torch.nan, 1 - _loss(outputs, targets) / spread)


_METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "roc_auc": _roc_auc,
    "loss": _loss,
    "rmse": _rmse,
    "mae": _mae,
    "r2": _r2,
}
