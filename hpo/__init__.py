"""Hyperparameter optimization for PyTorch: `hpo.cli` is the command; what is named here, for Python.

`hpo.load_bundle(folder)` loads a finished model, `hpo.plot_history("quickstart")` and so on answer plotly
figures. They are imported when they are first used, so that `import hpo` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.results.bundle import load_bundle as load_bundle
    from hpo.results.plots import plot_anytime as plot_anytime
    from hpo.results.plots import plot_calibration as plot_calibration
    from hpo.results.plots import plot_confusion as plot_confusion
    from hpo.results.plots import plot_contour as plot_contour
    from hpo.results.plots import plot_effects as plot_effects
    from hpo.results.plots import plot_history as plot_history
    from hpo.results.plots import plot_importances as plot_importances
    from hpo.results.plots import plot_intermediate_values as plot_intermediate_values
    from hpo.results.plots import plot_parallel as plot_parallel
    from hpo.results.plots import plot_precision_recall as plot_precision_recall
    from hpo.results.plots import plot_predicted as plot_predicted
    from hpo.results.plots import plot_roc as plot_roc
    from hpo.results.plots import plot_slices as plot_slices

__all__ = [
    "load_bundle",
    "plot_anytime",
    "plot_calibration",
    "plot_confusion",
    "plot_contour",
    "plot_effects",
    "plot_history",
    "plot_importances",
    "plot_intermediate_values",
    "plot_parallel",
    "plot_precision_recall",
    "plot_predicted",
    "plot_roc",
    "plot_slices",
]


def __getattr__(name: str) -> Any:
    if name == "load_bundle":
        from hpo.results.bundle import load_bundle

        return load_bundle
    if name in __all__:
        from hpo.results import plots

        return getattr(plots, name)
    raise AttributeError(f"module 'hpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
