"""A study file as far as it is sound: what its sections are checked against each other on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.config import StudyConfig
from hpo.errors import Mistake


@dataclass(frozen=True)
class Draft:
    """A study file, as far as its sections are valid by themselves."""

    config: StudyConfig
    """With defaults for broken sections, and without broken parameters."""
    broken: frozenset[str]
    """Sections that have mistakes, and searched parameters that have: `data`, `search`, `search.dropout`."""
    searched: tuple[str, ...]
    """Names of all searched parameters, the broken ones too."""

    def given(self, section: str) -> bool:
        """Whether the study file itself says what is in `section`."""
        return section in self.config.model_fields_set


_STAND_IN: dict[str, Any] = {
    "name": "x",
    "data": {"source": "sklearn", "name": "breast_cancer"},
    "search": {"learning_rate": {"low": 1e-4, "high": 1e-1}},
}
"""For what has no default, where the study file has none or a broken one."""


def drafted(raw: dict[Any, Any], broken: frozenset[str], folder: Path) -> Draft:
    """What is valid by itself in `raw`, the content of a study file in `folder`."""
    sound = {key: raw[key] for key in raw if key in StudyConfig.model_fields and key not in broken}
    searched = raw["search"] if isinstance(raw.get("search"), dict) else {}
    parameters = {key: value for key, value in searched.items() if f"search.{key}" not in broken}
    sound |= {"search": parameters} if parameters else {}
    config = StudyConfig.model_validate(_STAND_IN | sound).at(folder)
    return Draft(config, broken, tuple(map(str, searched)))


Check = tuple[Callable[[Draft], Iterator[Mistake]], set[str]]
"""What finds mistakes, and the sections that it needs whole."""
