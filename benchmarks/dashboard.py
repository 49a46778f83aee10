"""What a large study costs to look at: `hpo dashboard` against stock optuna-dashboard, in one run.

usage: python benchmarks/dashboard.py [--trials 10000] [--values 10] [--stock-limit 120] [--watchers 3]
                                      [--skip-stock] [--skip-search]

A SQLite file of its own with `trials` finished trials of `values` intermediate values each. Of both
dashboards, each in a process of its own: seconds until the study's page is usable in Chromium (its history is
drawn and the page answers again), bytes of /api/studies/N as they go over the wire, seconds of that answer
(the first, and the median of 5), and milliseconds of what an open page asks for again and again (`after=`;
median of 20).

Then the search itself: trials per hour of one worker process alone, and while `watchers` clients each ask for
the whole study every second, which is more than an open page does; by turns, medians.
"""

import argparse
import contextlib
import gzip
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from optuna.trial import TrialState
from playwright.sync_api import TimeoutError as PageTimeout
from playwright.sync_api import sync_playwright

from hpo.search.database import Database
from hpo.search.records import Changes, Finish
from hpo.search.store import Store
from hpo.search.studies import Studies
from hpo.search.submission import submit
from hpo.space import distributions
from hpo.studyfile import load_study

SEARCH = """\
name: {name}
data: {{source: sklearn, name: digits}}
search:
  dropout: {{low: 0.0, high: 0.7}}
  learning_rate: {{low: 1.0e-4, high: 1.0e-1, log: true}}
  batch_size: {{choices: [32, 64]}}
  optimizer: {{choices: [adam, rmsprop, sgd]}}
training: {{epochs: {epochs}}}
trials: {trials}
sampler: random
"""


def study_file(folder, name, trials, epochs):
    path = folder / f"{name}.yaml"
    path.write_text(SEARCH.format(name=name, trials=trials, epochs=epochs))
    return load_study(path)


def fill(url, folder, trials, values):
    """A study with so many finished trials, a sixth of them pruned."""
    config = study_file(folder, "large", trials, values)
    space = distributions(config.search)
    generator = random.Random(0)
    with Database(url) as database:
        database.create_schema()
        study = submit(Studies(database), config, "none")
        store = Store(database)
        while claims := store.claim(study.study_id, "filler", {}, 500, 500):
            changes = Changes()
            for claim in claims:
                add(changes, claim.trial_id, space, values, generator)
            store.record("filler", {claim.trial_id: claim.attempt for claim in claims}, changes)
    return study.study_id


def add(changes, trial, space, values, generator):
    """One finished trial."""
    quality = generator.random()
    for name, found in space.items():
        choices = getattr(found, "choices", None)
        value = generator.choice(choices) if choices else generator.uniform(found.low, found.high)
        changes.params.append((trial, name, found.to_internal_repr(value), found))
    for step in range(1, values + 1):
        noise = 0.01 * generator.random()
        changes.steps.append((trial, step, quality * step / (step + 2) + noise))
    attrs = {"epochs": values, "seconds": generator.random(), "worker": "filler-1-abc", "attempt": 1}
    changes.user_attrs += [(trial, name, found) for name, found in attrs.items()]
    state = TrialState.PRUNED if generator.random() < 1 / 6 else TrialState.COMPLETE
    changes.finishes.append(Finish(trial, state, quality))


