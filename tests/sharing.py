"""How tests are shared out between processes, under `pytest -n`."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "test_faults.py": "timed",
    "test_launch.py": "timed",
    "test_leases.py": "timed",
    "test_memory.py": "timed",
    "test_run.py": "run",
    "test_dashboard_browser.py": "browser",
    "test_describe_browser.py": "browser",
    "test_report_browser.py": "browser",
    "test_ray.py": "ray",
    "test_optuna_contract.py": "contract",
    "test_explain.py": "explain",
    "test_explain_browser.py": "explain",
    "test_image_studies.py": "images",
    "test_report.py": "report",
    "test_report_command.py": "report",
    "test_compare.py": "compare",
    "test_bundle.py": "bundle",
    "test_predict.py": "bundle",
    "test_dashboard.py": "dashboard",
    "test_finalize.py": "finalize",
    "test_selection.py": "selection",
}
"""Files whose tests all run in one process, by the name they share. Of those that measure time no two run at
once; of the others, what a module's fixture made is made once. The longest come first."""
ORDER = list(dict.fromkeys(TOGETHER.values()))


class Sharing(LoadScopeScheduling):
    """Tests go one by one to whichever process is free, those that belong together as one, in order.

    pytest-xdist's own `--dist loadgroup` would do this, but 3.8 has no effect under pytest 9: it writes the
    group into `Item._nodeid`, which is no longer read.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0].rpartition("/")[2]
        return TOGETHER.get(file, nodeid)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that belong together, then the slow ones: at the end no process is busy long after the others."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = TOGETHER.get(item.path.name)
        return (ORDER.index(name), False) if name else (len(ORDER), "slow" not in item.keywords)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Sharing:
    config.option.loadscopereorder = False  # by the number of tests, which says nothing of their time
    return Sharing(config, log)
