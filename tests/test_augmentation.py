"""Distorted training images: what is done to them, keyed by lane and epoch, and in training alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, study_of
from image_files import study, write_idx
from test_cohort import NETWORKS, Bench, curves, lane
from test_studyfile import told
from torch import Tensor

import models
from hpo.config import Hyperparameters, StudyConfig, TrialSettings
from hpo.data.parts import final_training, fresh_folds
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.errors import DataError
from hpo.options import options_of
from hpo.training.architecture import Architecture
from hpo.training.augmentation import Augmentation, Distortions
from hpo.training.cohort import Cohort
from hpo.training.device_data import DeviceData
from hpo.training.lane import Lane, LaneKey

STRONG: dict[str, Any] = {
    "shift": 0.2,
    "rotation": 40.0,
    "scale": 0.3,
    "cutout": 0.5,
    "horizontal_flip": True,
}


def lanes(*settings: dict[str, Any]) -> list[Hyperparameters]:
    return [Hyperparameters.model_validate(lane) for lane in settings]


def augmentation(*settings: dict[str, Any], shape: tuple[int, ...] = (1, 8, 8)) -> Augmentation:
    return Augmentation(lanes(*settings), shape, torch.float64)


def drawn(found: Augmentation, count: int = 1, steps: int = 2, batch: int = 500) -> Distortions:
    distortions = found.drawn([(LaneKey(trial), 1) for trial in range(count)], steps, batch)
    assert distortions is not None
    return distortions


def images(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def by_hand(matrix: list[list[float]], x: Tensor) -> Tensor:
    """`x`, [B, C, H, W], moved by this matrix."""
    moves = torch.tensor(matrix, dtype=torch.float64).expand(1, 1, len(x), 2, 3)
    found = augmentation({"shift": 0.1}, shape=tuple(x.shape[1:]))
    return found(x[None].clone(), Distortions(moves, torch.zeros(1, 1, len(x), 2)), 0)[0]


# --- what is done


def test_images_are_sampled_as_torch_samples_them() -> None:
    found = augmentation(STRONG | {"cutout": 0}, shape=(3, 5, 9))
    distortions, x = drawn(found, batch=20), images(1, 20, 3, 5, 9)
    grid = F.affine_grid(distortions.moves[1, 0], [20, 3, 5, 9], align_corners=False)
    expected = F.grid_sample(x[0], grid, padding_mode="border", align_corners=False)
    assert torch.allclose(found(x.clone(), distortions, 1)[0], expected, atol=1e-12)


def test_a_shift_moves_pixels_and_repeats_the_edge() -> None:
    x = images(2, 1, 4, 5)
    moved = by_hand([[1, 0, 2 * 1 / 5], [0, 1, -2 * 1 / 4]], x)  # from a pixel to the right, and one above
    expected = F.pad(x, (0, 1, 1, 0), mode="replicate")[..., :4, 1:]
    assert torch.allclose(moved, expected, atol=1e-12)


def test_half_a_turn_is_the_image_upside_down() -> None:
    x = images(2, 3, 4, 7)
    assert torch.allclose(by_hand([[-1, 0, 0], [0, -1, 0]], x), x.flip(2, 3), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 15)])
def test_angles_and_factors_are_within_their_strengths_and_keep_shapes(shape: tuple[int, ...]) -> None:
    strengths = {"rotation": 30.0, "scale": 0.25, "shift": 0.1}
    moves = drawn(augmentation(strengths, shape=shape)).moves.flatten(0, 2)
    pixels = torch.tensor([shape[-1], shape[-2]], dtype=torch.float64)  # x, y: from edges to pixels
    turned = moves[:, :, :2] * pixels[:, None] / pixels
    factor = turned.det().rsqrt()
    angle = torch.atan2(turned[:, 1, 0], turned[:, 0, 0])
    expected = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1) / factor[:, None]
    assert torch.allclose(turned.flatten(1), expected, atol=1e-6), "a shape of pixels must stay one"
    assert_uniform(angle.rad2deg(), 30)
    assert_uniform(factor - 1, 0.25)
    assert_uniform(moves[:, 0, 2] / 2, 0.1)
    assert_uniform(moves[:, 1, 2] / 2, 0.1)


def assert_uniform(values: Tensor, strength: float) -> None:
    """Between ± strength."""
    assert 0.97 * strength < values.max() <= strength * (1 + 1e-5)
    assert -0.97 * strength > values.min() >= -strength * (1 + 1e-5)
    assert values.mean().abs() < 5 * strength / math.sqrt(3 * len(values))


def test_a_flip_mirrors_half_of_the_images() -> None:
    found = augmentation({"horizontal_flip": True}, shape=(2, 4, 5))
    x = images(1, 500, 2, 4, 5)
    flipped = found(x.clone(), drawn(found), 0)[0]
    mirrored = torch.isclose(flipped, x[0].flip(3)).flatten(1).all(1)
    assert (mirrored | torch.isclose(flipped, x[0]).flatten(1).all(1)).all()
    assert 190 < mirrored.sum() < 310


def test_cutout_blanks_one_box_of_the_size_that_it_says_and_nothing_else() -> None:
    found = augmentation({"cutout": 0.5}, shape=(2, 8, 12))
    x = images(1, 500, 2, 8, 12) + 1
    cut = found(x.clone(), drawn(found), 0)[0]
    gone = cut == 0
    assert torch.equal(cut[~gone], x[0][~gone])
    assert torch.equal(gone[:, 0], gone[:, 1]), "all channels"
    rows, columns = gone[:, 0].any(2), gone[:, 0].any(1)
    assert torch.equal(gone[:, 0], rows[:, :, None] & columns[:, None])
    assert (rows.sum(1).max(), columns.sum(1).max()) == (4, 6)
    assert (rows.sum(1).min(), columns.sum(1).min()) == (2, 3), "its centre is never outside"
    assert gone.any(0).all(), "any place can go"


def test_images_without_channels_are_distorted_like_those_of_one() -> None:
    flat, deep = augmentation(STRONG, shape=(6, 7)), augmentation(STRONG, shape=(1, 6, 7))
    x = images(1, 9, 6, 7)
    one = flat(x.clone(), drawn(flat, batch=9), 1)
    other = deep(x[:, :, None].clone(), drawn(deep, batch=9), 1)
    assert torch.equal(one, other[:, :, 0])


# --- whose


def test_lanes_that_leave_images_alone_are_not_touched_and_pay_nothing() -> None:
    x = images(3, 5, 1, 8, 8)
    nothing = augmentation({}, {"label_smoothing": 0.1}, {"cutout": 0.0})
    assert nothing.drawn([(LaneKey(trial), 1) for trial in range(3)], 2, 5) is None
    assert nothing(x, None, 0) is x
    some = augmentation({}, STRONG, {})
    changed = some(x.clone(), drawn(some, 3, batch=5), 0)
    assert torch.equal(changed[[0, 2]], x[[0, 2]])
    assert not torch.isclose(changed[1], x[1]).flatten(1).all(1).any()


def test_what_happens_depends_on_lane_and_epoch_alone() -> None:
    found = augmentation(*[STRONG] * 4)
    keys = [LaneKey(1, 0, 0), LaneKey(2, 0, 0), LaneKey(1, 1, 0), LaneKey(1, 0, 5)]
    together = found.drawn([(key, 3) for key in keys], 2, 5)
    alone = augmentation(STRONG).drawn([(keys[2], 3)], 2, 5)
    other = augmentation(STRONG).drawn([(keys[2], 4)], 2, 5)
    assert together is not None and alone is not None and other is not None
    assert torch.equal(together.moves[:, 2], alone.moves[:, 0])
    assert torch.equal(together.centres[:, 2], alone.centres[:, 0])
    every = torch.cat([together.moves, other.moves], 1).view(-1, 6)
    assert len(every.unique(dim=0)) == 5 * 2 * 5


def test_one_strength_does_not_change_what_another_draws() -> None:
    both, one = (drawn(augmentation(own)) for own in (STRONG, {"shift": 0.2, "cutout": 0.1}))
    assert torch.equal(both.moves[..., 2], one.moves[..., 2])
    assert torch.equal(both.centres, one.centres)


def test_validation_and_prediction_see_images_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "mlp", (1, 6, 5))
    bench = Bench()
    results = []
    for strengths in ({}, STRONG):
        still = lane(4, depth=0)  # sgd on a linear model, without statistics that would follow the images
        own = still.settings.hyperparameters.model_copy(update={"learning_rate": 1e-30} | strengths)
        cohort = bench.cohort([Lane(still.key, type(still.settings)(own, still.settings.options))])
        (result,) = curves(cohort, 1).values()
        results.append((result[0], cohort.predict(bench.folds[0].validation.features)))
    assert results[0][0].value == results[1][0].value
    assert torch.equal(results[0][1], results[1][1])
    assert results[0][0].train_loss != pytest.approx(results[1][0].train_loss, abs=1e-6)


# --- study files and data


def test_it_is_for_images_only_and_all_mistakes_come_at_once() -> None:
    text = "search: {shift: {low: 0, high: 0.2}, scale: {choices: [0, x]}}\ntraining: {rotation: 200}"
    assert sorted(told(text)) == [
        "search.scale.choices[1]: must be a number, not 'x'",
        "search.scale: must be left out: breast_cancer is no set of images",
        "search.shift: must be left out: breast_cancer is no set of images",
        "training.rotation: must be at most 180, not 200",
    ]


def test_arrays_of_the_users_own_may_be_images_or_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def load(shape):\n"
        "    return np.random.default_rng(0).normal(size=(60, *shape)), np.arange(60) % 3\n"
    )
    for shape, fits in (([8], False), ([1, 6, 6], True), ([6, 6], True)):
        data = f"data: {{source: 'mine.py:load', options: {{shape: {shape}}}}}\n"
        config = study_of(data + "search: {rotation: {low: 0, high: 9}}\ntraining: {shift: 0.1}", tmp_path)
        if fits:
            prepare(config, tmp_path / "cache")
            continue
        for _ in range(2):  # prepared anew, and from the cache
            with pytest.raises(DataError) as caught:
                prepare(config, tmp_path / "cache")
            assert str(caught.value) == (
                "mine.py:load: its examples have the shape [8], but search.rotation, training.shift need "
                "images, [channels, height, width] or [height, width]"
            )


def test_no_option_of_a_network_is_called_like_a_key_of_training(tmp_path: Path) -> None:
    for name in models.ARCHITECTURES:
        assert not options_of(name, ROOT).kinds.keys() & Hyperparameters.model_fields.keys()
    (tmp_path / "mine.py").write_text("def build(input_shape, classes, *, scale=1.0, warmup): ...\n")
    text = "architecture: mine.py:build\ndata: {source: sklearn, name: digits, images: true}\n"
    text += "search: {scale: {low: 0.1, high: 0.5}}"
    assert told(text, tmp_path) == [
        "search.scale: scale is both a key of training and an option of mine.py:build; rename the option",
        "architecture: warmup is both a key of training and an option of mine.py:build; rename the option",
    ]
    (tmp_path / "mine.py").write_text("def build(input_shape, classes, *, scale=1.0): ...\n")
    text = text.replace("search: {scale", "options: {scale: 0.5}\nsearch: {learning_rate")
    assert told(text, tmp_path) == [
        "options.scale: scale is both a key of training and an option of mine.py:build; rename the option"
    ]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_no_other_image_has_a_say_in_what_training_images_become(tmp_path: Path, part: str) -> None:
    """Statistics, and what augmentation reads, are of the training part: others' pixels change nothing."""
    write_idx(tmp_path, each=20)
    config = study(tmp_path, {"source": "idx", "path": "."}, options={"width": 8, "depth": 1})
    before = prepare(config, tmp_path / "cache")
    spoil(tmp_path, None if part == "test" else before.folds[0].validation.rows)
    after = prepare(config, tmp_path / "cache")
    assert after.fingerprint != before.fingerprint
    assert after.folds[0].normalization == before.folds[0].normalization
    assert train(config, after) == train(config, before)
    if part == "test":
        fresh = [fresh_folds(config, prepared, [5, 6]) for prepared in (before, after)]
        assert [fold.normalization for fold in fresh[0]] == [fold.normalization for fold in fresh[1]]
        last = [final_training(config, prepared).normalization for prepared in (before, after)]
        assert last[0] == last[1]


def spoil(folder: Path, rows: Tensor | None) -> None:
    """Whiten images: those `rows` of the training file, or the whole test file."""
    path = folder / f"{'test' if rows is None else 'train'}-images-idx3-ubyte"
    content = np.frombuffer(path.read_bytes(), np.uint8).copy()
    pixels = content[16:].reshape(-1, 6, 5)
    pixels[slice(None) if rows is None else rows.numpy()] = 255
    path.write_bytes(content.tobytes())


def train(config: StudyConfig, prepared: PreparedData) -> list[float]:
    """The training losses of two epochs."""
    own = TrialSettings(Hyperparameters(batch_size=8, **STRONG), {"width": 8, "depth": 1})
    data = DeviceData(prepared.folds, "classification", 3, device="cpu")
    architecture = Architecture(config, prepared.input_shape, prepared.outputs)
    cohort = Cohort(architecture, data, "loss", own, 2)
    cohort.add([Lane(LaneKey(0), own)])
    return [next(iter(cohort.train_epoch().values())).train_loss for _ in range(2)]
