"""A study as the page fetches it: what optuna-dashboard would answer, thinned, cached and compressed.

optuna-dashboard serializes all trials anew for each look, goes through all stored notes and plots for each of
them, and looks at every one again for the search space: seconds, at 10,000 trials. Here a finished trial is
serialized once, and what has not changed is answered as it is.
"""

import contextlib
import gzip
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._serializer import serialize_attrs, serialize_search_space

from hpo.errors import HpoError
from hpo.results.values import LABELS
from hpo.web.notes import study_note, whole_notes
from hpo.web.plots import plots
from hpo.web.serialized import NO_NOTE, trial_json
from hpo.web.storage import View, shown_attrs
from hpo.web.watched import Watched

MAX_CURVES = 300
"""Trials whose intermediate values are all shown: a browser takes milliseconds to draw the curve of one."""
BEST, LATEST = 100, 100
"""Of more trials, those whose intermediate values are shown."""
REDRAW = 10.0
"""Seconds between two drawings of our figures: each takes tens of milliseconds."""
WARM = 3
"""Studies that are read when the dashboard starts."""
ANSWERS = 8
"""Answers kept of each study: browsers that watch it ask for different parts."""


class Details:
    """Answers of all studies of a view."""

    def __init__(self, view: View) -> None:
        self.view = view
        self._lock = threading.Lock()
        self._of: dict[int, Detail] = {}

    def warm(self) -> None:
        """Make the first answers of the newest studies, so that nobody waits for them."""
        for study_id in sorted(self.view.rows(), reverse=True)[:WARM]:
            with contextlib.suppress(KeyError, HpoError):  # deleted meanwhile; the database is away
                self.answer(study_id, 0)

    def answer(self, study_id: int, after: int) -> bytes:
        """The study as JSON, compressed, with its trials from position `after` on.

        Raises:
            KeyError: there is no study with this id.
        """
        with self.view.study(study_id) as study:
            with self._lock:
                known = self._of.get(study_id)
                if known is None or known.study is not study:
                    known = self._of[study_id] = Detail(study, self.view)
            return known.answer(after)


class Detail:
    """Answers of one study, by whoever holds it."""

    def __init__(self, study: Watched, view: View) -> None:
        self.study = study
        self.view = view
        self._trials: dict[tuple[int, bool], tuple[FrozenTrial, str]] = {}
        """JSON of finished trials, by number and whether with their intermediate values."""
        self._answers: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        """By the versions of the study and of its figures, and by position."""
        self._plots: list[dict[str, str]] = []
        self._drawn = -REDRAW
        self._drawn_version = 0
        self._notes: dict[int | None, tuple[int, str]] = {}

    def answer(self, after: int) -> bytes:
        """JSON, compressed."""
        self._draw()
        key = (self.study.version, self._drawn_version, after)
        if key not in self._answers:
            text = self._text(after)
            self._answers[key] = gzip.compress(text.encode(), compresslevel=4, mtime=0)
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return self._answers[key]

    def _text(self, after: int) -> str:
        study = self.study
        notes = whole_notes(study.row)
        if notes != self._notes:
            self._trials.clear()
            self._notes = notes
        best = study.best(BEST) if len(study.row.directions) == 1 else []
        full = self._full(best, after)
        head = self._head(best[:1], thinned=full is not None)
        trials = [self._trial(trial, full is None or trial.number in full) for trial in study.trials[after:]]
        return f'{json.dumps(head, allow_nan=False)[:-1]}, "trials": [{",".join(trials)}]}}'

    def _full(self, best: Collection[FrozenTrial], after: int) -> set[int] | None:
        """Numbers of trials that are shown with their intermediate values; None for all.

        A page keeps what it was told of trials that have finished, and asks for the others alone: to it the
        latest would add up, the longer it is open.
        """
        if self._reported() <= MAX_CURVES:
            return None
        reported = [trial for trial in self.study.trials if trial.intermediate_values]
        running = {trial.number for trial in reported if trial.state == TrialState.RUNNING}
        latest = set() if after else {trial.number for trial in reported[-LATEST:]}
        return running | latest | {trial.number for trial in best}

    def _reported(self) -> int:
        return sum(bool(trial.intermediate_values) for trial in self.study.trials)

    def _trial(self, trial: FrozenTrial, full: bool) -> str:
        key = (trial.number, full)
        known = self._trials.get(key)
        if known is not None and known[0] is trial:
            return known[1]
        note = self._notes.get(trial._trial_id, NO_NOTE)
        written = trial_json(self.study.row.study_id, trial, note, full)
        if trial.state.is_finished():
            self._trials[key] = (trial, written)
        return written

    def _head(self, best: Collection[FrozenTrial], thinned: bool) -> dict[str, Any]:
        study = self.study
        intersection, union = study.space.parts()
        attrs = study.space.attrs
        head = {
            "name": study.row.name,
            "directions": [direction.name.lower() for direction in study.row.directions],
            "user_attrs": serialize_attrs(shown_attrs(study.row)),
            "artifacts": [],
            "best_trials": [json.loads(self._trial(trial, True)) for trial in best],
            "intersection_search_space": serialize_search_space(list(intersection)),
            "union_search_space": serialize_search_space(list(union)),
            "union_user_attrs": [{"key": name, "sortable": found} for name, found in sorted(attrs.items())],
            # With it the page draws a curve for each trial, an empty one too: minutes, of 10,000.
            "has_intermediate_values": not thinned and any(t.intermediate_values for t in study.trials),
            "note": study_note(study, self._hint(thinned)),
            "is_preferential": False,
            "feedback_component_type": {"output_type": "note"},
            "plotly_graph_objects": self._plots,
        }
        if study.config is not None:
            head["objective_names"] = [LABELS[study.config.metric]]
        return head

    def _hint(self, thinned: bool) -> str:
        hints = []
        if thinned:
            hints.append(
                f"Of so many trials this page has the intermediate values of those that run, the {BEST} best "
                f"and the {LATEST} latest alone, and draws those of an even sample."
            )
        if self.study.hidden:
            hints.append(f"{self.study.hidden:,} waiting trials behind the last claimed one are not listed.")
        return " ".join(hints)

    def _draw(self) -> None:
        now = time.monotonic()
        if self._drawn_version != self.study.version and now - self._drawn >= REDRAW:
            others = list(self.view.rows().values())
            self._plots = plots(self.study, others, curves=self._reported() > MAX_CURVES)
            self._drawn, self._drawn_version = now, self.study.version
