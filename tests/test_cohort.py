"""A lane's results are its own: fused, alone, resumed elsewhere, whatever comes and goes beside it (P10)."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from hpo.config import Hyperparameters, Metric, StudyConfig, Task, TrialSettings
from hpo.data.prepared import Fold, Part
from hpo.errors import TrialError
from hpo.training.architecture import Architecture
from hpo.training.chain import Chain
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import EpochResult, Lane, LaneKey, LaneState
from hpo.training.probe import Probe
from hpo.training.program import Fused, OneByOne, Program
from hpo.training.shapes import shape_key
from hpo.training.streams import alike, dropout_keys, sample_order

HERE = Path(__file__).parent
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    {"optimizer": "adam", "learning_rate": 0.01, "weight_decay": 1e-3},
    {"optimizer": "rmsprop", "learning_rate": 0.002, "momentum": 0.5},
    {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
    {"optimizer": "sgd", "learning_rate": 0.1},
    {"optimizer": "rmsprop", "learning_rate": 0.002},
]
BATCH_SIZES = [16, 32]
"""With the first the MLP's first batch norm goes by its outputs, with the second by the 7 features."""
NETWORKS = {
    "mlp": (7,),
    "user_networks.py:cnn": (1, 6, 6),
    "user_networks.py:resnet": (1, 4, 4),
    "user_networks.py:wide": (1, 16, 16),
    "user_networks.py:viewing": (1, 6, 6),
    "user_networks.py:float_only": (1, 6, 6),
    "user_networks.py:tracking": (7,),
    "user_networks.py:branching": (7,),
    "user_networks.py:functional": (7,),
    "user_networks.py:optional": (7,),
    "user_networks.py:mixing": (7,),
    "user_networks.py:biased": (1, 6, 6),
    "user_networks.py:centring": (7,),
}


def fold(
    shape: tuple[int, ...], rows: int, seed: int, task: Task = "classification", validation: int = 30
) -> Fold:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows + validation, *shape, generator=generator)
    signal = x.flatten(1)[:, 0] * x.flatten(1)[:, 1]
    noise = torch.randn(rows + validation, generator=generator)
    y = 100 + 20 * (signal + 0.1 * noise) if task == "regression" else (signal + 0.3 * noise > 0).long()
    mean, scale = (float(y[:rows].mean()), float(y[:rows].std())) if task == "regression" else (0.0, 1.0)
    return Fold(Part(x[:rows], y[:rows]), Part(x[rows:], y[rows:]), mean, scale)


@pytest.fixture(autouse=True)
def fused_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it does not hang on this machine's load what is tested; tests/test_choice.py measures."""
    prefer(monkeypatch, lambda program: isinstance(program, Fused))


def prefer(monkeypatch: pytest.MonkeyPatch, fastest: Callable[[Program], bool]) -> None:
    """Programs that are not `fastest` are clocked at twice its time."""
    monkeypatch.setattr(Probe, "seconds", lambda self, program, lanes: 0.001 if fastest(program) else 0.002)


class Bench:
    """Cohorts of one architecture on one data set of two folds."""

    def __init__(
        self,
        name: str = "mlp",
        dtype: torch.dtype = torch.float64,
        task: Task = "classification",
        metric: Metric = "loss",
        folds: list[Fold] | None = None,
        device: str = "cpu",
        **training: Any,
    ) -> None:
        shape = NETWORKS.get(name, (7,))
        config = StudyConfig.model_validate(
            {
                "name": "test",
                "data": {"source": "sklearn", "name": "wine"},
                "architecture": name,
                "search": {"dropout": {"low": 0.0, "high": 0.5}},
                "training": training,
            }
        ).at(HERE)
        outputs = 2 if task == "classification" else 1
        self.metric = metric
        self.architecture = Architecture(config, shape, outputs, config.trials)
        self.folds = folds or [fold(shape, 70, 0, task), fold(shape, 75, 1, task)]
        self.data = DeviceData(self.folds, task, outputs, device, dtype)

    def cohort(self, lanes: list[Lane], states: dict[LaneKey, LaneState] | None = None) -> Cohort:
        cohort = Cohort(self.architecture, self.data, self.metric, lanes[0].settings, 20)
        cohort.add(lanes, states)
        return cohort

    def programs(self) -> set[type]:
        """How lanes run; several ways where their structures differ."""
        return {type(program) for program in self.architecture.programs.values()}


