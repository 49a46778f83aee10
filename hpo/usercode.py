"""Functions of the user's own, named as `path/to/file.py:function`."""

import difflib
import filecmp
import functools
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from hpo.errors import UserCodeError

SHIPPED = "HPO_CODE"
"""Environment variable: a folder with copies of the user's files, under their paths where they come from."""
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
    path = _shipped(folder / match["path"])
    if not path.is_file():
        raise UserCodeError(f"{name!r}: there is no file {path}")
    return path


def below(root: Path, path: Path) -> Path:
    """Where under `root` a copy of the file at `path` lies."""
    return root.joinpath(*Path(os.path.normpath(path.absolute())).parts[1:])


def _shipped(path: Path) -> Path:
    """The copy that came along with the job, if there is one and this machine does not have the same files.

    Where they are the same, as on the machine that they come from, those are used: beside them lies what
    they read.
    """
    root = os.environ.get(SHIPPED)
    if not root:
        return path
    copy = below(Path(root), path)
    return copy if copy.is_file() and not _same(copy.parent, path.parent) else path


@functools.cache
def _same(copies: Path, folder: Path) -> bool:
    """Whether the files of `folder` that have copies are the same as these."""
    files = [file for file in copies.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    originals = [folder / file.relative_to(copies) for file in files]
    return all(
        original.is_file() and filecmp.cmp(original, file, shallow=False)
        for original, file in zip(originals, files, strict=True)
    )


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
        raise UserCodeError(
            f"{name!r}: {path} has no function {function_name!r}{_alternatives(module, function_name)}"
        )
    return function  # type: ignore[no-any-return]


def _alternatives(module: ModuleType, function_name: str) -> str:
    """What the file has instead: the function of nearly this name, or all that it defines itself."""
    own = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    near = difflib.get_close_matches(function_name, own, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(own) or 'none'}"


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Without byte code on disk: that is taken for fresh after an edit of equal length in the same second."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


def _import(path: Path) -> ModuleType:
    digest = hashlib.sha256(path.resolve().as_posix().encode() + path.read_bytes()).hexdigest()[:16]
    module_name = f"hpo_user_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    loader = _FreshLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    assert spec is not None  # it is None only where no loader is found
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may call exit
        del sys.modules[module_name]
        reason = f"{type(error).__name__}: {error}"
        raise UserCodeError(f"{path}{_line(error, path)}: importing it raised {reason}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
    return module


def _line(error: BaseException, path: Path) -> str:
    """Where in the file at `path` the error was raised, if it was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""
