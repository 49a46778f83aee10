"""Which way lanes run, and in which numbers, is chosen by what is equal and fast; and said once."""

import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from test_cohort import Bench, assert_close, curves, fold, lane, prefer
from torch import Tensor, nn

from hpo.config import Precision, StudyConfig, TrialSettings
from hpo.errors import TrialError
from hpo.training import choice, precision
from hpo.training.chain import Chain
from hpo.training.compiling import lane_steps
from hpo.training.device_data import DeviceData, best_device
from hpo.training.lane import Lane
from hpo.training.layout import Layout
from hpo.training.precision import computes_in_bfloat16
from hpo.training.probe import Probe, Results
from hpo.training.program import Fused, OneByOne, Program
from hpo.training.shapes import number_of_shapes

CPU = torch.device("cpu")
WAYS: dict[str, Callable[[Program], bool]] = {
    "fused": lambda program: isinstance(program, Fused),
    "alone": lambda program: isinstance(program, OneByOne) and not program.channels_last,
    "channels last": lambda program: program.channels_last,
}


def choose(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Have the clock, and where that does not decide the rule, choose this way."""
    prefer(monkeypatch, lambda program: isinstance(program, Fused) == (way == "fused"))
    if way == "alone":
        monkeypatch.setattr(choice, "convolutions_2d", lambda module: frozenset())


def program_of(bench: Bench) -> Program:
    (program,) = bench.architecture.programs.values()
    return program


def convolutions(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 3), nn.Conv2d(channels, 8, 3), nn.Flatten())


def test_equal_machines_compute_equal_networks_in_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    wide, narrow, mlp = convolutions(16), convolutions(8), nn.Linear(512, 512)
    assert [computes_in_bfloat16("auto", module, CPU, torch.float32) for module in (wide, narrow, mlp)] == [
        True,
        False,
        False,
    ]
    assert computes_in_bfloat16("bfloat16", mlp, CPU, torch.float32)
    assert not computes_in_bfloat16("float32", wide, CPU, torch.float32)
    assert not computes_in_bfloat16("bfloat16", wide, CPU, torch.float64)
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    assert not computes_in_bfloat16("auto", wide, CPU, torch.float32)


def test_the_hardware_is_asked_for_bfloat16() -> None:
    information = Path("/proc/cpuinfo")
    if not information.exists():
        pytest.skip("there is no /proc/cpuinfo here to compare with")
    flags = information.read_text()
    assert precision.has_bfloat16("cpu") == ("avx512_bf16" in flags or "amx_bf16" in flags)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["user_networks.py:cnn", "user_networks.py:resnet"])
def test_in_bfloat16_weights_statistics_and_losses_stay_float32(
    name: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, way)
    bench = Bench(name, torch.float32, precision="bfloat16")
    cohort = bench.cohort([lane(1), lane(2)])
    cohort.train_epoch()
    program = program_of(bench)
    assert program.bfloat16 and WAYS[way](program)
    state = cohort.state(lane(1).key).tensors
    assert {tensor.dtype for tensor in state.values()} <= {torch.float32, torch.int64}
    features = bench.folds[0].validation.features
    outputs = cohort.predict(features)
    assert outputs.dtype == torch.float32
    module = cohort.module(lane(1).key)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    exact = module(features).detach()
    # It was in bfloat16 that they were computed, and the exported module predicts nearly the same.
    assert 1e-4 < float((outputs[0] - exact).abs().max()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["user_networks.py:cnn", "user_networks.py:resnet"])
def test_whichever_way_is_chosen_losses_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 0.001 in float32 and 0.02 in bfloat16 after 5 epochs."""
    lanes = [lane(number) for number in range(4)]
    found = {}
    for numbers in ("float32", "bfloat16"):
        for way in WAYS:
            with monkeypatch.context() as context:
                choose(context, way)
                bench = Bench(name, torch.float32, precision=numbers)
                found[numbers, way] = curves(bench.cohort(lanes), 5)
            assert WAYS[way](program_of(bench))
    for (numbers, _), results in found.items():
        for one in lanes:
            reference = found[numbers, "fused"][one.key]
            assert_close(results[one.key], reference, 1e-3 if numbers == "float32" else 0.02)
    assert found["float32", "fused"] != found["bfloat16", "fused"]


@pytest.mark.slow
@pytest.mark.parametrize("numbers", ["float32", "bfloat16"])
@pytest.mark.parametrize("way", ["alone", "channels last"])
def test_one_by_one_lanes_equal_themselves_alone_to_the_bit(
    way: str, numbers: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, way)
    bench = Bench("user_networks.py:cnn", torch.float32, precision=numbers)
    lanes = [lane(number) for number in range(6)]
    together = curves(bench.cohort(lanes), 4)
    for one in lanes:
        assert curves(bench.cohort([one]), 4)[one.key] == together[one.key]


@pytest.mark.slow
def test_an_mlp_in_bfloat16_comes_close_to_float32() -> None:
    lanes = [lane(number) for number in range(6)]
    exact, rounded = (
        curves(Bench(dtype=torch.float32, precision=numbers).cohort(lanes), 5)
        for numbers in ("float32", "bfloat16")
    )
    for one in lanes:
        assert_close(rounded[one.key], exact[one.key], 0.05)
    assert rounded != exact


def test_the_way_is_measured_once_for_each_structure_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of many small operations gains by fusing, wide convolutions may."""
    bench = Bench("user_networks.py:wide", torch.float32)
    with capture_logs() as logs, monkeypatch.context() as context:
        prefer(context, lambda program: isinstance(program, OneByOne))
        bench.cohort([lane(0), lane(1)])
        chosen = program_of(bench)
        bench.cohort([lane(2)])
    assert program_of(bench) is chosen
    assert isinstance(chosen, OneByOne)
    said = [entry["event"] for entry in logs]
    assert said.count("lanes train one by one, which is faster") == 1
    assert said.count("the architecture computes in bfloat16") == int(precision.has_bfloat16("cpu"))
    small = Bench("user_networks.py:tracking", torch.float32)
    small.cohort([lane(0)])
    assert small.programs() == {Fused}


@pytest.mark.parametrize(
    ("alone", "fused", "chosen"),
    [(0.010, 0.0079, Fused), (0.010, 0.0081, OneByOne), (0.021, 0.001, OneByOne)],
)
def test_fused_is_what_is_clearly_faster_and_long_steps_are_not_tried(
    alone: float, fused: float, chosen: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "seconds", lambda self, program, lanes: alone if program.lanewise else fused)
    bench = Bench("user_networks.py:resnet")
    with capture_logs() as logs:
        bench.cohort([lane(0)])
    assert bench.programs() == {chosen}
    told = [entry["fused"] for entry in logs if "one by one" in entry["event"]]
    assert told == {0.0079: [], 0.0081: ["8.1 ms"], 0.001: ["not tried"]}[fused]


def test_on_a_cpu_convolutions_have_their_channels_last_whatever_the_clock_says() -> None:
    bench = Bench("user_networks.py:cnn", torch.float32)
    with pytest.MonkeyPatch.context() as context:
        prefer(context, WAYS["alone"])
        bench.cohort([lane(0)])
    assert program_of(bench).channels_last


@pytest.mark.parametrize(
    ("program", "does"), [(OneByOne, "gradients"), (Fused, "gradients"), (Probe, "seconds")]
)
def test_memory_that_runs_out_decides_nothing(
    program: type, does: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker trains fewer lanes then, and asks again."""
    monkeypatch.setattr(choice, "LONG", math.inf)  # fused is tried, however slow the machine is
    bench = Bench("user_networks.py:resnet", torch.float32)

    def too_much(*_: object) -> None:
        raise torch.OutOfMemoryError("of this test")

    with monkeypatch.context() as context, pytest.raises(torch.OutOfMemoryError):
        context.setattr(program, does, too_much)
        bench.cohort([lane(0)])
    assert not bench.architecture.programs and not bench.architecture.said
    prefer(monkeypatch, WAYS["fused"])
    bench.cohort([lane(0)])
    assert bench.programs() == {Fused}


def test_data_of_other_sizes_are_not_probed_again() -> None:
    bench = Bench("user_networks.py:tracking")
    bench.cohort([lane(0)])
    chosen = program_of(bench)
    bench.data = DeviceData([fold((7,), 200, 0)], "classification", 2, "cpu", torch.float64)
    bench.cohort([lane(0, fold=0)])
    assert program_of(bench) is chosen


def test_fused_lanes_that_mix_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch, WAYS["fused"])
    bench = Bench("user_networks.py:mixing")
    with capture_logs() as logs:
        bench.cohort([lane(0)])
    assert bench.programs() == {OneByOne}
    assert [entry["reason"] for entry in logs] == ["its results differ"]