def lane(number: int, fold: int | None = None, batch_size: int = 16, **options: Any) -> Lane:
    """Different in everything that lanes may differ in."""
    own = OPTIMIZERS[number % len(OPTIMIZERS)]
    hyperparameters = Hyperparameters.model_validate({"batch_size": batch_size} | own)
    dropout = 0.15 * (number % 4)
    key = LaneKey(number, number % 2 if fold is None else fold, seed=number % 3)
    return Lane(key, TrialSettings(hyperparameters, {"dropout": dropout} | options))


def curves(cohort: Cohort, epochs: int) -> dict[LaneKey, list[EpochResult]]:
    found: dict[LaneKey, list[EpochResult]] = {key: [] for key in cohort.keys}
    for _ in range(epochs):
        for key, result in cohort.train_epoch().items():
            found[key].append(result)
    return found


def assert_close(one: list[EpochResult], other: list[EpochResult], tolerance: float) -> None:
    assert [result.epoch for result in one] == [result.epoch for result in other]
    for mine, yours in zip(one, other, strict=True):
        assert mine.train_loss == pytest.approx(yours.train_loss, abs=tolerance)
        assert mine.value == pytest.approx(yours.value, abs=tolerance)


def assert_same_state(one: LaneState, other: LaneState, tolerance: float = 1e-9) -> None:
    assert one.epoch == other.epoch
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        if not name.startswith("optimizer.momentum_buffer"):  # unused where a lane's momentum is 0
            assert torch.allclose(tensor, other.tensors[name], atol=tolerance, rtol=tolerance), name


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_in_a_cohort_of_64_a_lane_has_the_loss_curve_that_it_has_alone(batch_size: int) -> None:
    bench = Bench()
    lanes = [lane(number, batch_size=batch_size) for number in range(64)]
    together = curves(bench.cohort(lanes), 20)
    for one in (*lanes[:7], lanes[-1]):
        alone = bench.cohort([one])
        assert_close(curves(alone, 20)[one.key], together[one.key], 1e-9)
    assert len({results[-1].train_loss for results in together.values()}) == 64


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_in_float32_losses_agree_to_one_in_ten_thousand_after_20_epochs(batch_size: int) -> None:
    bench = Bench(dtype=torch.float32)
    lanes = [lane(number, batch_size=batch_size) for number in range(64)]
    together = curves(bench.cohort(lanes), 20)
    assert bench.programs() == {Chain}
    for one in lanes[:6]:
        assert_close(curves(bench.cohort([one]), 20)[one.key], together[one.key], 1e-4)


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("mlp", Chain),
        ("user_networks.py:cnn", Fused),
        ("user_networks.py:resnet", Fused),
        ("user_networks.py:tracking", Fused),
        ("user_networks.py:branching", OneByOne),
        ("user_networks.py:functional", OneByOne),
        ("user_networks.py:optional", Chain),
    ],
)
def test_lanes_of_every_network_equal_themselves_alone(name: str, program: type) -> None:
    bench = Bench(name)
    lanes = [lane(number) for number in range(6)]
    cohort = bench.cohort(lanes)
    assert program in bench.programs()
    together = curves(cohort, 4)
    for one in lanes:
        alone = bench.cohort([one])
        assert_close(curves(alone, 4)[one.key], together[one.key], 1e-9)
        assert_same_state(alone.state(one.key), cohort.state(one.key))
        assert torch.allclose(
            alone.predict(bench.folds[0].validation.features)[0],
            cohort.predict(bench.folds[0].validation.features)[cohort.keys.index(one.key)],
            atol=1e-9,
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_the_folds_of_a_trial_share_masks_and_train_as_if_alone(dtype: torch.dtype, tolerance: float) -> None:
    bench = Bench(dtype=dtype)
    numbers = (1, 2, 3, 7)  # of rates 0.15 to 0.45
    trials = [[Lane(LaneKey(number, fold), lane(number).settings) for fold in (0, 1)] for number in numbers]
    lanes = [one for trial in trials for one in trial]
    assert alike([(one, 1) for one in lanes]) == 2
    together = curves(bench.cohort(lanes), 4)
    for one in lanes:
        assert_close(curves(bench.cohort([one]), 4)[one.key], together[one.key], tolerance)


def test_masks_are_shared_by_neighbours_that_have_the_same() -> None:
    folds = [
        [(Lane(LaneKey(number, fold), lane(number).settings), 1) for fold in range(3)] for number in (4, 5)
    ]
    first, second = folds
    assert alike([]) == alike(first[:1]) == 1
    assert alike(first) == alike(first + second) == 3
    assert alike(first + second[:2]) == alike(first[:2] + second) == 1
    assert alike([first[0], second[0], first[1], second[1]]) == 1
    assert alike([first[0], (first[1][0], 2)]) == 1, "of another epoch"
    assert alike([first[0], (Lane(first[1][0].key, lane(5).settings), 1)]) == 1, "of other settings"
    keys = dropout_keys([(one.key, epoch) for one, epoch in first + second], 4, 2)
    assert torch.equal(keys[..., 0], keys[..., 2]) and not torch.equal(keys[..., 2], keys[..., 3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "user_networks.py:resnet", "user_networks.py:functional"])
def test_lanes_that_join_leave_and_resume_go_on_as_if_alone(name: str) -> None:
    bench = Bench(name)
    lanes = [lane(number) for number in range(8)]
    cohort = bench.cohort(lanes[:5])
    found = curves(cohort, 2)
    cohort.drop([lanes[1].key, lanes[3].key])
    cohort.add(lanes[5:7])
    moved = cohort.state(lanes[0].key)
    cohort.drop([lanes[0].key])
    elsewhere = bench.cohort([lanes[7], lanes[0]], {lanes[0].key: moved})
    for place in (cohort, elsewhere):
        for key, results in curves(place, 3).items():
            found.setdefault(key, []).extend(results)
    assert cohort.keys == (lanes[2].key, lanes[4].key, lanes[5].key, lanes[6].key)
    for one in lanes:
        results = found[one.key]
        assert_close(curves(bench.cohort([one]), len(results))[one.key], results, 1e-9)
    assert [result.epoch for result in found[lanes[0].key]] == [1, 2, 3, 4, 5]


def plain_epochs(bench: Bench, one: Lane, module: nn.Module, epochs: int) -> list[float]:
    """An ordinary loop without dropout, in the cohort's sample order."""
    part = bench.folds[one.key.fold].train
    x, y = part.features.double(), part.targets
    steps, rows = bench.data.steps(one.settings.hyperparameters.batch_size)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01, weight_decay=1e-3)
    losses = []
    for epoch in range(1, epochs + 1):
        order = sample_order(one.key, epoch, len(part), steps * rows).view(steps, rows)
        total = 0.0
        for batch in order:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(module(x[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / steps)
    return losses


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("name", ["mlp", "user_networks.py:cnn", "user_networks.py:resnet"])
def test_a_lane_trains_as_an_ordinary_loop_does(name: str, batch_size: int) -> None:
    bench = Bench(name)
    own = lane(1, batch_size=batch_size, dropout=0.0)
    cohort = bench.cohort([own, *(lane(number, batch_size=batch_size) for number in (2, 7))])
    module = cohort.module(own.key).double().train()
    expected = plain_epochs(bench, own, module, 3)
    found = curves(cohort, 3)[own.key]
    assert [result.train_loss for result in found] == pytest.approx(expected, abs=1e-9)
    trained = cohort.module(own.key).state_dict()
    for key, tensor in module.state_dict().items():
        assert torch.allclose(trained[key].double(), tensor.double(), atol=1e-6), key


def test_every_batch_is_full_and_every_lane_takes_equally_many() -> None:
    data = Bench().data  # folds of 70 and 75 rows
    assert data.steps(16) == (4, 16)
    assert data.steps(70) == (1, 70)
    assert data.steps(1000) == (1, 70)


def test_dropout_is_as_strong_as_the_lane_says() -> None:
    bench = Bench()
    lanes = [lane(6 * number, fold=0, dropout=rate) for number, rate in enumerate((0.0, 0.3, 0.9))]
    results = curves(bench.cohort(lanes), 20)
    losses = [results[one.key][-1].train_loss for one in lanes]
    assert losses == sorted(losses)
    assert losses[2] > 2 * losses[0]


def test_what_does_not_fuse_is_said_once() -> None:
    bench = Bench("user_networks.py:functional")
    with capture_logs() as logs:
        curves(bench.cohort([lane(number) for number in range(3)]), 1)
        bench.cohort([lane(4), lane(5)])
        bench.cohort([lane(6, batch_size=8)])
    assert [entry["event"] for entry in logs] == ["the architecture trains lane by lane"]
    assert "random" in logs[0]["reason"]


def test_training_and_evaluating_leave_torchs_generator_alone() -> None:
    bench = Bench("user_networks.py:functional")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    curves(bench.cohort([lane(0), lane(1)]), 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "user_networks.py:resnet", "user_networks.py:branching"])
def test_a_lane_that_diverges_reports_it_and_disturbs_no_neighbour(name: str) -> None:
    bench = Bench(name, metric="accuracy")
    wild = Lane(
        LaneKey(99), TrialSettings(Hyperparameters(batch_size=16, optimizer="sgd", learning_rate=1.7e308), {})
    )
    lanes = [lane(0), lane(1), lane(4)]
    results = curves(bench.cohort([*lanes, wild]), 3)
    assert not math.isfinite(results[wild.key][-1].train_loss)
    assert math.isnan(results[wild.key][-1].value)
    for one in lanes:
        assert_close(curves(bench.cohort([one]), 3)[one.key], results[one.key], 1e-9)


def test_a_regression_learns_standardized_targets_and_is_scored_in_their_own_unit() -> None:
    bench = Bench(task="regression", metric="mae")
    own = lane(1, fold=1, dropout=0.0)
    cohort = bench.cohort([lane(2, fold=0), own])
    result = curves(cohort, 15)[own.key][-1]
    part = bench.folds[1].validation
    predicted = cohort.predict(part.features)[1, :, 0]
    assert result.value == pytest.approx(float((predicted - part.targets).abs().mean()))
    assert result.train_loss < 1.0 < result.value < 30.0
    module = cohort.module(own.key)
    fold = bench.folds[1]
    raw: Tensor = module(part.features)[:, 0] * fold.target_scale + fold.target_mean
    assert torch.allclose(raw.double(), predicted, atol=1e-3)


def test_without_validation_rows_the_value_is_nan() -> None:
    bench = Bench(folds=[fold((7,), 40, 0, validation=0)])
    result = curves(bench.cohort([lane(1, fold=0)]), 1)[LaneKey(1, 0, 1)][0]
    assert math.isnan(result.value)
    assert math.isfinite(result.train_loss)


def test_an_exported_module_has_ordinary_layers_and_predicts_what_the_lane_predicts() -> None:
    bench = Bench("user_networks.py:cnn", dtype=torch.float32)
    lanes = [lane(number) for number in range(4)]
    cohort = bench.cohort(lanes)
    curves(cohort, 2)
    features = bench.folds[0].validation.features
    module = cohort.module(lanes[3].key)
    assert {type(layer).__module__.split(".")[0] for layer in module.modules()} == {"torch"}
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.15 * 3]
    assert torch.allclose(module(features), cohort.predict(features)[3], atol=1e-5)


