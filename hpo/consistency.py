"""What the sections of a study file, each valid by itself, say against each other."""

from collections.abc import Iterator

from pydantic import ValidationError

import models
from hpo import config as cfg
from hpo import recipe
from hpo import space as sp
from hpo.config import DIRECTIONS, TASKS, Hyperparameters
from hpo.draft import Check, Draft
from hpo.errors import MISSING, Mistake, UserCodeError
from hpo.mistakes import one_of, refused, unknown_name
from hpo.options import Kind, Options, fitted, kinds, options_of
from hpo.section import Value
from hpo.usercode import file_of, is_user_function


def inconsistencies(draft: Draft) -> Iterator[Mistake]:
    """All mistakes between sections that are valid by themselves."""
    for check, sections in _CHECKS:
        if not draft.broken & sections:
            yield from check(draft)


def _task(draft: Draft) -> Iterator[Mistake]:
    config, declared = draft.config, draft.config.data.task
    inherent = config.data.inherent_task
    if declared and inherent and declared != inherent:
        what = f"{config.data.name} is" if isinstance(config.data, cfg.SklearnData) else "images are"
        yield Mistake("data.task", declared, f"must be {inherent}, as {what} for that")
        return
    task, wanted = declared or inherent, TASKS[config.metric]
    if task and wanted and task != wanted:
        valid = [metric for metric in DIRECTIONS if TASKS[metric] in {None, task}]
        value = config.metric if draft.given("metric") else MISSING
        yield Mistake("metric", value, f"must be one of {', '.join(valid)} (the data are for {task})")


def _user_data(draft: Draft) -> Iterator[Mistake]:
    data = draft.config.data
    if isinstance(data, cfg.UserData):
        try:
            file_of(data.source, draft.config.folder)
        except UserCodeError as error:
            yield Mistake("data.source", MISSING, str(error))


def _options_of_some(draft: Draft) -> Iterator[Mistake]:
    """Keys that mean something for one data set of their source only."""
    data = draft.config.data
    if isinstance(data, cfg.SklearnData) and data.images and data.name != "digits":
        yield Mistake("data.images", data.images, f"must be left out: {data.name} is no set of images")
    if isinstance(data, cfg.TorchvisionData) and data.split and data.name != "EMNIST":
        yield Mistake("data.split", data.split, f"must be left out: {data.name} has none, only EMNIST has")


def _fractions(draft: Draft) -> Iterator[Mistake]:
    validation, test_fraction = draft.config.validation, draft.config.data.test_share
    if isinstance(draft.config.data, cfg.ImageData) and draft.config.data.test_fraction is None:
        return  # there may be a test part that is no share of the rows
    if isinstance(validation, cfg.Fraction) and validation.fraction + test_fraction >= 1:
        most = (
            f"must be below {1 - test_fraction:.4g} (1 - data.test_fraction): else no row is left to train on"
        )
        yield Mistake("validation.fraction", validation.fraction, most)


def _architecture(draft: Draft) -> Iterator[Mistake]:
    config = draft.config
    if not is_user_function(config.architecture) and config.architecture not in models.ARCHITECTURES:
        valid = [*models.ARCHITECTURES, "path/to/file.py:build"]
        yield one_of("architecture", config.architecture, valid)
        return
    try:
        options = options_of(config.architecture, config.folder)
    except UserCodeError as error:
        yield Mistake("architecture", MISSING, str(error))
        return
    yield from _ambiguous(draft, options)
    yield from _searched(draft, options)
    if "options" not in draft.broken:
        yield from _fixed(draft, options)
        if "search" not in draft.broken:
            yield from _required(draft, options)


def _searched(draft: Draft, options: Options) -> Iterator[Mistake]:
    trained, known = list(Hyperparameters.model_fields), kinds(draft.config)
    for name in draft.searched:
        if not (name in trained or name in options.kinds or options.open):
            yield unknown_name(f"search.{name}", name, "parameter", [*trained, *options.kinds])
        elif name in draft.config.search:
            yield from _values(f"search.{name}", name, draft.config.search[name], known.get(name))


def _ambiguous(draft: Draft, options: Options) -> Iterator[Mistake]:
    """An option that is called like a hyperparameter would never be reached."""
    for name in options.kinds:
        if name not in Hyperparameters.model_fields:
            continue
        places = {"search": draft.searched, "options": draft.config.options, "architecture": options.required}
        for place in [place for place, names in places.items() if name in names][:1]:
            key = place if place == "architecture" else f"{place}.{name}"
            text = f"{name} is both a key of training and an option of {draft.config.architecture}"
            yield Mistake(key, MISSING, text, "rename the option")


def _fixed(draft: Draft, options: Options) -> Iterator[Mistake]:
    known = kinds(draft.config)
    for name, value in draft.config.options.items():
        key = f"options.{name}"
        if name in Hyperparameters.model_fields:
            if name not in options.kinds:  # otherwise `_ambiguous` says so
                hint = f"write it as training.{name}"
                yield Mistake(key, MISSING, "is no option of the architecture", hint)
        elif name in draft.config.search:
            yield Mistake(key, MISSING, "is searched too", "write it in one place")
        elif name in options.kinds or options.open:
            yield from _wrong(key, name, value, known.get(name))
        else:
            yield unknown_name(key, name, "option", list(options.kinds))