class Faint(nn.Module):
    """Has gradients of about 1e-6."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 1e-6


def test_gradients_that_are_missing_are_found_out_however_small_they_are() -> None:
    class Forgetful(OneByOne):
        def gradients(self, *arguments: Any) -> Tensor:
            losses = super().gradients(*arguments)
            arguments[-1]["layer.bias"].zero_()
            return losses

    probe, module = Probe(Faint().double(), Bench().data, 16), Faint().double()
    expected: Results = probe.results(OneByOne(module, "classification"))
    assert probe.difference(OneByOne(module, "classification"), expected) is None
    assert probe.difference(Forgetful(module, "classification"), expected) == "its results differ"


@pytest.mark.parametrize("numbers", ["float32", "bfloat16"])
def test_a_bias_before_batch_norm_whose_gradient_is_rounding_does_no_harm(
    numbers: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefer(monkeypatch, WAYS["fused"])
    bench = Bench("user_networks.py:biased", torch.float32, precision=numbers)
    bench.cohort([lane(0)])
    assert bench.programs() == {Fused}


def test_a_network_that_changes_its_examples_fails_its_trial_with_the_reason() -> None:
    bench = Bench("user_networks.py:centring")
    with pytest.raises(TrialError, match="does not run: ValueError: it changes its input in place"):
        bench.cohort([lane(0)])


def test_the_network_by_which_a_program_was_chosen_keeps_no_memory() -> None:
    bench = Bench("user_networks.py:cnn")
    cohort = bench.cohort([lane(0), lane(1)])
    module = program_of(bench).module
    assert not any(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    results = curves(cohort, 2)
    again = curves(bench.cohort([lane(1), lane(0)]), 2)
    for key in results:
        assert_close(results[key], again[key], 1e-9)


def test_what_needs_its_channels_first_keeps_them() -> None:
    bench = Bench("user_networks.py:viewing", torch.float32)
    bench.cohort([lane(0), lane(1)])
    assert not program_of(bench).channels_last


def test_what_cannot_run_in_bfloat16_runs_in_float32_unless_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    bench = Bench("user_networks.py:float_only", torch.float32)
    with capture_logs() as logs:
        bench.cohort([lane(0)])
    assert not program_of(bench).bfloat16
    assert "the architecture computes in float32" in [entry["event"] for entry in logs]
    with pytest.raises(TrialError, match=r"does not run in bfloat16 \(training.precision\): RuntimeError: "):
        Bench("user_networks.py:float_only", torch.float32, precision="bfloat16").cohort([lane(0)])


def test_with_channels_last_a_row_has_views_of_that_format() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, (2, 4)), nn.Flatten(), nn.Linear(7, 2))
    layout = Layout(module, channels_last=True)
    flat = layout.row(module)["weights"].expand(2, -1).contiguous()
    views = layout.parameters(flat)
    for name, parameter in module.named_parameters():
        assert torch.equal(views[name][1], parameter)
        assert views[name].untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
    assert views["0.weight"][0].is_contiguous(memory_format=torch.channels_last)


def test_training_happens_where_cuda_is() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert best_device() == expected
    bench = Bench()
    assert DeviceData(bench.folds, "classification", 2).device.type == expected


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "test",
            "data": {"source": "sklearn", "name": "wine"},
            "search": {
                "batch_size": {"choices": [16, 32]},
                "width": {"low": 8, "high": 10},
                "learning_rate": {"low": 0.001, "high": 0.1},
                "dropout": {"low": 0.0, "high": 0.5},
            },
            "trials": 60,
            "training": {"epochs": 10},
        }
        | changes
    )


def test_a_studys_work_is_shared_among_its_shapes() -> None:
    assert number_of_shapes(study()) == 6
    assert lane_steps(study(validation={"folds": 2}), trials=20, steps=7) == 20 * 2 * 10 * 7 / 6
    endless = study(search={"slope": {"low": 0.0, "high": 0.5}})
    assert lane_steps(endless, trials=20, steps=7) == 0


def compiler() -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here, which torch.compile needs")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "user_networks.py:tracking"])
def test_compiled_lanes_train_as_interpreted_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler()
    prefer(monkeypatch, WAYS["fused"])
    lanes = [lane(number) for number in range(5)]
    options = {"schedule": "cosine", "label_smoothing": 0.1, "ema_decay": 0.9}
    hyperparameters = lanes[1].settings.hyperparameters.model_copy(update=options)
    lanes[1] = Lane(lanes[1].key, TrialSettings(hyperparameters, lanes[1].settings.options))
    found = []
    for option in ("on", "off"):
        bench = Bench(name, torch.float32, compile=option)
        cohort = bench.cohort(lanes)
        assert program_of(bench).compiled == (option == "on")
        results = curves(cohort, 2)
        cohort.drop([lanes[3].key, lanes[4].key])
        cohort.add([lane(9)])
        found.append(results | {("later", key): more for key, more in curves(cohort, 2).items()})
    for key in found[0]:
        assert_close(found[0][key], found[1][key], 1e-4)


def test_what_does_not_compile_is_interpreted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    bench = Bench(compile="on")
    with capture_logs() as logs:
        results = curves(bench.cohort([lane(0), lane(1)]), 1)
    assert not program_of(bench).compiled
    assert [entry["event"] for entry in logs] == ["a network is not compiled"]
    assert "no working C++ compiler" in logs[0]["reason"]
    assert results == curves(Bench().cohort([lane(0), lane(1)]), 1)


@pytest.mark.parametrize(
    ("epochs", "gain", "compiled"), [(1, 2.0, False), (30, 2.0, True), (30, 1.05, False)]
)
def test_auto_compiles_where_much_is_left_and_much_is_gained(
    epochs: int, gain: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of a lane takes a second; there are 100 trials of 4 steps an epoch."""

    def compile_at_once(self: Chain) -> None:
        self._compiled = self._fresh_gradients

    monkeypatch.setattr(Chain, "compile", compile_at_once)
    monkeypatch.setattr(Probe, "seconds", lambda self, program, lanes: 1 / gain if program.compiled else 1.0)
    bench = Bench(epochs=epochs)
    with capture_logs() as logs:
        bench.cohort([lane(0)])
    assert program_of(bench).compiled == compiled
    said = [(entry["log_level"], entry["reason"]) for entry in logs]
    assert said == [("info", "its steps are only 1.05 times as fast")] * (gain < 2)


def test_auto_never_compiles_where_nobody_expects_trials_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Probe, "seconds", lambda self, program, lanes: 1e9)
    bench = Bench()
    bench.architecture.trials = 0
    bench.cohort([lane(0)])
    assert not program_of(bench).compiled


@pytest.mark.slow
def test_more_shapes_are_compiled_than_torch_would_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    bench = Bench(compile="on")
    for width in range(8, 18):
        bench.cohort([lane(0, width=width, depth=1)])
    programs = bench.architecture.programs.values()
    assert [program.compiled for program in programs] == [True] * 10