def test_predictions_do_not_depend_on_how_they_are_chunked() -> None:
    bench = Bench()
    cohort = bench.cohort([lane(0), lane(1)])
    curves(cohort, 1)
    many = torch.randn(600, 7, dtype=torch.float64)
    parts = [cohort.predict(part) for part in many.split(37)]
    assert torch.allclose(cohort.predict(many), torch.cat(parts, 1), atol=1e-12)


def test_shape_keys_are_equal_but_for_dropout_and_the_optimizer() -> None:
    assert shape_key(lane(0).settings) == shape_key(lane(1).settings)
    assert shape_key(lane(0).settings) != shape_key(lane(0, batch_size=32).settings)
    assert shape_key(lane(0).settings) != shape_key(lane(0, width=8).settings)


def test_copies_begin_with_one_lanes_weights_and_go_their_own_ways() -> None:
    bench = Bench()
    settings, keys = lane(1).settings, [lane(1, fold=0).key, lane(2, fold=0).key]
    alone = bench.cohort([Lane(keys[0], settings)])
    copies = Cohort(bench.architecture, bench.data, bench.metric, settings, 20)
    copies.add_copies(settings, keys)
    first, second = (copies.state(key) for key in keys)
    assert_same_state(first, alone.state(keys[0]))
    assert_same_state(first, second)
    losses = [result.train_loss for result in copies.train_epoch().values()]
    assert losses[0] == pytest.approx(alone.train_epoch()[keys[0]].train_loss, abs=1e-9) != losses[1]
    with pytest.raises(ValueError, match="is in this cohort already"):
        copies.add_copies(settings, keys[:1])


