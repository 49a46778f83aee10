"""The repository as a whole: shipped studies load, imports run downward, `make` tells what it needs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from hpo.studyfile import load_study

STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))
TARGETS = ["run", "test", "check", "clean"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Not as a part of the `make test` that may have started this test.
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, env=own)


def python_of_version(path: Path, version: str, broken_module: str = "") -> Path:
    """A Python that says it is of this `version`, and that has no `broken_module`."""
    lines = f"import sys; sys.version_info = ({version}); sys.modules.update({{{broken_module!r}: None}})"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{lines}; exec(sys.argv[2])" "$@"\n')
    path.chmod(0o755)
    return path


def test_there_are_studies() -> None:
    assert {path.name for path in STUDIES} >= {"quickstart.yaml", "mlp.yaml"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_every_shipped_study_loads(path: Path) -> None:
    config = load_study(path)
    assert config.folder == path.parent


def test_shipped_studies_have_names_of_their_own() -> None:
    names = [load_study(path).name for path in STUDIES]
    assert len(set(names)) == len(names)


def test_imports_run_downward() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@needs_make
def test_make_lists_its_targets() -> None:
    listed = [line.split("\t")[0] for line in make("help").stdout.splitlines()]
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None and sorted(listed) == sorted(declared[1].split())
    assert set(TARGETS) <= set(listed)


@needs_make
@pytest.mark.parametrize(
    ("version", "broken_module", "message"),
    [
        ("3, 10, 9", "", "hpo needs Python 3.11 to 3.13, and {python} is 3.10; name another: make PYTHON="),
        ("3, 14, 0", "", "hpo needs Python 3.11 to 3.13, and {python} is 3.14; name another: make PYTHON="),
        ("3, 12, 0", "ensurepip", "{python} has no venv module; on Debian and Ubuntu it is the package"),
    ],
)
def test_make_says_what_is_wrong_with_a_python(
    tmp_path: Path, version: str, broken_module: str, message: str
) -> None:
    python = python_of_version(tmp_path / "python", version, broken_module)
    done = make("run", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert done.stderr.startswith(message.format(python=python))
    assert not (tmp_path / "venv").exists()


@needs_make
def test_make_says_that_there_is_no_such_python(tmp_path: Path) -> None:
    done = make("run", "PYTHON=no-such-python", f"VENV={tmp_path / 'venv'}")
    assert done.stderr.startswith("there is no no-such-python; hpo needs Python 3.11 to 3.13")


@needs_make
def test_make_installs_again_only_when_pyproject_changed(tmp_path: Path) -> None:
    stamp = tmp_path / ".installed"
    stamp.touch()
    assert "pip install" not in make("--dry-run", "run", f"VENV={tmp_path}").stdout
    changed = make("--dry-run", "--what-if=pyproject.toml", "run", f"VENV={tmp_path}")
    assert "pip install" in changed.stdout


def test_hooks_run_what_the_environment_has() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    programs = {hook["entry"].split()[0] for hook in hooks[0]["hooks"]}
    assert programs == {".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/lint-imports"}


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("make test")
    subprocess.run(["bash", "-n", script], check=True)
