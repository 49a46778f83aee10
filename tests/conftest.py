"""What every test shares: a cache of its own, one torch thread, the data that lie beside the repository."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpo.config import StudyConfig
from hpo.studyfile import parse_study
from hpo.yamltext import read_yaml

ROOT = Path(__file__).parent.parent

pytest_plugins = ["browsing", "databases", "searching", "sharing"]


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Prepared data of one test are no other's, nor the developer's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HPO_CACHE", str(folder))
    monkeypatch.delenv("HPO_STORAGE", raising=False)
    yield folder


@pytest.fixture
def shared_data() -> Path:
    """The folder of the course's data, which are not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"there is no folder {folder} with the course's data")
    return folder


def study_of(text: str, folder: Path = ROOT) -> StudyConfig:
    """The study file `text`, with a name and data where it has none."""
    raw = read_yaml(text) or {}
    defaults = {"name": "test", "data": {"source": "sklearn", "name": "breast_cancer"}}
    return parse_study(defaults | raw, "study.yaml", folder)
