"""The registry of architectures."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import models


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_the_signature_read_from_the_source_is_the_builder_s(name: str) -> None:
    imported = inspect.signature(models.builder(name), eval_str=True)
    assert models.signature(name) == imported.replace(return_annotation=inspect.Signature.empty)


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_reading_it_imports_no_torch(name: str) -> None:
    program = f"import sys, models; models.signature({name!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_unknown_architecture_has_no_signature() -> None:
    with pytest.raises(KeyError, match="mpl"):
        models.signature("mpl")


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_the_readme_tells_its_options_and_their_defaults(name: str) -> None:
    lines = (Path(__file__).parents[1] / "README.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
    options = list(models.signature(name).parameters.values())[2:]
    told = dict(part.split(": ") for part in row.split("`") if ": " in part)
    assert told == {option.name: str(option.default).lower() for option in options}
