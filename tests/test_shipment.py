"""The code that travels with a job: hpo itself, and the user's files for who does not have the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import study_of

from hpo.errors import UserCodeError
from hpo.search.ray_actor import CODE
from hpo.search.shipment import pack
from hpo.usercode import SHIPPED, file_of, load_function

STUDY = "search: {learning_rate: {low: 0.01, high: 0.1}}\ntrials: 2\n"
MINE = """
from neighbour import NAME
from parts.one import ONE

def build(input_shape, classes):
    return f"{NAME} {ONE}"
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of a job with a study whose architecture is the user's own, as a worker finds it."""
    home, package = tmp_path / "home", tmp_path / "package"
    (home / "parts").mkdir(parents=True)
    (home / "data").mkdir()
    package.mkdir()
    for name, text in {
        "mine.py": MINE,
        "neighbour.py": "NAME = 'shipped'\n",
        "parts/__init__.py": "",
        "parts/one.py": "ONE = 1\n",
        "data/table.csv": "a,b\n",
    }.items():
        (home / name).write_text(text)
    pack([study_of(f"{STUDY}architecture: mine.py:build", home), study_of(STUDY, home)], package)
    monkeypatch.setenv(SHIPPED, str(package / CODE))
    for module in [*sys.modules]:  # checking the study has imported them; a worker is another process
        if module.startswith("hpo_user_") or module.split(".")[0] in {"neighbour", "parts"}:
            monkeypatch.delitem(sys.modules, module)
    return package


def test_hpo_travels_and_runs_from_there(package: Path) -> None:
    script = "import hpo, models; print(hpo.__file__, models.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=package, capture_output=True, text=True)
    assert done.stdout.split() == [str(package / name / "__init__.py") for name in ("hpo", "models")]


def test_a_user_s_file_goes_along_with_what_it_can_import_and_not_with_data(package: Path) -> None:
    files = {file.name for file in (package / CODE).rglob("*") if file.is_file()}
    assert files == {"mine.py", "neighbour.py", "__init__.py", "one.py"}


def test_where_the_user_s_file_is_missing_the_copy_is_loaded(package: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "home")
    assert load_function("mine.py:build", tmp_path / "home")((2,), 2) == "shipped 1"


def test_where_a_neighbour_is_another_version_the_copies_are_loaded(package: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "neighbour.py").write_text("NAME = 'another version'\n")
    assert load_function("mine.py:build", tmp_path / "home")((2,), 2) == "shipped 1"


def test_the_same_file_is_used_where_it_lies_beside_what_it_reads(package: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert file_of("mine.py:build", home) == home / "mine.py"
    assert load_function("mine.py:build", home)((2,), 2) == "shipped 1"


def test_a_study_whose_file_is_not_here_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(UserCodeError, match=r"'gone.py:build': there is no file"):
        pack(
            [
                study_of(f"{STUDY}architecture: mlp", tmp_path).model_copy(
                    update={"architecture": "gone.py:build"}
                )
            ],
            tmp_path / "p",
        )
