"""What a worker asks Optuna: which parameters to try, and which trials to prune."""

from optuna.study import Study
from optuna.trial import Trial

from hpo.config import StudyConfig
from hpo.search.pruners import make_pruner
from hpo.search.records import Claim, StudyRecord
from hpo.search.running import RunningTrial
from hpo.search.samplers import make_sampler
from hpo.search.snapshot import Snapshot
from hpo.search.status import WARM_START
from hpo.search.tpe import Known
from hpo.space import Value, suggest

SHOWN = 250
"""Trials that a sampler sees, for TPE's time grows with them: `benchmarks/sampler_history.py` compares."""


class Advice:
    """Of a study's sampler and pruner, which see its snapshot."""

    def __init__(self, study: StudyRecord, config: StudyConfig, snapshot: Snapshot) -> None:
        self.config = config
        self.snapshot = snapshot
        self.optuna = Study(study.name, snapshot, pruner=make_pruner(config))
        self.known = Known()
        began = study.attrs.get(WARM_START, {"trials": []})
        self.first = [trial["params"] for trial in began["trials"]]
        """Parameters of the study's first trials, which are an earlier study's."""

    def params(self, claim: Claim) -> dict[str, Value]:
        """The parameters of a trial that the snapshot has adopted."""
        # A new one each time: until its `ask` or `tell`, a `Study` shows a sampler the trials it read first.
        sampler = make_sampler(self.config, claim.number, self.known, self.first)
        self.optuna = Study(self.optuna.study_name, self.snapshot, sampler, self.optuna.pruner)
        with self.snapshot.at_most(SHOWN):
            return suggest(Trial(self.optuna, claim.trial_id), self.config.search)

    def prunes(self, trial: RunningTrial) -> bool:
        """Whether to end a trial after its last epoch; what was decided before is not decided again."""
        last = max(trial.values)
        return last > trial.decided and self.optuna.pruner.prune(self.optuna, trial.frozen)