def test_adding_is_all_or_nothing_and_says_what_is_wrong() -> None:
    bench = Bench()
    cohort = bench.cohort([lane(0)])
    with pytest.raises(ValueError, match="is in this cohort already"):
        cohort.add([lane(1), lane(0)])
    with pytest.raises(ValueError, match=r"has shape key .*32.*, not .*16"):
        cohort.add([lane(1), lane(2, batch_size=32)])
    with pytest.raises(ValueError, match="the data has folds 0 to 1"):
        cohort.add([lane(1), lane(2, fold=2)])
    with pytest.raises(TrialError, match="dropout 7"):
        cohort.add([lane(1), lane(2, dropout=7)])
    assert cohort.keys == (lane(0).key,)
    assert len(cohort) == 1
    with pytest.raises(KeyError):
        cohort.drop([lane(5).key])
    cohort.drop([lane(0).key])
    assert cohort.train_epoch() == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong_shape", r"its output for 16 examples has shape \(16, 3\), not \(16, 2\)"),
        ("broken", "does not run: RuntimeError: .*shapes cannot be multiplied"),
    ],
)
def test_a_network_that_does_not_run_fails_its_trial_with_the_reason(name: str, message: str) -> None:
    one = Lane(LaneKey(0), TrialSettings(Hyperparameters(batch_size=16), {}))
    with pytest.raises(TrialError, match=message):
        Bench(f"user_networks.py:{name}").cohort([one])


def test_batch_norm_on_batches_of_one_fails_its_trial_with_the_reason() -> None:
    with pytest.raises(TrialError, match="more than 1 value per channel"):
        Bench().cohort([lane(0, batch_size=1)])


def test_a_state_of_another_network_is_refused() -> None:
    bench = Bench()
    narrow = bench.cohort([lane(0, width=8)])
    narrow.train_epoch()
    with pytest.raises(TrialError, match="does not fit its architecture"):
        bench.cohort([lane(0)], {lane(0).key: narrow.state(lane(0).key)})
