"""Made-up studies to draw: with every state of a trial, a conditional parameter, and hostile names."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.config import StudyConfig
from hpo.data.prepared import Finding, Normalization, Part
from hpo.results.baselines import Baseline
from hpo.results.candidates import DEFAULTS, assess, choose, entrants
from hpo.results.compare import Compared, Comparison, paired
from hpo.results.confusions import confusions
from hpo.results.finalize import FinalResult
from hpo.results.findings import Subject
from hpo.results.latency import Hardware, Latency
from hpo.results.metrics import evaluate
from hpo.results.predictions import Predictions
from hpo.results.reported import Reported, told
from hpo.results.seeds import SeedStatistics
from hpo.search.submission import FINGERPRINT
from hpo.space import distributions, ordered

HOSTILE = "<script>alert(1)</script>"
SIZES = {"raw": 768, "train": 538, "validation": 115, "test": 115}
FINDINGS = (
    Finding(
        "unparsable", f"dataset.csv, row 12, column '{HOSTILE}': 'abc' is not a number; counts as missing"
    ),
    Finding("duplicate", "2 rows are repeated"),
)


def config(task: str = "classification", **changes: Any) -> StudyConfig:
    raw: dict[str, Any] = {
        "name": "example",
        "data": {"source": "csv", "path": "data/dataset.csv", "target": HOSTILE, "task": task},
        "metric": "accuracy" if task == "classification" else "rmse",
        "search": {
            "dropout": {"low": 0.0, "high": 0.7},
            "batch_size": {"choices": [16, 32, 64, 128]},
            "optimizer": {"choices": ["adam", "rmsprop", "sgd"]},
            "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "momentum": {"low": 0.0, "high": 0.95, "when": {"optimizer": ["sgd", "rmsprop"]}},
        },
        "training": {"epochs": 30},
    }
    return StudyConfig.model_validate(raw | changes)


def trials(study: StudyConfig, count: int, seed: int = 0) -> list[FrozenTrial]:
    generator = np.random.default_rng(seed)
    return [_trial(study, number, generator) for number in range(count)]


def _trial(study: StudyConfig, number: int, generator: np.random.Generator) -> FrozenTrial:
    params: dict[str, Any] = {}
    for name in ordered(study.search):
        parameter = study.search[name]
        parents = parameter.when or {}
        if all(params.get(parent) in wanted for parent, wanted in parents.items()):  # type: ignore[operator]
            choices = parameter.grid()
            if choices is not None:
                params[name] = choices[generator.integers(len(choices))]
            elif parameter.log:  # type: ignore[union-attr]
                params[name] = float(10 ** generator.uniform(-4, -1))
            else:
                params[name] = float(generator.uniform(parameter.low, parameter.high))  # type: ignore[union-attr]
    quality = 0.8 - 0.02 * (np.log10(params.get("learning_rate", 1e-3)) + 2.5) ** 2
    quality += 0.015 * (params.get("optimizer") == "adam") - 0.05 * params.get("dropout", 0) ** 2
    quality += generator.normal(0, 0.012)
    state = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED][number % 3]
    state = TrialState.FAIL if number % 17 == 16 else state
    epochs = {TrialState.COMPLETE: 30, TrialState.PRUNED: 5 + number % 8, TrialState.FAIL: 2}[state]
    if study.direction == "minimize":
        quality = 100 * (1 - quality)
    start = 0.6 * quality if study.direction == "maximize" else 2 * quality
    curve = {
        epoch: float(quality + (start - quality) * np.exp(-epoch / 5) + generator.normal(0, 0.004))
        for epoch in range(1, epochs + 1)
    }
    trial = create_trial(
        state=state,
        value=None if state is TrialState.FAIL else curve[epochs],
        params=params,
        distributions={name: found for name, found in distributions(study.search).items() if name in params},
        intermediate_values=curve,
        user_attrs={"failure": f"epoch 3: the training loss is nan {HOSTILE}"} if epochs == 2 else {},
    )
    trial.number = number
    trial.datetime_start = datetime(2026, 1, 1) + timedelta(seconds=number)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=epochs)
    return trial


def reported(
    study: StudyConfig, searched: list[FrozenTrial], final: FinalResult | None = None, **changes: Any
) -> Reported:
    """A made-up study as a report tells of it, audited without its data."""
    subject = Subject(study, searched, 0, {FINGERPRINT: "ab" * 32}, final, None, "there are no data")
    return replace(told(subject), **({"sizes": SIZES, "noticed": FINDINGS} | changes))


def result(study: StudyConfig, searched: list[FrozenTrial], classes: list[str]) -> FinalResult:
    """A final result with as many classes as named; none for regression."""
    generator = np.random.default_rng(1)
    best = entrants(study, searched)
    sign = 1 if study.direction == "maximize" else -1
    usual = best[0].value or 0.0
    values = {
        found.number: [
            (found.value or usual) * (1 - sign * 0.02 + generator.normal(0, 0.01)) for _ in range(10)
        ]
        for found in best
    }
    values[DEFAULTS] = [value * (1 - sign * 0.1) for value in values[DEFAULTS]]
    failures = {best[-2].number: "its training loss was not finite with seed 7"} if len(best) > 3 else {}
    candidates = assess(study, best, values, failures, 0.2)
    if classes:
        targets = generator.integers(0, len(classes), 115 if len(classes) < 10 else 1000)
        outputs = generator.normal(size=(len(targets), len(classes)))
        outputs[np.arange(len(targets)), targets] += 1.5
        test = evaluate("classification", outputs, targets, classes)
    else:
        numbers = generator.normal(150, 70, 115)
        test = evaluate("regression", numbers[:, None] + generator.normal(0, 40, (115, 1)), numbers)
    scalars = {name: value for name, value in test.scalars().items() if value is not None}
    return FinalResult(
        winner=choose(study, candidates),
        candidates=candidates,
        test=test,
        seeds={name: SeedStatistics(mean=value, std=0.01 * value, n=9) for name, value in scalars.items()},
        seed=0,
        failed_seeds=[12],
        epochs=30,
        parameters=4866,
        seconds=12.0,
        baselines=_baselines(scalars),
    )


def _baselines(scalars: dict[str, float]) -> tuple[Baseline, ...]:
    values = [0.7, 0.72, 0.71]
    beside = Baseline(
        name="logistic regression",
        how="standardized, C 1",
        values=values,
        mean=0.71,
        interval=(0.68, 0.74),
        lead=0.05,
        lead_interval=(0.01, 0.09),
        test=dict(scalars),
    )
    failed = beside.model_copy(
        update={"name": "gradient boosting", "mean": None, "out": f"it failed: {HOSTILE}"}
    )
    return beside, failed


def comparison(classes: list[str], names: tuple[str, ...] = ("narrow", "wide", "deep")) -> Comparison:
    """Made-up studies side by side; of classes, with confused ones."""
    study = config("classification" if classes else "regression")
    searched = trials(study, 30)
    generator = np.random.default_rng(3)
    size = 300
    targets = generator.integers(0, len(classes), size) if classes else generator.normal(150, 70, size)
    outputs = {}
    for skill, name in enumerate(names, 1):
        if classes:
            outputs[name] = generator.normal(size=(size, len(classes)))
            outputs[name][np.arange(size), targets] += skill
        else:
            outputs[name] = targets[:, None] + generator.normal(0, 60 / skill, (size, 1))
    base = result(study, searched, classes)
    results = {
        name: base.model_copy(update=_tested(scores, targets, classes)) for name, scores in outputs.items()
    }
    studies = [
        Compared(study.model_copy(update={"name": name}), found, 61.0, 10**number, LATENCIES)
        for number, (name, found) in enumerate(results.items(), 4)
    ]
    pairs = paired({name: found.predictions for name, found in results.items() if found.predictions})
    return Comparison(studies, pairs, size, Hardware("Example CPU @ 2 GHz", 1, "2.14"))


LATENCIES = {1: Latency(0.21, 0.2, 0.25, 50), 256: Latency(12.3, 11.9, 13.1, 50)}


def _tested(outputs: Any, targets: Any, classes: list[str]) -> dict[str, Any]:
    task = "classification" if classes else "regression"
    test = evaluate(task, outputs, targets, classes)
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(len(targets), 1, 8, 8)))
    part = Part(features, torch.from_numpy(targets))
    return {
        "test": test,
        "predictions": Predictions.of(task, outputs, targets, "0" * 64),
        "confusions": confusions(test, outputs, part, Normalization((100.0,), (50.0,))),
        "input_shape": (1, 8, 8),
        "retraining_seconds": 100.0,
    }
