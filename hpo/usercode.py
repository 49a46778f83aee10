"""Functions of the user's own, named as `path/to/file.py:function`."""

import difflib
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hpo.errors import UserCodeError

PATTERN = re.compile(r"^(?P<path>.+\.py):(?P<function>[A-Za-z_]\w*)$")


def is_user_function(name: str) -> bool:
    """Whether `name` has the form `path/to/file.py:function`."""
    return PATTERN.match(name) is not None


def file_of(name: str, folder: Path) -> Path:
    """The file that `name` points to; a relative path is relative to `folder`.

    Raises:
        UserCodeError: `name` is not of the form `path/to/file.py:function`, or there is no such file.
    """
    match = PATTERN.match(name)
    if match is None:
        raise UserCodeError(f"{name!r}: not of the form path/to/file.py:function")
    path = folder / match["path"]
    if not path.is_file():
        raise UserCodeError(f"{name!r}: there is no file {path}")
    return path


def load_function(name: str, folder: Path) -> Callable[..., Any]:
    """Import the file of `name` and return its function.

    The file is imported once per content, under a name made from its path; its folder is importable
    while it loads, so that it can import its neighbours.

    Raises:
        UserCodeError: there is no such file or function, or importing the file raised.
    """
    path = file_of(name, folder)
    module = _import(path)
    function_name = name.rsplit(":", 1)[1]
    function = getattr(module, function_name, None)
    if not callable(function):
        callables = [
            key for key, value in vars(module).items() if callable(value) and not key.startswith("_")
        ]
        near = difflib.get_close_matches(function_name, callables, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(callables) or 'none'}"
        raise UserCodeError(f"{name!r}: {path} has no function {function_name!r}{hint}")
    return function  # type: ignore[no-any-return]


def _import(path: Path) -> ModuleType:
    digest = hashlib.sha256(path.resolve().as_posix().encode() + path.read_bytes()).hexdigest()[:16]
    module_name = f"hpo_user_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserCodeError(f"{path}: cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UserCodeError(f"{path}: importing it raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    return module
