"""Averaged weights: those of torch's AveragedModel; evaluated, exported, resumed."""

import pytest
import torch
from test_cohort import Bench, curves, lane
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hpo.errors import TrialError
from hpo.training.lane import Lane, LaneKey
from hpo.training.streams import sample_order


def averaged(number: int, decay: float = 0.9, **options: float) -> Lane:
    found = lane(number, **options)
    hyperparameters = found.settings.hyperparameters.model_copy(update={"ema_decay": decay})
    return Lane(found.key, type(found.settings)(hyperparameters, found.settings.options))


def torch_averages(bench: Bench, one: Lane, module: nn.Module, epochs: int) -> nn.Module:
    """An ordinary loop in the cohort's sample order; Adam as lane 1 has it."""

    def average(mean: Tensor, now: Tensor, averaged: Tensor | int) -> Tensor:
        decay = min(one.settings.hyperparameters.ema_decay, (1 + int(averaged)) / (10 + int(averaged)))
        return torch.lerp(mean, now, 1 - decay) if mean.is_floating_point() else now

    model = AveragedModel(module, avg_fn=average, use_buffers=True)
    model.update_parameters(module)  # the first copies
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=1e-3)
    part = bench.folds[one.key.fold].train
    steps, rows = bench.data.steps(one.settings.hyperparameters.batch_size)
    for epoch in range(1, epochs + 1):
        for batch in sample_order(one.key, epoch, len(part), steps * rows).view(steps, rows):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(part.features[batch].double()), part.targets[batch]).backward()
            optimizer.step()
            model.update_parameters(module)
    found: nn.Module = model.module
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "user_networks.py:cnn", "user_networks.py:resnet"])
def test_averages_are_those_of_an_ordinary_loop_with_torchs_averaged_model(name: str) -> None:
    bench = Bench(name)
    own = averaged(1, dropout=0.0)
    cohort = bench.cohort([own, lane(2), averaged(7, 0.5)])
    expected = torch_averages(bench, own, cohort.module(own.key).double().train(), 3)
    curves(cohort, 3)
    exported = cohort.module(own.key)
    for key, tensor in expected.state_dict().items():
        found = exported.state_dict()[key]
        assert torch.allclose(found.double(), tensor.double(), atol=1e-6), key
    features = bench.folds[0].validation.features.double()
    predicted = cohort.predict(features)[cohort.keys.index(own.key)]
    with torch.no_grad():
        assert torch.allclose(predicted, expected.eval()(features), atol=1e-9)


def test_what_is_trained_goes_on_without_the_average() -> None:
    bench = Bench()
    plain, own = lane(1), averaged(1)
    alone, together = bench.cohort([plain]), bench.cohort([own, lane(3)])
    losses = [result.train_loss for result in curves(alone, 4)[plain.key]]
    results = curves(together, 4)[own.key]
    assert [result.train_loss for result in results] == pytest.approx(losses, abs=1e-9)
    assert results[-1].value != pytest.approx(curves(bench.cohort([plain]), 4)[plain.key][-1].value, abs=1e-3)


def test_only_lanes_that_average_pay_for_it_and_keep_it() -> None:
    bench = Bench()
    plain, own = lane(0), averaged(1)
    cohort = bench.cohort([plain])
    curves(cohort, 1)
    (stack,) = cohort._stacks.values()
    assert not any(name.startswith("average") for name in stack._rows)
    cohort.add([own])
    curves(cohort, 1)
    assert any(name.startswith("average") for name in cohort.state(own.key).tensors)
    assert not any(name.startswith("average") for name in cohort.state(plain.key).tensors)
    cohort.drop([own.key])
    curves(cohort, 1)
    assert not any(name.startswith("average") for name in stack._rows)


def test_the_average_lags_behind_but_little_at_first() -> None:
    bench = Bench()
    slow = averaged(1, 0.9999, fold=0)
    cohort = bench.cohort([slow])
    start = cohort.state(slow.key).tensors
    curves(cohort, 2)
    end = cohort.state(slow.key).tensors
    name = next(name for name in start if name.startswith("parameters.") and name.endswith("weight"))
    average = end[name.replace("parameters", "average", 1)]
    way, lag = (end[name] - start[name]).norm(), (end[name] - average).norm()
    assert 0 < lag < 0.6 * way, "with a decay of 0.9999 alone it would hardly have moved in 8 steps"


def test_a_state_without_the_average_that_a_lane_needs_is_refused() -> None:
    bench = Bench()
    plain = bench.cohort([lane(1)])
    with pytest.raises(TrialError, match=r"does not fit its architecture: 'average\."):
        bench.cohort([averaged(1)], {lane(1).key: plain.state(lane(1).key)})


def test_a_neighbour_that_diverges_spoils_no_average() -> None:
    bench = Bench(metric="accuracy")
    own, wild = averaged(1), averaged(99)
    hyperparameters = wild.settings.hyperparameters.model_copy(
        update={"optimizer": "sgd", "learning_rate": 1.7e308}
    )
    wild = Lane(LaneKey(99), type(wild.settings)(hyperparameters, {}))
    cohort = bench.cohort([own, wild])
    found = curves(cohort, 3)
    assert found[own.key] == curves(bench.cohort([own]), 3)[own.key]