def _required(draft: Draft, options: Options) -> Iterator[Mistake]:
    for name in sorted(options.required - set(draft.config.options) - set(Hyperparameters.model_fields)):
        parameter = draft.config.search.get(name)
        if parameter is None:
            yield Mistake(f"options.{name}", MISSING, f"missing; {draft.config.architecture} needs it")
        elif parameter.when:
            without = f"{draft.config.architecture} needs it always"
            yield Mistake(f"search.{name}.when", MISSING, f"must be left out: {without}")


def _values(key: str, name: str, parameter: sp.Range | sp.Choices, kind: Kind) -> Iterator[Mistake]:
    if isinstance(parameter, sp.Range) and kind not in {None, int, float}:
        valid = "{choices: […]}"
        if isinstance(kind, tuple):
            valid = f"{{choices: […]}} of {', '.join(map(str, kind))}"
        written = {"low": parameter.low, "high": parameter.high}
        yield Mistake(key, written, f"must be {valid}")
        return
    for place, value in parameter.ends().items():
        yield from _wrong(f"{key}.{place}", name, value, kind)
    if isinstance(parameter, sp.Range) and parameter.step is not None:
        yield from _misfit(f"{key}.step", parameter.step, kind)


def _wrong(key: str, name: str, value: Value | list[Value], kind: Kind) -> Iterator[Mistake]:
    """The value is not of its kind, or is one that the owner of `name` refuses."""
    misfits = list(_misfit(key, value, kind))
    yield from misfits
    if misfits:
        return
    if name == "dropout" and not 0 <= fitted(value, float) < 1:
        yield Mistake(key, value, "must be 0 or more and below 1")
    if name in Hyperparameters.model_fields:
        try:
            Hyperparameters.model_validate({name: value})
        except ValidationError as error:
            yield refused(key, error.errors()[0])


def _misfit(key: str, value: Value | list[Value], kind: Kind) -> Iterator[Mistake]:
    if isinstance(kind, tuple) and value not in kind:
        yield one_of(key, value, [str(member) for member in kind])
        return
    try:
        fitted(value, kind)
    except ValueError as error:
        yield Mistake(key, value, str(error))


def _conditions(draft: Draft) -> Iterator[Mistake]:
    space = draft.config.search
    found = [
        found
        for name, parameter in space.items()
        for parent, wanted in (parameter.when or {}).items()
        for found in _condition(draft, name, parent, wanted if isinstance(wanted, list) else [wanted])
    ]
    yield from found
    if not found:
        try:
            sp.ordered(space)
        except ValueError as error:
            yield Mistake("search", MISSING, str(error))


def _condition(draft: Draft, name: str, parent: str, wanted: list[Value]) -> Iterator[Mistake]:
    space, key = draft.config.search, f"search.{name}.when.{parent}"
    if f"search.{parent}" in draft.broken:
        return
    if parent == name or parent not in space:
        others = [other for other in space if other != name]
        yield unknown_name(key, parent, "searched parameter", others)
        return
    values = space[parent].grid()
    if values is None:
        yield Mistake(key, MISSING, f"search.{parent} has no countable values to depend on")
        return
    for value in wanted:
        if not any(value == possible and _is_bool(value) == _is_bool(possible) for possible in values):
            yield one_of(key, value, [str(possible) for possible in values[:20]])


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _grid(draft: Draft) -> Iterator[Mistake]:
    if not isinstance(draft.config.sampler, cfg.Grid):
        return
    endless = [name for name, parameter in draft.config.search.items() if parameter.grid() is None]
    for name in endless:
        text = "must have choices, whole numbers or a step, at most a million values, for sampler grid"
        yield Mistake(f"search.{name}", MISSING, text)
    if endless:
        return
    try:
        size = len(sp.grid(draft.config.search))
    except ValueError as error:
        yield Mistake("search", MISSING, str(error))
        return
    if size != draft.config.trials:
        value = draft.config.trials if draft.given("trials") else MISSING
        yield Mistake("trials", value, f"must be {size}, the points of the grid")


def _warm_start(draft: Draft) -> Iterator[Mistake]:
    earlier = draft.config.warm_start
    if earlier is not None and earlier.study == draft.config.name:
        yield Mistake("warm_start.study", earlier.study, "must be another study than this one")


def _constraints(draft: Draft) -> Iterator[Mistake]:
    if draft.config.constraints is not None and isinstance(draft.config.sampler, cfg.Gp):
        without = "gp learns nothing from trials that constraints keep from being trained"
        yield Mistake("sampler", "gp", f"must be tpe, random, qmc or grid with constraints, as {without}")


_CHECKS: list[Check] = [
    (_task, {"data", "metric"}),
    (_user_data, {"data"}),
    (_options_of_some, {"data"}),
    (_fractions, {"data", "validation"}),
    (_architecture, {"architecture"}),
    (_conditions, set()),
    (_grid, {"search", "sampler", "trials"}),
    (_constraints, {"constraints", "sampler"}),
    (_warm_start, {"name", "warm_start"}),
    *recipe.CHECKS,
]
"""Each check, and the sections that it needs whole."""
