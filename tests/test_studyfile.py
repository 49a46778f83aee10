"""Reading study files: what is read, and what each mistake is told."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, study_of

from hpo.errors import StudyFileError
from hpo.studyfile import json_schema, load_study, parse_study
from hpo.yamltext import read_yaml

STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))
SEARCH = "search: {learning_rate: {low: 1e-4, high: 1e-1, log: true}}\n"


def told(text: str, folder: Path = ROOT) -> list[str]:
    """The lines that the mistakes of a study file come to."""
    with pytest.raises(StudyFileError) as caught:
        study_of(text, folder)
    first, *lines = str(caught.value).split("\n")
    count = len(caught.value.mistakes)
    assert first == f"study.yaml: {count} mistake{'s' * (count > 1)}"
    assert len(lines) == count
    return [line.removeprefix("  ") for line in lines]


def told_file(path: Path) -> str:
    with pytest.raises(StudyFileError) as caught:
        load_study(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trials: 0", "trials: must be 1 or more, not 0"),
        ("trials: 1.5", "trials: must be a whole number, not 1.5"),
        ("trials: true", "trials: must be a whole number, not true"),
        ("trials: '5'", "trials: must be a whole number, not '5'"),
        ("hours: .nan", "hours: must be a finite number, not nan"),
        ("hours: .inf", "hours: must be a finite number, not inf"),
        ("metric: acuracy", "metric: must be accuracy, f1, roc_auc, loss, rmse, mae or r2, not 'acuracy'; did you mean 'accuracy'?"),
        ("training: 5", "training: must be a mapping, not 5"),
        ("training: {epochs: 1.5}", "training.epochs: must be a whole number, not 1.5"),
        ("training: {precision: half}", "training.precision: must be auto, float32 or bfloat16, not 'half'"),
        ("training: {compile: true}", "training.compile: must be auto, on or off, not true"),
        ("training: {momentum: 1}", "training.momentum: must be below 1, not 1"),
        ("training: {learning_rate: 0}", "training.learning_rate: must be above 0, not 0"),
        ("training: {nesterov: yes}", "training.nesterov: must be true or false, not 'yes'"),
        ("training: {label_smoothing: 1}", "training.label_smoothing: must be below 1, not 1"),
        ("training: {schedule: linear}", "training.schedule: must be constant, cosine or one_cycle, not 'linear'"),
        ("training: {epochs: 5, warmup: 5}", "training.warmup: must be below training.epochs (5), not 5.0"),
        ("training: {ema_decay: 1}", "training.ema_decay: must be below 1, not 1"),
        ("training: {ema: 0.9}", "training.ema: unknown key; did you mean 'ema_decay'? valid: batch_size, optimizer, learning_rate, weight_decay, momentum, nesterov, schedule, warmup, label_smoothing, ema_decay, shift, rotation, scale, cutout, horizontal_flip, epochs, seed, select, precision, compile"),
        ("training: {label_smoothing: 0.1}\nmetric: rmse\ndata: {source: sklearn, name: diabetes}", "training.label_smoothing: must be 0: a regression has no labels, not 0.1"),
        ("training: {shift: 0.6}", "training.shift: must be at most 0.5, not 0.6"),
        ("training: {shift: 0.1}", "training.shift: must be left out: breast_cancer is no set of images, not 0.1"),
        ("training: {horizontal_flip: true}\ndata: {source: csv, path: x, target: y}", "training.horizontal_flip: must be left out: csv is no set of images, not true"),
        ("training: {cutout: 0.5}\ndata: {source: sklearn, name: digits}", "training.cutout: must be left out: digits is no set of images, not 0.5; it is one with data.images: true"),
        ("training: {seed: -1}", "training.seed: must be 0 or more, not -1"),
        ("final: {sedes: 3}", "final.sedes: unknown key; did you mean 'seeds'? valid: top, seeds"),
        ("epochs: 3", "epochs: unknown key; did you mean 'training.epochs'?"),
        ("validation: {folds: 1}", "validation.folds: must be 2 or more, not 1"),
        ("validation: {fraction: 0.1, folds: 3}", "validation.fraction: unknown key; valid: folds"),
        ("validation: 5", "validation: must be {fraction: …} or {folds: …}, not 5"),
        ("data: 3", "data: must be a mapping with a source (csv, sklearn, idx, folder, torchvision, path/to/file.py:load), not 3"),
        ("data: {source: cvs, path: x}", "data.source: must be csv, sklearn, idx, folder, torchvision or path/to/file.py:load, not 'cvs'; did you mean 'csv'?"),
        ("data: {source: csv, path: x.csv}", "data.target: missing; the column to predict"),
        ("data: {source: csv, path: x.csv, target: 8}", "data.target: must be text, not 8; write it in quotes"),
        ("data: {source: csv, path: x, target: y, ignore: id}", "data.ignore: must be a list, not 'id'"),
        ("data: {source: nowhere.py:load}", f"data.source: 'nowhere.py:load': there is no file {ROOT / 'nowhere.py'}"),
        ("data: {source: sklearn, name: iris, task: regression}", "data.task: must be classification, as iris is for that, not 'regression'"),
        ("sampler: tpee", "sampler: must be tpe, gp, random, qmc or grid, not 'tpee'; did you mean 'tpe'?"),
        ("sampler: {seed: 3}", "sampler.name: must be tpe, gp, random, qmc or grid"),
        ("sampler: {name: tpe, startup: 3}", "sampler.startup: unknown key; did you mean 'startup_trials'? valid: name, seed, startup_trials, multivariate"),
        ("pruner: {name: ash}", "pruner.name: must be median, asha, hyperband, patient or none, not 'ash'; did you mean 'asha'?"),
        ("pruner: {name: asha, min_epochs: 31}", "pruner.min_epochs: must be at most training.epochs (30), not 31"),
        ("architecture: mpl", "architecture: must be mlp, cnn, vgg11, vgg13, vgg16, resnet or path/to/file.py:build, not 'mpl'; did you mean 'mlp'?"),
        ("options: {width: 3.5}", "options.width: must be a whole number, not 3.5"),
        ("options: {dropout: 2}", "options.dropout: must be 0 or more and below 1, not 2"),
        ("options: {witdh: 3}", "options.witdh: unknown option; did you mean 'width'? valid: width, depth, dropout"),
        ("options: {momentum: 0.5}", "options.momentum: is no option of the architecture; write it as training.momentum"),
        ("validation: {fraction: 0.9}", "validation.fraction: must be below 0.85 (1 - data.test_fraction): else no row is left to train on, not 0.9"),
        ("metric: rmse", "metric: must be one of accuracy, f1, roc_auc, loss (the data are for classification), not 'rmse'"),
        ("training: {nesterov: true, optimizer: sgd}", "training.momentum: must be above 0 with nesterov: true, not 0.0"),
        ("name: 'a b'", "name: must match ^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$, not 'a b'; the study's name in the database: letters, digits, dots, dashes, underscores"),
        ("trials: " + "9" * 200, "trials: must be a whole number within ±9007199254740992, not a number of about 200 digits"),
        ('"a\\nb": 1', "a b: unknown key; valid: name, data, validation, metric, architecture, options, search, training, trials, hours, sampler, pruner, warm_start, constraints, final"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_key_the_bad_value_and_what_is_valid(text: str, line: str) -> None:
    assert told(SEARCH + text) == [line]


@pytest.mark.parametrize(
    ("search", "line"),
    [
        ("{dropout: {low: a, high: 0.5}}", "search.dropout.low: must be a number, not 'a'"),
        ("{dropout: {low: true, high: 0.5}}", "search.dropout.low: must be a number, not true"),
        ("{dropout: {low: 0, high: .inf}}", "search.dropout.high: must be a finite number, not inf"),
        ("{dropout: {low: 0, high: 1}}", "search.dropout.high: must be 0 or more and below 1, not 1"),
        ("{dropout: 0.5}", "search.dropout: must be {low: …, high: …} or {choices: […]}, not 0.5"),
        ("{width: {low: 1}}", "search.width.high: missing; the largest value"),
        ("{width: {low: 9, high: 8}}", "search.width.low: must be below high (8), not 9"),
        ("{width: {low: 1, high: 9, step: 3}}", "search.width.step: must divide high - low (8), not 3"),
        ("{width: {low: 1, high: 9, step: 0}}", "search.width.step: must be above 0, not 0"),
        ("{width: {low: 1, high: 3, step: 5}}", "search.width.step: must be at most high - low (2), not 5"),
        ("{width: {low: 1, high: 9, hihg: 5}}", "search.width.hihg: unknown key; did you mean 'high'? valid: low, high, log, step, when"),
        ("{width: {low: 1, high: 9, log: true, step: 1}}", "search.width.step: excludes log: true"),
        ("{weight_decay: {low: 0, high: 1, log: true}}", "search.weight_decay.low: must be above 0 with log: true, not 0"),
        ("{width: {low: 1, high: 9, log: 1}}", "search.width.log: must be true or false, not 1"),
        ("{width: {low: 0.5, high: 9}}", "search.width.low: must be a whole number, not 0.5"),
        ("{width: {low: 1, high: 9, step: 0.5}}", "search.width.step: must be a whole number, not 0.5"),
        ("{width: {low: 1, high: 99999999999999999999}}", "search.width.high: must be a whole number within ±9007199254740992, not 99999999999999999999"),
        ("{width: {choices: []}}", "search.width.choices: must not be empty, not []"),
        ("{width: {choices: [1, null]}}", "search.width.choices[1]: must be text, a number, true or false, not null"),
        ("{width: {choices: [1, {a: b}]}}", "search.width.choices[1]: must be text, a number, true or false, not {a: 'b'}"),
        ("{width: {choices: [1, 2, 1]}}", "search.width.choices[2]: must differ from choices[0], not 1"),
        ("{width: {choices: [1, x]}}", "search.width.choices[1]: must be a whole number, not 'x'"),
        ("{nesterov: {choices: [true, no]}}", "search.nesterov.choices[1]: must be true or false, not 'no'"),
        ("{batch_size: {choices: [0, 32]}}", "search.batch_size.choices[0]: must be 1 or more, not 0"),
        ("{momentum: {low: 0, high: 1}}", "search.momentum.high: must be below 1, not 1"),
        ("{optimizer: {choices: [adam, Sgd]}}", "search.optimizer.choices[1]: must be adam, adamw, rmsprop or sgd, not 'Sgd'; did you mean 'sgd'?"),
        ("{optimizer: {low: 1, high: 2}}", "search.optimizer: must be {choices: […]} of adam, adamw, rmsprop, sgd, not {low: 1, high: 2}"),
        ("{label_smoothing: {low: 0, high: 1}}", "search.label_smoothing.high: must be below 1, not 1"),
        ("{warmup: {low: 0, high: 40}}", "search.warmup.high: must be below training.epochs (30), not 40"),
        ("{warmup: {choices: [1, 30]}}", "search.warmup.choices[1]: must be below training.epochs (30), not 30"),
        ("{rotation: {low: 0, high: 20}}", "search.rotation: must be left out: breast_cancer is no set of images"),
        ("3", "search: must be a mapping, not 3"),
        ("{}", "search: must not be empty, not {}"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_parameter_is_one_line(search: str, line: str) -> None:
    assert told(f"search: {search}") == [line]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("lr", "learning_rate"),
        ("bs", "batch_size"),
        ("wd", "weight_decay"),
        ("opt", "optimizer"),
        ("Dropout", "dropout"),
        ("batch-size", "batch_size"),
        ("learning_rte", "learning_rate"),
    ],
)
def test_common_and_mistyped_names_are_recognized(written: str, meant: str) -> None:
    [line] = told(f"search: {{{written}: {{low: 0.1, high: 0.5}}}}")
    assert line.startswith(f"search.{written}: unknown parameter; did you mean {meant!r}? valid: batch_size,")


@pytest.mark.parametrize(
    ("when", "line"),
    [
        ("{optimiser: sgd}", "search.momentum.when.optimiser: unknown searched parameter; did you mean 'optimizer'? valid: optimizer, learning_rate"),
        ("{optimizer: sgdd}", "search.momentum.when.optimizer: must be adam or sgd, not 'sgdd'; did you mean 'sgd'?"),
        ("{optimizer: [sgd, x]}", "search.momentum.when.optimizer: must be adam or sgd, not 'x'"),
        ("{optimizer: []}", "search.momentum.when.optimizer: must not be empty, not []"),
        ("{optimizer: {a: 1}}", "search.momentum.when.optimizer: must be text, a number, true or false, not {a: 1}"),
        ("{learning_rate: 0.1}", "search.momentum.when.learning_rate: search.learning_rate has no countable values to depend on"),
        ("{momentum: 0.1}", "search.momentum.when.momentum: unknown searched parameter; valid: optimizer, learning_rate"),
        ("sgd", "search.momentum.when: must be a mapping, not 'sgd'"),
    ],
)  # fmt: skip
def test_a_condition_names_a_searched_parameter_and_a_value_that_it_may_have(when: str, line: str) -> None:
    search = "optimizer: {choices: [adam, sgd]}, learning_rate: {low: 0.1, high: 0.2}"
    assert told(f"search: {{{search}, momentum: {{low: 0.1, high: 0.9, when: {when}}}}}") == [line]


def test_conditions_in_a_circle_are_named() -> None:
    search = "{width: {choices: [1, 2], when: {depth: 1}}, depth: {choices: [1, 2], when: {width: 1}}}"
    assert told(f"search: {search}") == ["search: the conditions of width, depth form a circle"]


def test_all_mistakes_come_at_once_and_each_once() -> None:
    lines = told(
        """
        name: x
        data: {source: sklearn, name: breast_cancr}
        metric: acuracy
        search:
          dropout: {low: 0, high: 1}
          bs: [1, 2]
          momentum: {low: x, high: 0.9, when: {bs: 1}}
          width: {low: 4, high: 8, when: {momentum: 1}}
        training: {epochs: 10}
        pruner: {name: asha, min_epochs: 11}
        """
    )
    keys = ["data.name", "metric", "pruner.min_epochs", "search.bs", "search.bs", "search.dropout.high"]
    assert sorted(line.split(": ")[0] for line in lines) == [*keys, "search.momentum.low"]


def test_values_of_a_mistake_are_short() -> None:
    [line] = told(f"{SEARCH}trials: {{{', '.join(f'key{index}: {index}' for index in range(1000))}}}")
    assert line.startswith("trials: must be a whole number, not {key0: 0, key1: 1, ")
    assert line.endswith("…")
    assert len(line) < 110


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "trials", "line"),
    [
        ("{width: {low: 1, high: 5}}", 10, "trials: must be 5, the points of the grid, not 10"),
        ("{width: {low: 1, high: 5}}", None, "trials: must be 5, the points of the grid"),
        ("{dropout: {low: 0, high: 0.5}}", 10, "search.dropout: must have choices, whole numbers or a step, at most a million values, for sampler grid"),
        ("{width: {low: 1, high: 9999999}}", 10, "search.width: must have choices, whole numbers or a step, at most a million values, for sampler grid"),
        ("{width: {low: 1, high: 1001}, depth: {low: 1, high: 1001}}", 10, "search: a grid of more than 1000000 points"),
    ],
)  # fmt: skip
def test_a_grid_must_have_as_many_points_as_trials(space: str, trials: int | None, line: str) -> None:
    text = f"search: {space}\nsampler: grid\n" + (f"trials: {trials}\n" if trials else "")
    assert told(text) == [line]


def test_a_file_that_is_missing_names_its_nearest_neighbour(tmp_path: Path) -> None:
    (tmp_path / "mlp.yaml").touch()
    for name in ("mpl.yaml", "mlp", "mlp.yml"):
        message = told_file(tmp_path / name)
        expected = f"file: there is no such file; did you mean '{tmp_path / 'mlp.yaml'}'?"
        assert message == f"{tmp_path / name}: 1 mistake\n  {expected}"
    assert told_file(tmp_path / "other.yaml").endswith(f"no such file; {tmp_path} has mlp.yaml")
    nowhere = tmp_path / "nowhere"
    assert told_file(nowhere / "x.yaml").endswith(f"no such file, nor a folder {nowhere}")
    assert told_file(tmp_path).endswith(f"file: is a folder; {tmp_path} has mlp.yaml")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "file: is empty; it needs at least name, data and search"),
        (b"# nothing but this\n", "file: is empty; it needs at least name, data and search"),
        (b"- a\n- b\n", "file: must be a mapping with at least the keys name, data and search, not ['a', 'b']"),
        (b"name", "file: must be a mapping with at least the keys name, data and search, not 'name'"),
        (b"\x89PNG\r\n\x1a\n", "file: is no text in UTF-8: byte 0 is 0x89"),
        (b"name: \x00", "file: character 0x0 at position 6"),
        (b"name: x\nname: y\n", "line 2, column 1: key 'name' stands twice (first in line 1)"),
        (b"#" * 300_000, "file: is no study file: it has 300000 bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_study_file_says_so(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    assert told_file(path) == f"{path}: 1 mistake\n  {line}"


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + STUDIES[0].read_bytes())
    assert load_study(path).name == load_study(STUDIES[0]).name


def test_keys_that_are_no_text_are_told_in_python_too() -> None:
    raw: dict[Any, Any] = {"name": "x", 1: 2, "search": {2: {"choices": [1, 2]}}}
    with pytest.raises(StudyFileError) as caught:
        parse_study(raw, "here", ROOT)
    assert {str(mistake) for mistake in caught.value.mistakes} >= {"[1]: keys must be text"}


SCHEMA = json_schema()


def mistakes(schema: Any, content: Any) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


def test_the_schema_is_a_json_schema() -> None:
    assert mistakes(jsonschema.Draft202012Validator.META_SCHEMA, SCHEMA) == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_schema_accepts_what_is_shipped(path: Path) -> None:
    assert mistakes(SCHEMA, read_yaml(path.read_text())) == []


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("", True),
        ("sampler: gp\npruner: {name: patient, patience: 3}", True),
        ("validation: {folds: 5}\narchitecture: own/net.py:build", True),
        ("data: {source: own/load.py:load, options: {rows: [1, 2]}}", True),
        ("sampler: {name: random, seed: 3}", True),
        ("sampler: {seed: 3}", False),
        ("sampler: tpee", False),
        ("sampler: {name: tpe, seed: -3}", False),
        ("pruner: {name: patient, min_epochs: 3}", False),
        ("architecture: mpl", False),
        ("validation: {folds: 1}", False),
        ("data: {source: csv, path: x}", False),
        ("data: {source: idx, path: x, class_names: ABC, classes: [0, 3]}", True),
        ("data: {source: idx, path: x, classes: [0, 3, 5]}", False),
        ("data: {source: folder, path: x, size: 32}", True),
        ("data: {source: folder, path: x, size: [32]}", False),
        ("data: {source: torchvision, name: EMNIST, split: balanced}", True),
        ("data: {source: torchvision, name: mnist}", False),
        ("trials: 0", False),
        ("colour: red", False),
        ("search: {dropout: {low: 0}}", False),
        ("search: {dropout: {low: 0, high: 1, step: 0}}", False),
        ("search: {dropout: {choices: [null]}}", False),
    ],
)
def test_the_schema_tells_right_from_wrong(text: str, valid: bool) -> None:
    raw = {"name": "x", "data": {"source": "sklearn", "name": "wine"}} | read_yaml(SEARCH)
    assert (mistakes(SCHEMA, raw | (read_yaml(text) or {})) == []) is valid


def test_the_schema_describes_every_key() -> None:
    sections = {"": SCHEMA} | SCHEMA["$defs"]
    assert len(sections) > 15
    for name, section in sections.items():
        for key, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, f"{name}.{key}"
    # A constraint that pydantic could not translate stands there under its own name.
    text = json.dumps(SCHEMA)
    assert not [word for word in ('"ge":', '"gt":', '"le":', '"lt":') if word in text]
    assert SCHEMA["$schema"].endswith("2020-12/schema")
