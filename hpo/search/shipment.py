"""The code that travels with a Ray job: this very hpo, and the user's own files of its studies."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import models
from hpo.config import StudyConfig
from hpo.search.ray_actor import CODE
from hpo.usercode import below, file_of, is_user_function

_COMPILED = shutil.ignore_patterns("__pycache__")


def pack(configs: Iterable[StudyConfig], package: Path) -> None:
    """Lay out a job's package in an empty folder: `hpo`, `models`, and under `code` the user's files.

    Of a user's file all Python files beside it go along, and the packages there: it can import them. They lie
    under their whole path, so that they also find what they reach by a relative one.

    Raises:
        UserCodeError: a study's own file is not here.
    """
    for source in (Path(__file__).parents[1], Path(str(models.__file__)).parent):
        shutil.copytree(source, package / source.name, ignore=_COMPILED)
    folders = {file_of(name, config.folder).parent for config in configs for name in _user_functions(config)}
    for folder in folders:
        for file in _python_files(folder):
            copy = below(package / CODE, file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def _user_functions(config: StudyConfig) -> list[str]:
    return [name for name in (config.architecture, config.data.source) if is_user_function(name)]


def _python_files(folder: Path) -> list[Path]:
    """Those in a folder and in the packages in it."""
    packages = [entry for entry in folder.iterdir() if (entry / "__init__.py").is_file()]
    return [*folder.glob("*.py"), *(file for package in packages for file in package.rglob("*.py"))]
