"""What can go wrong, as a tree.

HpoError                     exit code 1: the work could not be done
├── UsageError               exit code 2: wrong command line
│   ├── StudyFileError       the study file is wrong; lists every mistake
│   ├── DataError            the data are missing or unusable
│   ├── BundleError          a folder is no bundle, or a damaged one
│   └── UserCodeError        a `path/to/file.py:function` cannot be used
├── StorageError             the database cannot be reached or used
├── Interrupted              training was to stop, and did so in the middle of an epoch
└── TrialError               one trial failed; the worker goes on
"""

from dataclasses import dataclass


class HpoError(Exception):
    """The work could not be done. Its text is complete: it is shown to the user as it is."""

    exit_code = 1


class UsageError(HpoError):
    """The command line, or something that it names, is wrong."""

    exit_code = 2


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()
"""The value of a `Mistake` whose key is not there at all, or says by itself what is wrong."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a study file, in one line: where it stands, what would be valid, what stands there."""

    key: str
    value: object
    valid: str
    """What is valid ("must be 1 or more"), or what is wrong ("unknown key")."""
    hint: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is MISSING else f", not {brief(self.value)}"
        hint = f"; {self.hint}" if self.hint else ""
        return " ".join(f"{self.key}: {self.valid}{shown}{hint}".split())  # a key may hold a line break


def brief(value: object, width: int = 60) -> str:
    """`value` as it would stand in a study file, in one line of at most `width` characters."""
    text = _written(value, width)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _written(value: object, width: int) -> str:
    if isinstance(value, list):  # only as many items as can show: the whole may be large
        return f"[{', '.join(_written(item, width) for item in value[:width])}]"
    if isinstance(value, dict):
        items = list(value.items())[:width]
        return f"{{{', '.join(f'{key}: {_written(item, width)}' for key, item in items)}}}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print over 4,300 digits
        return f"a number of about {round(value.bit_length() * 0.30103)} digits"
    return repr(value[:width] if isinstance(value, str) else value)


class StudyFileError(UsageError):
    """The study file is wrong. All its mistakes are listed, not only the first."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{source}: {count}\n{lines}")

    def __reduce__(self) -> tuple[type["StudyFileError"], tuple[str, list[Mistake]]]:
        return type(self), (self.source, self.mistakes)  # crosses from a worker process to its launcher


class DataError(UsageError):
    """The data are missing or unusable; the message names the file and the place."""


class BundleError(UsageError):
    """A folder is no bundle, or a damaged one; the message names the file."""


class UserCodeError(UsageError):
    """A function of the user's own cannot be found or loaded."""


class StorageError(HpoError):
    """The database cannot be reached or used."""


class Interrupted(HpoError):
    """Training was to stop, and did so in the middle of an epoch."""


class TrialError(HpoError):
    """One trial cannot go on; recorded with the trial as its reason."""
