"""The snapshot: a study as read once a tick, an in-memory `BaseStorage` for samplers and pruners.

They read it as they would a database. What they write (parameters, attributes) is kept here and handed to
the worker, which records it in its next transaction. Everything else that would write raises.
"""

import bisect
import contextlib
import heapq
import itertools
import operator
from collections.abc import Collection, Container, Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from hpo.search.database import FIXED_PARAMS
from hpo.search.history import History
from hpo.search.records import Changes, Claim, Finish, StudyRecord


class Snapshot(BaseStorage):
    """One study, read-only but for the trials that this worker runs."""

    def __init__(self, study: StudyRecord, history: History) -> None:
        self.record = study
        self.history = history
        self.changes = Changes()
        """What samplers and pruners wrote since `take_changes`."""
        self._own: dict[int, FrozenTrial] = {}
        """By trial id: those that this worker runs."""
        self._study_system_attrs: dict[str, Any] = {}
        self._finished: dict[tuple[TrialState, ...], list[FrozenTrial]] = {}
        """By their states, in order."""
        self._told: dict[tuple[tuple[TrialState, ...], int], list[FrozenTrial]] = {}
        """The same, no more than so many of them; until one more has finished."""
        self._most: int | None = None

    def take_changes(self) -> Changes:
        """What was written since the last call, to be recorded."""
        changes, self.changes = self.changes, Changes()
        return changes

    def adopt(self, claim: Claim) -> FrozenTrial:
        """Show a trial that this worker has claimed; what an earlier attempt recorded was read before."""
        trial = self.history.running.get(claim.number)
        if trial is None:
            trial = FrozenTrial(
                number=claim.number,
                state=TrialState.RUNNING,
                value=None,
                datetime_start=datetime.now(),
                datetime_complete=None,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={FIXED_PARAMS: dict(claim.fixed)} if claim.fixed else {},
                intermediate_values={},
                trial_id=claim.trial_id,
            )
            self.history.running[claim.number] = trial
        self._own[claim.trial_id] = trial
        return trial

    def finish(self, trial_id: int, state: TrialState, value: float | None) -> None:
        """End a trial that this worker runs."""
        trial = self._own.pop(trial_id)
        trial.values = None if value is None else [value]
        trial.datetime_complete = datetime.now()
        trial.state = state
        self.changes.finishes.append(Finish(trial_id, state, value))
        self.history.finished[trial.number] = self.history.running.pop(trial.number)
        self._file(trial)

    def forget(self, trial_id: int) -> None:
        """Show no longer a trial that this worker has lost or handed back."""
        known = (*self.history.running.values(), *self.history.finished.values())
        for number in [trial.number for trial in known if trial._trial_id == trial_id]:
            self.history.forget(number)
        self._own.pop(trial_id, None)
        self._finished.clear()
        self._told.clear()

    # --- what samplers and pruners read

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self.record.name:
            raise KeyError(study_name)
        return self.record.study_id

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.record.name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self.record.direction]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.record.attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._study_system_attrs

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                study_name=self.record.name,
                direction=self.record.direction,
                user_attrs=self.record.attrs,
                system_attrs=self._study_system_attrs,
                study_id=self.record.study_id,
            )
        ]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._own[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        # Never a deep copy: it would cost milliseconds a call, and nobody here changes another's trial.
        wanted = tuple(state for state in TrialState if states is None or state in states)
        finished = self._ended(wanted)
        if TrialState.RUNNING not in wanted:
            return list(finished)
        # As from a database, what is read does not change: successive halving sets an attribute of its trial,
        # and then adds this trial's value to those that have the attribute among the trials read before.
        running = [
            _as_read(trial) if trial._trial_id in self._own else trial
            for trial in self.history.running.values()
        ]
        return sorted([*finished, *running], key=_number)

    def _ended(self, states: tuple[TrialState, ...]) -> list[FrozenTrial]:
        if states not in self._finished:
            ended = [trial for trial in self.history.finished.values() if trial.state in states]
            self._finished[states] = sorted(ended, key=_number)
        ended = self._finished[states]
        if self._most is None or len(ended) <= self._most:
            return ended
        if (states, self._most) not in self._told:
            self._told[states, self._most] = self._telling(ended, self._most)
        return self._told[states, self._most]

    def _file(self, trial: FrozenTrial) -> None:
        """Take a trial that has finished into the lists: at 5,000 making them anew takes a millisecond."""
        self._told.clear()
        for states, ended in self._finished.items():
            if trial.state in states:
                bisect.insort(ended, trial, key=_number)

    @contextlib.contextmanager
    def at_most(self, trials: int) -> Iterator[None]:
        """Within this, no more finished trials are shown than so many: the best fifth of them, the newest."""
        self._most = trials
        try:
            yield
        finally:
            self._most = None

    def _telling(self, trials: list[FrozenTrial], most: int) -> list[FrozenTrial]:
        sign = 1 if self.record.direction == StudyDirection.MINIMIZE else -1
        valued = ((sign * trial.values[0], trial.number, trial) for trial in trials if trial.values)
        best = [trial for _, _, trial in heapq.nsmallest(most // 5, valued)]
        shown = {trial.number for trial in best}
        others = (trial for trial in reversed(trials) if trial.number not in shown)
        return sorted([*best, *itertools.islice(others, most - len(best))], key=_number)

    def refresh(self, own: Collection[int]) -> None:
        """Read what changed, but for the running trials with these numbers."""
        for trial in self.history.refresh(own):
            self._file(trial)

    # --- what they write

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self._own[trial_id]
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution
        self.changes.params.append((trial_id, param_name, param_value_internal, distribution))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._own[trial_id].system_attrs[key] = value
        self.changes.system_attrs.append((trial_id, key, value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._own[trial_id].user_attrs[key] = value
        self.changes.user_attrs.append((trial_id, key, value))

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._own[trial_id].intermediate_values[step] = intermediate_value
        self.changes.steps.append((trial_id, step, intermediate_value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        # Optuna's samplers keep caches here that every process can rebuild; they stay in this one.
        self._study_system_attrs[key] = value

    # --- what nobody may do here

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(f"the snapshot of study {self.record.name!r} is read-only: {what} is the store's")

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._refuse("creating a study")

    def delete_study(self, study_id: int) -> None:
        self._refuse("deleting a study")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._refuse("setting a study's attribute")

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self._refuse("creating a trial")

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._refuse("ending a trial")


def _as_read(trial: FrozenTrial) -> FrozenTrial:
    read = FrozenTrial.__new__(FrozenTrial)  # `copy.copy` takes five times as long
    read.__dict__.update(trial.__dict__)
    read.system_attrs = dict(trial.system_attrs)
    return read


_number = operator.attrgetter("number")
