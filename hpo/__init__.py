"""hpo: hyperparameter optimization for PyTorch.

`hpo.load_bundle(folder)` loads a finished model. Everything else is imported from where it is, so that
`import hpo` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.results.bundle import load_bundle as load_bundle

__all__ = ["load_bundle"]


def __getattr__(name: str) -> Any:
    if name != "load_bundle":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hpo.results.bundle import load_bundle

    return load_bundle
