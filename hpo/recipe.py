"""What a study file says of how a trial trains, against its data and against itself."""

from collections.abc import Iterator

from hpo import config as cfg
from hpo.config import AUGMENTATION
from hpo.draft import Check, Draft
from hpo.errors import MISSING, Mistake
from hpo.section import Value


def _nesterov(draft: Draft) -> Iterator[Mistake]:
    """torch.optim.SGD refuses Nesterov momentum without momentum."""
    training, search = draft.config.training, draft.config.search
    searched = search.get("nesterov")
    wanted = True in (searched.grid() or []) if searched else training.nesterov
    parameter = search.get("momentum")
    has_momentum = parameter is not None or training.momentum > 0
    sgd = (
        "sgd" in (search["optimizer"].grid() or []) if "optimizer" in search else training.optimizer == "sgd"
    )
    if wanted and sgd and not has_momentum:
        yield Mistake("training.momentum", training.momentum, "must be above 0 with nesterov: true")


def _pruner(draft: Draft) -> Iterator[Mistake]:
    least, epochs = getattr(draft.config.pruner, "min_epochs", 1), draft.config.training.epochs
    if least > epochs:
        yield Mistake("pruner.min_epochs", least, f"must be at most training.epochs ({epochs})")


def _warmup(draft: Draft) -> Iterator[Mistake]:
    """The learning rate must reach its top before the end."""
    epochs = draft.config.training.epochs
    for key, value in _written(draft, "warmup"):
        if isinstance(value, int | float) and value >= epochs:
            yield Mistake(key, value, f"must be below training.epochs ({epochs})")


def _label_smoothing(draft: Draft) -> Iterator[Mistake]:
    if draft.config.task == "regression":
        for key, value in _written(draft, "label_smoothing"):
            if value:
                yield Mistake(key, value, "must be 0: a regression has no labels")


def _augmentation(draft: Draft) -> Iterator[Mistake]:
    """Of the user's own arrays it is known when they are there: see `hpo.data.prepare`."""
    data = draft.config.data
    if isinstance(data, cfg.UserData | cfg.ImageData) or (isinstance(data, cfg.SklearnData) and data.images):
        return
    what = data.name if isinstance(data, cfg.SklearnData) else data.source
    text = f"must be left out: {what} is no set of images"
    hint = "it is one with data.images: true" if what == "digits" else ""
    for name in AUGMENTATION:
        value = getattr(draft.config.training, name)
        if name in draft.searched:
            yield Mistake(f"search.{name}", MISSING, text, hint)
        elif value:
            yield Mistake(f"training.{name}", value, text, hint)


def _written(draft: Draft, name: str) -> Iterator[tuple[str, Value]]:
    """The values that a hyperparameter may have: those of the search, or the fixed one."""
    if name in draft.config.search:
        for place, value in draft.config.search[name].ends().items():
            yield f"search.{name}.{place}", value
    elif name not in draft.searched:
        yield f"training.{name}", getattr(draft.config.training, name)


CHECKS: list[Check] = [
    (_nesterov, {"search", "training"}),
    (_pruner, {"pruner", "training"}),
    (_warmup, {"training"}),
    (_label_smoothing, {"data", "metric"}),
    (_augmentation, {"data"}),
]