@contextlib.contextmanager
def running(*command):
    """A dashboard in a process of its own; answers its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"XDG_CONFIG_HOME": "/nonexistent"}  # without the developer's own password
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--port", str(port)], env=environment, **quiet)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def fetch(address):
    """Seconds and bytes of an answer, as they come over the wire."""
    began = time.perf_counter()
    asked = urllib.request.Request(address, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(asked, timeout=600) as answer:
        body = answer.read()
        packed = answer.headers.get("Content-Encoding") == "gzip"
    seconds = time.perf_counter() - began
    json.loads(gzip.decompress(body) if packed else body)
    return seconds, len(body)


def usable(address, limit):
    """Seconds until the study's page in a browser has drawn its history and answers a click again."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(limit * 1000)
        began = time.perf_counter()
        try:
            page.goto(f"{address}/dashboard/studies/1")
            page.locator(".js-plotly-plot .scatterlayer .point, .js-plotly-plot canvas").first.wait_for(
                state="attached"
            )
            page.locator("h6", has_text="Best Trial").first.wait_for()
            page.wait_for_timeout(50)  # the page's own work comes before it
            page.get_by_text("Log y scale").first.click(trial=True)
        except PageTimeout:
            return None
        finally:
            browser.close()
        return time.perf_counter() - began


def look(name, address, trials, limit):
    first, size = fetch(f"{address}/api/studies/1?after=0")
    again = statistics.median(fetch(f"{address}/api/studies/1?after=0")[0] for _ in range(5))
    polls = [fetch(f"{address}/api/studies/1?after={trials}")[0] for _ in range(20)]
    page = usable(address, limit)
    shown = f"over {limit} s" if page is None else f"{page:.1f} s"
    print(
        f"{name:18} page usable {shown}, answer {size / 1e6:.2f} MB, first {first:.2f} s, again "
        f"{again:.3f} s, polling {statistics.median(polls) * 1000:.0f} ms (longest {max(polls) * 1000:.0f})",
        flush=True,
    )


def search(url, config, watched):
    """Trials per hour of one worker, started until ended; `watched` clients look on."""
    command = [sys.executable, "-m", "hpo.cli"]
    environment = os.environ | {"HPO_STORAGE": url, "HPO_CACHE": str(config.folder / "cache")}
    file = config.folder / f"{config.name}.yaml"
    subprocess.run([*command, "submit", file], env=environment, check=True, capture_output=True)
    ended = threading.Event()

    def watch(address):
        while not ended.wait(1.0):
            fetch(f"{address}/api/studies/1?after=0")  # all of it: more than an open page asks for

    with contextlib.ExitStack() as stack:
        if watched:
            address = stack.enter_context(running(*command, "dashboard", "--storage", url))
            clients = [threading.Thread(target=watch, args=(address,)) for _ in range(watched)]
            for client in clients:
                client.start()
        began = time.perf_counter()
        subprocess.run([*command, "worker", config.name], env=environment, check=True, capture_output=True)
        seconds = time.perf_counter() - began
        ended.set()
        for client in clients if watched else ():
            client.join()
    return config.trials / seconds * 3600


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--values", type=int, default=10)
    parser.add_argument("--stock-limit", type=int, default=120, help="seconds")
    parser.add_argument("--watchers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--searched", type=int, default=128, help="trials of each search")
    parser.add_argument("--skip-stock", action="store_true")
    parser.add_argument("--skip-search", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = f"sqlite:///{folder}/large.db"
        fill(url, folder, options.trials, options.values)
        with running(sys.executable, "-m", "hpo.cli", "dashboard", "--storage", url) as address:
            look("hpo dashboard", address, options.trials, options.stock_limit)
        if not options.skip_stock:
            stock = Path(sys.executable).parent / "optuna-dashboard"
            with running(str(stock), url) as address:
                look("optuna-dashboard", address, options.trials, options.stock_limit)
        if options.skip_search:
            return
        paces = {0: [], options.watchers: []}
        for number in range(options.rounds):
            for watched, found in paces.items():
                config = study_file(folder, f"search{number}w{watched}", options.searched, 30)
                found.append(search(f"sqlite:///{folder}/{config.name}.db", config, watched))
        alone, looked_at = (statistics.median(found) for found in paces.values())
        print(
            f"search alone {alone:,.0f} trials an hour, with {options.watchers} watching {looked_at:,.0f}: "
            f"{looked_at / alone - 1:+.1%} ({paces})"
        )


if __name__ == "__main__":
    main()
