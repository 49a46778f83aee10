"""The results folder."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import skops.io
import torch
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import models
from hpo.config import StudyConfig
from hpo.data.cache import load_rows
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.data.preprocessing import TRUSTED
from hpo.errors import HpoError
from hpo.results.bundle_folder import MANIFEST, REQUIRED
from hpo.results.export import export
from hpo.results.finalize import Finalized, finalize
from hpo.results.metrics import evaluate
from hpo.studyfile import load_study

TABLE = "age,colour,target\n" + "".join(
    f"{20 + 7 * row % 31 if row % 11 else ''},{'red' if row % 3 else 'blue'},{'yes' if row % 2 else 'no'}\n"
    for row in range(120)
)


def study(folder: Path, **changes: Any) -> StudyConfig:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text(TABLE)
    raw: dict[str, Any] = {
        "name": "exported",
        "data": {"source": "csv", "path": "table.csv", "target": "target"},
        "search": {
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "width": {"choices": [4, 8]},
            "optimizer": {"choices": ["adam", "sgd"]},
            "momentum": {"low": 0.0, "high": 0.9, "when": {"optimizer": "sgd"}},
        },
        "options": {"depth": 1, "dropout": 0.25},
        "training": {"epochs": 3, "batch_size": 16, "seed": 6},  # by which the trial beats the defaults
        "final": {"top": 1, "seeds": 2},
    }
    return StudyConfig.model_validate(raw | changes).at(folder)


def winner() -> FrozenTrial:
    trial = create_trial(
        value=0.75,
        params={"learning_rate": 0.0123456789, "width": 8, "optimizer": "adam"},
        distributions={
            "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
            "width": CategoricalDistribution([4, 8]),
            "optimizer": CategoricalDistribution(["adam", "sgd"]),
        },
    )
    trial.number = 7
    return trial


class Made:
    """A finalized study and its results folder."""

    def __init__(self, folder: Path, config: StudyConfig, trial: FrozenTrial) -> None:
        self.config = config
        self.prepared: PreparedData = prepare(config, folder / "cache")
        self.finalized: Finalized = finalize(config, self.prepared, [trial], lambda: None)
        self.out = folder / "results" / config.name
        self.export()

    def export(self) -> None:
        export(self.out, self.config, self.prepared, self.finalized, {"complete": 1})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("exported")
    return Made(folder, study(folder / "study"), winner())


def rebuilt(out: Path) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Module, preprocessing and metadata from a results folder alone."""
    best = yaml.safe_load((out / "best.yaml").read_text())
    with safe_open(out / "model.safetensors", framework="pt") as opened:
        network = json.loads(opened.metadata()["network"])
    shape = tuple(network["input_shape"])
    module = models.builder(best["architecture"])(shape, network["outputs"], **best["options"])
    module.load_state_dict(load_file(out / "model.safetensors"))
    preprocessing = skops.io.load(out / "preprocessing.skops", trusted=TRUSTED)
    return module.eval(), preprocessing, network


def recomputed(made: Made) -> dict[str, float | None]:
    module, preprocessing, network = rebuilt(made.out)
    rows = load_rows(made.prepared, "test.safetensors")
    features = torch.as_tensor(preprocessing.transform(rows.features), dtype=torch.float32)
    with torch.no_grad():
        outputs = module(features) * network["target_scale"] + network["target_mean"]
    labels = json.loads((made.out / "labels.json").read_text())
    return evaluate(labels["task"], outputs, rows.targets, labels["classes"]).scalars()


@pytest.mark.slow
def test_model_rebuilt_from_the_folder_alone_reproduces_the_test_metrics(made: Made) -> None:
    metrics = json.loads((made.out / "metrics.json").read_text())
    for name, value in recomputed(made).items():
        assert value == pytest.approx(metrics["test"][name], abs=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["drop", "most_frequent"])
def test_regression_model_is_reproduced_too(tmp_path: Path, missing: str) -> None:
    data = {"source": "csv", "path": "table.csv", "target": "age", "missing": missing}
    (tmp_path / "study").mkdir()
    config = study(tmp_path / "study", metric="rmse", data=data)
    (tmp_path / "study" / "table.csv").write_text(TABLE.replace("\n,", "\n33,"))
    made = Made(tmp_path, config, winner())
    metrics = json.loads((made.out / "metrics.json").read_text())
    for name, value in recomputed(made).items():
        assert value == pytest.approx(metrics["test"][name], rel=1e-6), name
    assert json.loads((made.out / "labels.json").read_text())["classes"] == []


