"""`python -m ray_standin STUDY FOLDER`: what nodes of Ray run for `hpo worker`; trains the stand-in."""

import os
import sys
from pathlib import Path

from checker import Log
from crew import Plan
from faults import LoggedStore
from standin import StandIn, StandInCheckpoints

from hpo.search.database import Database
from hpo.search.processes import STORAGE
from hpo.search.stopping import stop_on_signals
from hpo.search.studies import Studies
from hpo.search.submission import config_of
from hpo.search.worker import Worker

if __name__ == "__main__":
    plan = Plan(os.environ[STORAGE], sys.argv[1], Path(sys.argv[2]), lanes=4, epoch=0.15)
    with stop_on_signals() as stop, Database(plan.url) as database:
        study = Studies(database).study(plan.study)
        log = Log(plan.folder)
        store = LoggedStore(database, log, "", plan.lease)
        checkpoints = StandInCheckpoints(plan.folder / "checkpoints", store.end)
        training = StandIn(plan, log)
        worker = Worker(database, study, config_of(study), training, plan.options, stop, checkpoints)
        worker.held.store = store
        print("at work", flush=True)
        worker.run()
