"""What is recorded of the exported model's answers."""

import base64
import io

import numpy as np
import pytest
import torch
from conftest import study_of
from PIL import Image

from hpo.config import StudyConfig
from hpo.data.cache import load_rows, sealed_digest
from hpo.data.parts import final_training, open_sealed
from hpo.data.prepare import prepare
from hpo.data.prepared import Normalization, Part
from hpo.results import predictions as predictions_module
from hpo.results.confusions import MAX_IMAGES, MAX_PAIRS, MAX_SIDE, confusions
from hpo.results.metrics import evaluate
from hpo.results.predictions import Predictions

NORMALIZATION = Normalization((100.0,), (50.0,))


def test_classes_and_numbers_come_back_as_they_were() -> None:
    outputs, targets = torch.tensor([[0.1, 2.0], [3.0, 1.0], [0.0, 0.5]]), torch.tensor([1, 0, 0])
    found = Predictions.of("classification", outputs, targets, "abc")
    again = Predictions.model_validate_json(found.model_dump_json())
    predicted, truth = again.arrays()
    assert (predicted.tolist(), truth.tolist(), again.n, again.test) == ([1, 0, 1], [1, 0, 0], 3, "abc")
    numbers = Predictions.of("regression", torch.tensor([[0.1], [2.5]]), torch.tensor([0.25, 3e30]), "")
    assert [array.tolist() for array in numbers.arrays()] == [
        [pytest.approx(0.1), 2.5],
        [0.25, pytest.approx(3e30)],
    ]


def test_of_a_large_test_part_evenly_spread_examples_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions_module, "MAX_EXAMPLES", 5)
    found = Predictions.of("regression", torch.arange(9.0)[:, None], torch.arange(9.0), "")
    assert found.arrays()[0].tolist() == [0, 2, 4, 6, 8]


def test_ten_thousand_predictions_of_36_classes_take_a_few_kilobytes() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 36, 14_400)
    found = Predictions.of("classification", np.eye(36)[targets], targets, "")
    assert len(found.model_dump_json()) < 50_000


def digits(**changes: object) -> StudyConfig:
    text = "data: {source: sklearn, name: digits, images: true}\nsearch: {dropout: {low: 0.0, high: 0.5}}"
    return study_of(text).model_copy(update=changes)


def test_the_digest_is_of_the_sealed_rows_alone_and_does_not_open_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, other = (
        prepare(digits()),
        prepare(study_of("data: {source: sklearn, name: digits}\nsearch: {dropout: {low: 0.0, high: 0.5}}")),
    )
    monkeypatch.setattr("hpo.data.cache.safe_open", lambda *_, **__: pytest.fail("a file was opened"))
    assert len(sealed_digest(one)) == 64
    assert sealed_digest(one) != sealed_digest(other), "images, and rows of numbers"


def test_studies_that_validate_differently_have_the_same_test_part() -> None:
    text = "data: {source: sklearn, name: wine}\nsearch: {dropout: {low: 0.0, high: 0.5}}\n"
    one = prepare(study_of(text + "validation: {folds: 3}"))
    other = prepare(study_of(text + "validation: {fraction: 0.2}"))
    assert one.fingerprint != other.fingerprint
    assert sealed_digest(one) == sealed_digest(other)
    reseeded = prepare(study_of(text + "training: {seed: 5}"))
    assert sealed_digest(one) != sealed_digest(reseeded), "other rows are sealed"


def made(counts: dict[tuple[int, int], int], channels: int = 1, side: int = 8) -> tuple[torch.Tensor, Part]:
    """Logits and test images: so many of one class taken for another; the logits' margins grow."""
    pairs = [pair for pair, count in counts.items() for _ in range(count)]
    outputs = torch.zeros(len(pairs), 3)
    for row, (_, predicted) in enumerate(pairs):
        outputs[row, predicted] = 1 + row
    pixels = torch.arange(len(pairs)).float().add(10)[:, None, None, None].expand(-1, channels, side, side)
    features = (pixels - 100) / 50
    return outputs, Part(features, torch.tensor([true for true, _ in pairs]))


def test_most_confused_pairs_come_by_name_with_the_surest_examples() -> None:
    outputs, test = made({(0, 0): 5, (1, 1): 5, (2, 2): 235, (0, 1): 6, (1, 0): 2})
    metrics = evaluate("classification", outputs, test.targets, ["a", "b", "c"])
    first, second = confusions(metrics, outputs, test, NORMALIZATION)
    assert (first.true, first.predicted, first.count, first.of) == ("a", "b", 6, 11)
    assert (second.true, second.predicted, second.count, len(second.images)) == ("b", "a", 2, 2)
    assert len(first.images) == MAX_IMAGES
    shown = [Image.open(io.BytesIO(base64.b64decode(image))) for image in first.images]
    brightest = len(test) + 9
    expected = [round((10 + row) * 255 / brightest) for row in (250, 249, 248, 247)]
    assert [image.getpixel((0, 0)) for image in shown] == expected
    assert all(image.size == (8, 8) and image.mode == "L" for image in shown)


def test_large_images_in_colour_are_made_small_and_rows_of_a_table_have_none() -> None:
    outputs, test = made({(0, 0): 1, (1, 2): 9, (2, 1): 1}, channels=3, side=200)
    metrics = evaluate("classification", outputs, test.targets, ["a", "b", "c"])
    found = confusions(metrics, outputs, test, Normalization((100.0,) * 3, (50.0,) * 3))
    image = Image.open(io.BytesIO(base64.b64decode(found[0].images[0])))
    assert (image.size, image.mode) == ((MAX_SIDE, MAX_SIDE), "RGB")
    assert confusions(metrics, outputs, test, None)[0].images == ()


def test_no_more_than_a_few_pairs_are_kept_and_none_of_a_regressor() -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 10, 500)
    outputs = generator.normal(size=(500, 10))
    part = Part(torch.zeros(500, 2), torch.from_numpy(targets))
    metrics = evaluate("classification", outputs, targets, [str(name) for name in range(10)])
    assert len(confusions(metrics, outputs, part, None)) == MAX_PAIRS
    right = evaluate("classification", np.eye(10)[targets], targets, list("0123456789"))
    assert confusions(right, np.eye(10)[targets], part, None) == ()
    assert confusions(evaluate("regression", outputs[:, :1], targets), outputs[:, :1], part, None) == ()


def test_recorded_images_are_those_of_the_data() -> None:
    config = digits()
    prepared = prepare(config)
    training = final_training(config, prepared)
    test = open_sealed(prepared, training)
    outputs = torch.zeros(len(test), 10)
    outputs[:, 3] = 1  # takes everything for a 3
    metrics = evaluate("classification", outputs, test.targets, prepared.classes)
    found = confusions(metrics, outputs, test, training.normalization)[0]
    rows = load_rows(prepared, "test.safetensors")
    originals = np.asarray(rows.features)[rows.targets == prepared.classes.index(found.true)][:, 0]
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(found.images[0]))))
    assert np.array_equal(drawn, (originals[0] * (255 / 16)).round())