def test_best_yaml_is_a_study_file_that_trains_the_winner(made: Made) -> None:
    best = load_study(made.out / "best.yaml")
    chosen = made.config.settings(winner().params)
    (learning_rate,) = (parameter.grid() for parameter in best.search.values())
    assert learning_rate == [0.0123456789]
    assert best.settings({"learning_rate": 0.0123456789}) == chosen
    assert (best.trials, best.training.epochs, best.name) == (1, 3, "exported-best")
    assert prepare(best, made.prepared.cache.parent).fingerprint == made.prepared.fingerprint


@pytest.mark.slow
def test_best_yaml_of_an_epoch_within_a_schedule_keeps_the_schedule(tmp_path: Path) -> None:
    training = {"epochs": 6, "schedule": "cosine", "warmup": 4, "select": "best_epoch"}
    trial = winner()
    trial.intermediate_values = {1: 0.5, 2: 0.6, 3: 0.75, 4: 0.7}
    made = Made(tmp_path, study(tmp_path / "study", training=training), trial)
    assert made.finalized.result.epochs == 3
    best = load_study(made.out / "best.yaml")
    assert (best.training.epochs, best.training.select) == (6, "best_epoch")


@pytest.mark.slow
def test_paths_in_best_yaml_still_lead_to_the_users_files(tmp_path: Path) -> None:
    source = "import models\n\ndef build(input_shape, classes, dropout=0.0, width=4, depth=1):\n"
    source += "    return models.builder('mlp')(input_shape, classes, width=width, depth=depth)\n"
    config = study(tmp_path / "study", architecture="net.py:build")
    (tmp_path / "study" / "net.py").write_text(source)
    made = Made(tmp_path, config, winner())
    raw = yaml.safe_load((made.out / "best.yaml").read_text())
    assert raw["architecture"] == "../../study/net.py:build"
    assert raw["data"]["path"] == "../../study/table.csv"
    assert load_study(made.out / "best.yaml").settings({}).options["width"] == 8


def test_best_json_and_metrics_say_what_won(made: Made) -> None:
    best = json.loads((made.out / "best.json").read_text())
    assert (best["study"], best["number"], best["params"]) == ("exported", 7, winner().params)
    assert (best["metric"], best["value"]) == ("accuracy", 0.75)
    assert best["mean"] == made.finalized.result.winner.mean
    assert best["summary"] == {"complete": 1}
    metrics = json.loads((made.out / "metrics.json").read_text())
    assert metrics["seeds"]["accuracy"]["n"] == 2
    assert [candidate["number"] for candidate in metrics["candidates"]] == [7, None]
    assert [baseline["name"] for baseline in metrics["baselines"]] == [
        "logistic regression",
        "gradient boosting",
    ]
    labels = json.loads((made.out / "labels.json").read_text())
    assert (labels["classes"], labels["features"]) == (["no", "yes"], ["age", "colour"])


def test_no_file_is_a_pickle(made: Made) -> None:
    for path in made.out.iterdir():
        with pytest.raises(Exception):  # noqa: B017 (text and tensors fail in many ways)
            pickle.loads(path.read_bytes())


def test_second_export_replaces_the_first_and_keeps_the_users_own_files(made: Made) -> None:
    (made.out / "notes.txt").write_text("mine")
    (made.out / "report.html").write_text("stale")
    (made.out / "best.json").write_text((made.out / "best.json").read_text().replace("0.75", "0.1"))
    made.export()
    assert json.loads((made.out / "best.json").read_text())["value"] == 0.75
    assert {path.name for path in made.out.iterdir()} == {
        *REQUIRED,
        "predictions.safetensors",
        MANIFEST,
        "notes.txt",
    }
    assert [path.name for path in made.out.parent.iterdir()] == ["exported"], "nothing is left beside it"


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (
            {"best.json": '{"study": "another", "number": 1, "params": {}, "metric": "f1"}'},
            "results of study 'another'",
        ),
        ({"thesis.tex": "years of work"}, "something else"),
        ({"best.json": "[1, 2]"}, "something else"),
    ],
)
def test_folder_of_something_else_is_left_alone(
    made: Made, tmp_path: Path, content: dict[str, str], holds: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    with pytest.raises(HpoError, match=f"{out}: holds {holds}; choose another one for study 'exported'"):
        export(out, made.config, made.prepared, made.finalized, {})
    assert {path.name: path.read_text() for path in out.iterdir()} == content


def test_export_that_fails_leaves_the_earlier_results(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in made.out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hpo.results.export.save_file", full)
    with pytest.raises(HpoError, match=r"exported: cannot be written: .*No space left"):
        made.export()
    assert {path.name: path.read_bytes() for path in made.out.iterdir()} == before
    assert [path.name for path in made.out.parent.iterdir()] == ["exported"]
