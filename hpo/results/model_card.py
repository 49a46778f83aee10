"""The model card of a bundle: what the model is, what it was measured at, where it ends, how it is used."""

from collections.abc import Iterator, Mapping
from typing import Any

from hpo.config import CsvData, ImageData, SklearnData, StudyConfig
from hpo.data.prepared import PreparedData
from hpo.results.finalize import Finalized, FinalResult
from hpo.results.metrics import ClassificationMetrics
from hpo.results.network import USER_FILE
from hpo.results.summary import data_name, interval_text, number, re_evaluated, tested
from hpo.results.values import LABELS
from hpo.usercode import is_user_function

FINDINGS = 20
"""Of the data, listed one by one."""
FEW = 20
"""Test examples of a class, below which its figures say little."""


def model_card(
    config: StudyConfig, prepared: PreparedData, finalized: Finalized, environment: Mapping[str, Any]
) -> str:
    """Markdown."""
    result = finalized.result
    sections = {
        f"# {config.name}": _what(config, prepared, result),
        "## Data": _data(config, prepared),
        "## Measured": _measured(config, result),
        "## Limits": _limits(config, prepared, result, environment),
        "## Use": _use(config, prepared),
    }
    return "\n".join(f"{title}\n\n" + "\n".join(lines) + "\n" for title, lines in sections.items())


def _what(config: StudyConfig, prepared: PreparedData, result: FinalResult) -> Iterator[str]:
    what = f"one of {len(prepared.classes)} classes" if prepared.classes else "a number"
    yield (
        f"`{config.architecture}` with {result.parameters:,} parameters, which predicts {what} "
        f"from {_taken(config, prepared)}. It is the winner of an `hpo` study, retrained on train + "
        f"validation for {result.epochs} epochs with seed {result.seed}."
    )
    if prepared.classes:
        shown = ", ".join(f"`{name}`" for name in prepared.classes[:50])
        more = f" and {len(prepared.classes) - 50} more" if len(prepared.classes) > 50 else ""
        yield ""
        yield f"Classes: {shown}{more}."


def _taken(config: StudyConfig, prepared: PreparedData) -> str:
    shape = " x ".join(map(str, prepared.input_shape))
    if is_image(config):
        return f"images of {shape} (channels, height, width)"
    if prepared.feature_names:
        return f"{len(prepared.feature_names)} columns"
    return f"arrays of shape {shape}"


def is_image(config: StudyConfig) -> bool:
    """Whether examples are images as bytes, whose channels are normalized."""
    return isinstance(config.data, ImageData) or (isinstance(config.data, SklearnData) and config.data.images)


def _data(config: StudyConfig, prepared: PreparedData) -> Iterator[str]:
    sizes = ", ".join(f"{count:,} {part}" for part, count in prepared.sizes.items())
    yield f"* {data_name(config)}: rows: {sizes}."
    yield f"* Fingerprint: `{prepared.fingerprint}`."
    if prepared.feature_names:
        yield f"* Columns: {', '.join(f'`{name}`' for name in prepared.feature_names)}."
    for finding in prepared.findings[:FINDINGS]:
        yield f"* {finding.text}."
    if len(prepared.findings) > FINDINGS:
        yield f"* and {len(prepared.findings) - FINDINGS} more findings."


def _measured(config: StudyConfig, result: FinalResult) -> Iterator[str]:
    yield f"{tested(result)} {re_evaluated(config, result.winner)}"
    yield ""
    yield "| test metric | this model | 95 % interval | over retrainings |"
    yield "|---|---|---|---|"
    labels: Mapping[str, str] = {str(name): label for name, label in LABELS.items()}
    for name, value in result.test.scalars().items():
        interval = result.test.interval(name)
        within = interval_text(name, interval) if interval else ""
        spread = result.seeds.get(name)
        over = f"{number(name, spread.mean)}" if spread else ""
        if spread and spread.std is not None:
            over += f" ± {number(name, spread.std)} ({spread.n} seeds)"
        yield f"| {labels.get(name, name)} | {number(name, value)} | {within} | {over} |"


def _limits(
    config: StudyConfig, prepared: PreparedData, result: FinalResult, environment: Mapping[str, Any]
) -> Iterator[str]:
    yield (
        f"* The figures are of {result.test.n:,} examples that were held out of the same data. They say "
        "nothing of data that were gathered elsewhere, or later."
    )
    if (times := len(result.openings)) > 1:
        yield f"* The test set was opened {times} times: the figures may flatter the model."
    if isinstance(result.test, ClassificationMetrics):
        few = [f"`{found.name}` ({found.support})" for found in result.test.classes if found.support < FEW]
        if few:
            listed = ", ".join(few)
            yield f"* Classes with fewer than {FEW} test examples, whose figures say little: {listed}."
        known = result.test.calibration
        off = f": they are off by {known.ece:.3f} on average (expected calibration error)" if known else ""
        yield f"* The probabilities have not been calibrated{off}."
    weights = environment["weights"]
    if weights["tested"] and weights["tested"] != weights["here"]:
        yield (
            "* These weights were trained again on another machine, and are not to the bit those that were "
            "tested: the figures are of the tested ones."
        )
    yield from _input_limits(config, prepared)


def _input_limits(config: StudyConfig, prepared: PreparedData) -> Iterator[str]:
    if is_image(config):
        yield (
            "* Images of another size are refused unless the study gave `data.size`: they are then stretched."
        )
    elif isinstance(config.data, CsvData) and config.data.missing == "drop":
        yield "* Rows with missing cells are not predicted, as the study left them out."
    elif prepared.feature_names:
        yield "* Missing cells are filled in with statistics of the training data; the note names them."
    if prepared.feature_names:
        yield "* A category that the training data lack counts as none of the known ones; the note names it."


def _use(config: StudyConfig, prepared: PreparedData) -> Iterator[str]:
    own = is_user_function(config.architecture)
    function = config.architecture.rpartition(":")[2]
    told = f" --architecture {USER_FILE}:{function}" if own else ""
    given = f', architecture="{USER_FILE}:{function}"' if own else ""
    example = (
        "images/ photo.png" if is_image(config) else "table.csv" if prepared.feature_names else "array.npy"
    )
    yield "In this folder, with `hpo` installed:"
    yield ""
    yield "```sh"
    yield f"hpo predict . {example}{told}"
    yield "hpo run config.yaml --storage sqlite:///again.db   # the whole study again"
    yield "hpo run best.yaml --storage sqlite:///again.db     # the winner's parameters alone"
    yield "```"
    yield ""
    yield "```python"
    yield "import hpo"
    yield ""
    yield f'predictions = hpo.load_bundle("."{given}).predict("{example.split()[0]}")'
    yield "```"
    yield ""
    yield "Paths of data in `config.yaml` and `best.yaml` are relative to where this folder was written."
    if own:
        yield (
            f"`{USER_FILE}` is the code that builds the network. Loading the bundle does not run it: "
            "read it, and name it as above if you trust it."
        )
    yield "`model.onnx`, where there is one, says in its metadata what it takes and gives."
