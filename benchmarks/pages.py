"""What large pages cost to make and to open: a report of many trials, a description of many rows.

usage: python benchmarks/pages.py [--trials 10000] [--rows 100000] [--columns 20] [--opened 5] [--width 1280]
                                  [--keep FOLDER]

`hpo report` of a study with `trials` finished trials in a SQLite file, and `hpo describe` of a table of
`rows` x `columns` numbers and three classes, each in a process of its own: seconds on the clock and of the
processor, and megabytes of the page. Then each page is opened `opened` times, each time in a new Chromium:
seconds since the navigation began until the text is there (first contentful paint), until the figures in view
are drawn, until all are, with the page scrolled through by half screens; the longest time for which it
answered nobody (long task); and the processor's seconds of the page's process until its figures in view are
drawn, and in all. Medians, and the slowest.

The clock counts what other processes of the machine take: run it on an idle one, or read the processor's
seconds.
"""

import argparse
import csv
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from dashboard import fill
from playwright.sync_api import sync_playwright

DESCRIBED = """\
name: rows
data: {source: csv, path: rows.csv, target: target}
search: {dropout: {low: 0.0, high: 0.5}}
"""
SIZES = {"trials": 10_000, "rows": 100_000, "columns": 20, "opened": 5, "width": 1280}
HEIGHT = 900
WATCH = """
window.longest = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({type: "longtask", buffered: true});
"""
IN_VIEW = """() => new Promise((answer) => {
    const look = () => [...document.querySelectorAll(".plot")].every((plot) => {
        const { top, bottom } = plot.getBoundingClientRect();
        return bottom < 0 || top > innerHeight || plot.querySelector(".main-svg");
    }) ? answer(performance.now()) : setTimeout(look, 10);
    look();
})"""
COUNT = (
    """() => ["", " .main-svg:first-child"].map((what) => document.querySelectorAll(".plot" + what).length)"""
)
PAINTED = """() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime"""


def table(folder, rows, columns):
    """A study file of a table of so many numbers, of which every other one tells of the class."""
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 3, rows)
    values = generator.normal(size=(rows, columns)) + codes[:, None] * (np.arange(columns) % 2)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"column {place}" for place in range(columns)), "target"])
        for row, code in zip(values.round(4).tolist(), codes, strict=True):
            writer.writerow([*row, "abc"[code]])
    path = folder / "rows.yaml"
    path.write_text(DESCRIBED)
    return path


def made(folder, page, *arguments):
    """The page, and what it took."""
    environment = os.environ | {"HPO_CACHE": str(folder / "cache")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "hpo.cli", *arguments, "--out", str(page)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = page.stat().st_size / 1e6
    print(f"{page.name}: made in {took:.1f} s ({processor:.1f} s of the processor), {size:.2f} MB")
    return page


def processor_seconds(session):
    """Of the page's process, since it began."""
    metrics = {found["name"]: found["value"] for found in session.send("Performance.getMetrics")["metrics"]}
    return metrics["ProcessTime"]


def opened(playwright, path, width):
    """Seconds by what they are of, for one opening; and how many figures there are."""
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": width, "height": HEIGHT})
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.add_init_script(WATCH)
    before = processor_seconds(session)
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_load_state()
    found = {"in view": page.evaluate(IN_VIEW) / 1000}
    found["text"] = page.evaluate(PAINTED) / 1000
    found["processor, in view"] = processor_seconds(session) - before
    bottom = page.evaluate("document.documentElement.scrollHeight")
    for top in range(0, bottom, HEIGHT // 2):
        page.evaluate("(top) => scrollTo(0, top)", top)
        found["all"] = page.evaluate(IN_VIEW) / 1000
    found["processor, all"] = processor_seconds(session) - before
    found["longest task"] = page.evaluate("longest") / 1000
    figures, drawn = page.evaluate(COUNT)
    browser.close()
    if drawn < figures:
        raise SystemExit(f"{path.name}: {figures - drawn} figures were not drawn")
    return found, figures


def measure(playwright, path, times, width):
    """Opens the page so many times, and prints what it took."""
    runs = [opened(playwright, path, width) for _ in range(times)]
    print(f"  {runs[0][1]} figures, {width} pixels wide; seconds, median (slowest) of {times}:")
    for name in ("text", "in view", "all", "longest task", "processor, in view", "processor, all"):
        values = [found[name] for found, _ in runs]
        print(f"  {name:20} {statistics.median(values):5.2f} ({max(values):.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (
        ("trials", 10_000),
        ("rows", 100_000),
        ("columns", 20),
        ("opened", 5),
        ("width", 1280),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, help="a folder for the pages and what they are made of")
    asked = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{folder / 'hpo.db'}"
        fill(storage, folder, asked.trials, 10)
        report = made(folder, folder / "report.html", "report", "large", "--storage", storage)
        measure(playwright, report, asked.opened, asked.width)
        data = made(folder, folder / "data.html", "describe", str(table(folder, asked.rows, asked.columns)))
        measure(playwright, data, asked.opened, asked.width)
    print(f"load after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
