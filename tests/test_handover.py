"""Exporting a finalized study's bundle to where somebody wants it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from searching import search
from test_conclude import CONFIG, concluded

from hpo.errors import HpoError, UsageError
from hpo.results import finalize as finalize_module
from hpo.results import handover
from hpo.results.bundle import load_bundle
from hpo.results.bundle_folder import checked
from hpo.results.handover import best_parameters, hand_over
from hpo.search.database import Database
from hpo.search.status import RESULT
from hpo.search.studies import Studies
from hpo.studyfile import load_study

pytestmark = pytest.mark.slow


@pytest.fixture
def finished(sqlite: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A finalized study, whose test part nobody may open again."""
    monkeypatch.chdir(tmp_path)
    search(sqlite, CONFIG)
    concluded(sqlite, tmp_path / "results" / "wines")

    def opened(*_: Any) -> None:
        raise AssertionError("the test part was opened")

    monkeypatch.setattr(finalize_module, "open_sealed", opened)
    return sqlite


def exported(database: Database, out: Path, **how: Any) -> Path:
    return hand_over(database, Studies(database).study("wines"), out, **how)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_is_copied_from_sound_results_or_else_retrained(
    finished: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Studies(finished).study("wines").attrs[RESULT]
    results = tmp_path / "results" / "wines"
    retrained: list[Path] = []
    really: Callable[..., None] = handover.write_elsewhere

    def counted(*arguments: Any) -> None:
        retrained.append(arguments[3])
        really(*arguments)

    monkeypatch.setattr(handover, "write_elsewhere", counted)
    copied = exported(finished, tmp_path / "deep" / "copied")
    assert not retrained
    weights = results / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    again = exported(finished, tmp_path / "again")
    assert len(retrained) == 1
    for name in ("model.safetensors", "metrics.json", "labels.json", "config.yaml", "environment.json"):
        assert (copied / name).read_bytes() == (again / name).read_bytes(), name
    assert checked(copied)["study"] == "wines"
    assert load_study(copied / "config.yaml").digest() == CONFIG.digest()
    assert load_study(copied / "best.yaml").trials == 1
    assert load_bundle(again).classes == ("class_0", "class_1", "class_2")
    assert Studies(finished).study("wines").attrs[RESULT] == before, "nothing is recorded"
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"results", "deep", "again"}


def test_only_a_bundle_is_replaced_and_only_if_told_to(finished: Database, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    exported(finished, out)
    before = content(out)
    with pytest.raises(UsageError, match=r"out holds a bundle of study 'wines'; --force replaces it"):
        exported(finished, out)
    (out / "notes.txt").write_text("mine")
    (out / "README.md").write_text("old")
    exported(finished, out, force=True)
    assert content(out) == before | {"notes.txt": b"mine"}
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    (other / "best.json").write_text(json.dumps({"study": "mine"}))
    (tmp_path / "file").write_text("a file")
    kept = content(other)
    for place in (other, tmp_path / "file"):
        with pytest.raises(UsageError, match="holds something else than a bundle, and is left alone"):
            exported(finished, place, force=True)
    assert content(other) == kept and (tmp_path / "file").read_text() == "a file"


@pytest.mark.slow
def test_onnx_is_part_of_the_bundle_or_nothing_is_written(
    finished: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = exported(finished, tmp_path / "out", onnx=True)
    assert "model.onnx" in checked(out)["files"]
    exported(finished, out, force=True)
    assert not (out / "model.onnx").exists(), "a bundle without it has no old one"
    before = content(out)

    def fails(*_: Any) -> None:
        raise HpoError("'mlp' cannot be exported to ONNX")

    monkeypatch.setattr(handover, "write_onnx", fails)
    with pytest.raises(HpoError, match="cannot be exported"):
        exported(finished, out, force=True, onnx=True)
    with pytest.raises(HpoError, match="cannot be exported"):
        exported(finished, tmp_path / "fresh", onnx=True)
    assert content(out) == before
    assert not (tmp_path / "fresh").exists() and not (tmp_path / ".fresh.new").exists()


def test_a_study_that_is_not_finalized_is_not_exported(sqlite: Database, tmp_path: Path) -> None:
    search(sqlite, CONFIG)
    record = Studies(sqlite).study("wines")
    for attempt in (lambda: best_parameters(record), lambda: exported(sqlite, tmp_path / "out")):
        with pytest.raises(HpoError, match="study 'wines' is not finalized; `hpo finalize wines` does it"):
            attempt()
    assert not (tmp_path / "out").exists()


def test_names_that_lead_elsewhere_write_nothing(finished: Database, tmp_path: Path) -> None:
    studies = Studies(finished)
    record = studies.study("wines")
    config = record.attrs["hpo:config"] | {"name": "../x"}
    studies.set_attrs(record.study_id, {"hpo:config": config})
    shutil.rmtree(tmp_path / "results")
    with pytest.raises(UsageError, match="its configuration is another version's"):
        exported(finished, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "x").exists()
