"""What can go wrong, as a tree.

HpoError                     exit code 1: the work could not be done
├── UsageError               exit code 2: wrong command line
│   ├── StudyFileError       the study file is wrong; lists every mistake
│   ├── DataError            the data are missing or unusable
│   └── UserCodeError        a `path/to/file.py:function` cannot be used
├── StorageError             the database cannot be reached or used
└── TrialError               one trial failed; the worker goes on
"""

from dataclasses import dataclass


class HpoError(Exception):
    """The work could not be done. Its text is complete: it is shown to the user as it is."""

    exit_code = 1


class UsageError(HpoError):
    """The command line, or something that it names, is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Mistake:
    """One mistake in a study file: where it stands, what stands there, and what would be valid."""

    key: str
    value: object
    valid: str

    def __str__(self) -> str:
        shown = "" if self.value is MISSING else f" {self.value!r}:"
        return f"{self.key}:{shown} {self.valid}"


class _Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()
"""The value of a `Mistake` whose key is not there at all."""


class StudyFileError(UsageError):
    """The study file is wrong. All its mistakes are listed, not only the first."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        self.source = source
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        lines = "\n".join(f"  {mistake}" for mistake in mistakes)
        super().__init__(f"{source}: {count}\n{lines}")


class DataError(UsageError):
    """The data are missing or unusable; the message names the file and the place."""


class UserCodeError(UsageError):
    """A function of the user's own cannot be found or loaded."""


class StorageError(HpoError):
    """The database cannot be reached or used."""


class TrialError(HpoError):
    """One trial cannot go on; recorded with the trial as its reason."""
