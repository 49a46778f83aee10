"""The architecture of a study: what builds its networks."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import nn

import models
from hpo.config import StudyConfig
from hpo.errors import TrialError, UserCodeError
from hpo.training.memory import out_of_memory
from hpo.training.program import Program
from hpo.usercode import is_user_function, load_function


class Architecture:
    """Builds networks for one data set: from the registry, or by the user's `path/to/file.py:build`."""

    def __init__(
        self, config: StudyConfig, input_shape: tuple[int, ...], outputs: int, trials: float = 0
    ) -> None:
        """Finds the builder.

        trials: that this process expects to train side by side, which tells `training.compile: auto` whether
        to compile; 0: it never pays.

        Raises:
            UserCodeError: there is no such architecture, or the user's file cannot be loaded.
        """
        self.config = config
        self.name = config.architecture
        self.input_shape = input_shape
        self.outputs = outputs
        self.trials = trials
        self.programs: dict[Hashable, Program] = {}
        """How networks run, by their structure and the rows of a step; found once for all cohorts."""
        self.said: set[str] = set()
        """What is worth saying once."""
        self._builder: Callable[..., object]
        if is_user_function(self.name):
            self._builder = load_function(self.name, config.folder)
        elif self.name in models.ARCHITECTURES:
            self._builder = models.builder(self.name)
        else:
            names = ", ".join(sorted(models.ARCHITECTURES))
            raise UserCodeError(
                f"architecture {self.name!r}: must be one of {names}, or path/to/file.py:build"
            )

    def build(self, options: Mapping[str, Any]) -> nn.Module:
        """A network with fresh weights, drawn from torch's generator.

        Raises:
            TrialError: the builder cannot work with these options, or does not return an `nn.Module`.
            RuntimeError: memory ran out.
        """
        try:
            module = self._builder(self.input_shape, self.outputs, **options)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise TrialError(
                f"architecture {self.name!r} with options {dict(options)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise TrialError(
                f"architecture {self.name!r} returned {type(module).__name__}, must return a torch.nn.Module"
            )
        return module
