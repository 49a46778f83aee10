"""A page's figures as picture files beside it: `--png` and `--svg`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.results.page import Panel
    from hpo.results.pictures import Kind


def check_pictures(png: Path | None, svg: Path | None) -> None:
    """Before the work: whether the pictures that are wanted can be drawn and written.

    Raises:
        UsageError: a folder is a file, or kaleido is not installed.
        HpoError: there is no Chrome.
    """
    for kind, folder in _wanted(png, svg):
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--{kind}: {folder} is a file; must be a folder")
    if png is not None or svg is not None:
        from hpo.results import pictures

        pictures.check_pictures()


def write_pictures(panels: "Iterable[Panel]", png: Path | None, svg: Path | None) -> list[Path]:
    """Each figure in the folders that are wanted; where none are, no figure is made."""
    wanted = _wanted(png, svg)
    if not wanted:
        return []
    from hpo.results.pictures import write_panels

    drawn = list(panels)
    return [path for kind, folder in wanted for path in write_panels(drawn, folder, kind)]


def _wanted(png: Path | None, svg: Path | None) -> "list[tuple[Kind, Path]]":
    kinds: tuple[tuple[Kind, Path | None], ...] = (("png", png), ("svg", svg))
    return [(kind, folder) for kind, folder in kinds if folder is not None]
