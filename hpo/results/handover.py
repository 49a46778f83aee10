"""The bundle of a finalized study, written to where somebody wants it."""

import shutil
from pathlib import Path

from hpo.config import StudyConfig
from hpo.errors import HpoError
from hpo.results.bundle import load_bundle
from hpo.results.bundle_folder import REPORT, check_free, checked, staged, write_manifest
from hpo.results.conclude import Conclusion, recorded, write_elsewhere
from hpo.results.export import is_complete, write_study_files
from hpo.results.lanes import Progress
from hpo.results.onnx_model import require_onnx, write_onnx
from hpo.search.database import Database
from hpo.search.records import StudyRecord
from hpo.search.submission import config_of
from hpo.section import Value
from hpo.usercode import is_user_function


def best_parameters(study: StudyRecord) -> dict[str, Value]:
    """The winner's parameters of a finalized study.

    Raises:
        HpoError: it is not finalized.
    """
    return dict(_finalized(study).result.winner.params)


def hand_over(
    database: Database,
    study: StudyRecord,
    out: Path,
    force: bool = False,
    onnx: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a finalized study's bundle to `out`, and answer where that is.

    It is a copy of the results folder where that is at hand and undamaged; otherwise the winner is retrained,
    and the test part stays sealed. Nothing is recorded with the study.

    Args:
        database: Where the study is.
        study: Which one.
        out: A folder that is empty, or not there, or another bundle with `force`.
        force: Whether a bundle in `out` is replaced.
        onnx: Whether model.onnx is added.
        progress: Told how far retraining has come.

    Raises:
        HpoError: the study is not finalized, `out` is not free, or the network cannot be exported to ONNX.
    """
    known, config = _finalized(study), config_of(study)
    target = out.resolve()
    if onnx:
        require_onnx()
    check_free(target, force)
    try:
        with staged(target) as staging:
            source = _at_hand(known, config)
            if source is None:
                write_elsewhere(database, study, known, staging, progress)
            else:
                _copy(source, staging)
            write_study_files(staging, config, known.result, target)
            write_manifest(staging, config.name)
            if onnx:
                _add_onnx(staging, config)
    except OSError as error:
        raise HpoError(f"bundle {target}: cannot be written: {error}") from error
    return target


def _finalized(study: StudyRecord) -> Conclusion:
    known = recorded(study)
    if known is None:
        raise HpoError(f"study {study.name!r} is not finalized; `hpo finalize {study.name}` does it")
    return known


def _at_hand(known: Conclusion, config: StudyConfig) -> Path | None:
    folders = (Path(known.out), Path("results") / config.name)
    return next((folder for folder in folders if is_complete(folder, known.result)), None)


def _copy(source: Path, staging: Path) -> None:
    for name in [*checked(source)["files"], REPORT]:
        if name != "model.onnx":  # it is made anew where it is asked for
            shutil.copyfile(source / name, staging / name)


def _add_onnx(staging: Path, config: StudyConfig) -> None:
    own = str(config.folder / config.architecture) if is_user_function(config.architecture) else None
    write_onnx(load_bundle(staging, own), staging / "model.onnx")
    write_manifest(staging, config.name)
