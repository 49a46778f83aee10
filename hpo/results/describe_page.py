"""The description of a study's data as one self-contained HTML file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hpo.results import describe_figures, describe_plane
from hpo.results.describe import MOST_ROWS, Description, Facts, TableFacts
from hpo.results.describe_columns import OUTLIER_RULE, ZERO_RULE, is_numeric
from hpo.results.describe_groups import View
from hpo.results.describe_images import BRIGHTNESS_RULE, ImageFacts
from hpo.results.describe_labels import RULE, RULE_OF_NUMBERS
from hpo.results.describe_near import RULE as NEAR_RULE
from hpo.results.describe_projection import Projection, project
from hpo.results.describe_text import matters, overview
from hpo.results.describe_thumbnails import class_pictures, pictures_of
from hpo.results.page import Panel, drawn_panel, page

DRAWN = 24
"""Columns whose distribution is drawn: each plot takes the browser 20 ms."""
POINTS = 1000
CELLS = 60
"""Cells or rows of one list, at most."""


@dataclass(frozen=True)
class Section:
    """Figures under one heading."""

    id: str
    title: str
    caption: str
    panels: Sequence[Panel]
    layout: str = ""
    """A class of page.html: `grid` for many small ones, `pair` for two side by side."""


def render_description(description: Description) -> str:
    """The page's HTML: nothing in it comes from elsewhere, and only its own scripts can run."""
    facts = description.facts
    sections = figure_sections(description)
    return page(
        "describe.html",
        [panel for section in sections for panel in section.panels],
        facts=facts,
        matters=matters(facts),
        overview=overview(facts),
        sections=sections,
        most_cells=CELLS,
        most_rows=MOST_ROWS,
        rules={
            "outliers": OUTLIER_RULE,
            "zeros": ZERO_RULE,
            "labels": RULE if facts.classes else RULE_OF_NUMBERS,
            "near": NEAR_RULE,
            "brightness": BRIGHTNESS_RULE,
        },
        looks=class_pictures(description.images, facts.classes) if description.images else [],
        shown=_shown(description),
    )


def panels(description: Description) -> Iterator[Panel]:
    """All figures of the page, for pictures of them."""
    for section in figure_sections(description):
        yield from section.panels


def figure_sections(description: Description) -> list[Section]:
    """The figures, in the page's order."""
    facts = description.facts
    if description.view is not None and facts.table is not None:
        return list(_of_table(facts, facts.table, description.view))
    return list(_of_images(facts, facts.images)) if facts.images else []


def _balance(facts: Facts, things: str) -> Panel:
    recorded = all(part.counts for part in facts.parts)
    unknown = "" if recorded else " The test part was sealed before hpo recorded its classes."
    return drawn_panel(
        "balance",
        "Class balance",
        f"{things.capitalize()} of each class, by part. Of the sealed test part no more than this is known "
        "here." + unknown,
        lambda: describe_figures.balance(facts.parts, facts.classes, things),
        min_width=min(900, 60 + 14 * len(facts.classes)) if len(facts.classes) > 20 else 0,
    )


def _of_table(facts: Facts, table: TableFacts, view: View) -> Iterator[Section]:
    if facts.classes:
        target = _balance(facts, "rows")
    else:
        caption = (
            "The numbers to predict, in both parts that are not sealed. What lies beyond the middle 99 % "
            "counts in the outermost bins."
        )
        target = drawn_panel("target", "The target", caption, lambda: describe_figures.targets_by_part(view))
    lacking = drawn_panel(
        "missing",
        "Missing cells",
        "Cells without a value, by column"
        + (f"; the worst {describe_figures.BARS}." if len(table.columns) > describe_figures.BARS else "."),
        lambda: describe_figures.missing(table.columns, table.rows),
    )
    yield Section("target-and-gaps", "Target and gaps", "", [target, lacking], "pair")
    if table.information is None:
        return
    leading = [column.column for column in table.information.columns]
    yield _distributions(view, leading, bool(facts.classes))
    yield _relations(table, view, leading)
    yield _projection(project(view, POINTS))


def _distributions(view: View, leading: Sequence[str], classes: bool) -> Section:
    drawn = [
        drawn_panel(f"column-{place}", name, "", partial(describe_figures.distribution, view, name))
        for place, name in enumerate(leading[:DRAWN])
    ]
    whose = "class" if classes else "third of the target"
    more = (
        f" The {DRAWN} columns that tell most are drawn, of {len(leading)}." if len(leading) > DRAWN else ""
    )
    return Section(
        "distributions",
        f"Columns by {whose}",
        f"Shares of each {whose.split()[0]}'s rows, so that rare ones can be compared; the columns that tell "
        "most about the target come first. What lies beyond the middle 99 % counts in the outermost bins."
        + more,
        drawn,
        "grid",
    )


def _relations(table: TableFacts, view: View, leading: Sequence[str]) -> Section:
    found, telling = table.correlations, table.information
    assert found is not None and telling is not None  # there is a column
    wide = describe_plane.width(found.pearson)
    drawn = [
        drawn_panel(
            "information",
            "What a column tells by itself",
            f"Estimated on {telling.rows:,} rows by nearest neighbours. Left of the dashed line it may be "
            "noise.",
            lambda: describe_figures.information(telling),
        ),
        drawn_panel(
            "pairs",
            "Pairs of columns",
            f"The columns of numbers that tell most, at most {describe_plane.PAIR_POINTS} rows; outliers lie "
            "at the edge.",
            lambda: describe_plane.pairs(view, leading),
            min_width=560,
        ),
        drawn_panel(
            "pearson",
            "Linear correlation",
            "Pearson's r between columns of numbers.",
            lambda: describe_plane.correlation(found.pearson, "Pearson's r"),
            min_width=wide,
        ),
        drawn_panel(
            "spearman",
            "Rank correlation",
            "Spearman's coefficient: what rises together, along whatever curve.",
            lambda: describe_plane.correlation(found.spearman, "Spearman's rho"),
            min_width=wide,
        ),
    ]
    if found.cramer is not None and any(not is_numeric(view.frame[name]) for name in view.frame):
        cramer = found.cramer
        drawn.append(
            drawn_panel(
                "cramer",
                "Association of categories",
                "Cramér's V, from 0 (none) to 1 (one tells the other); of columns with at most 50 "
                "categories.",
                lambda: describe_plane.correlation(cramer, "Cramér's V", signed=False),
                min_width=describe_plane.width(cramer),
            )
        )
    return Section("relations", "How columns relate", "", drawn, "pair")


def _projection(found: Projection | None) -> Section:
    return Section(
        "components",
        "Principal components",
        "Of the standardized columns, categories as 0/1 columns, missing cells filled in with the median, "
        f"outliers cut. At most {POINTS:,} rows.",
        [
            drawn_panel(
                "pca",
                "Rows on the first two",
                "Rows that lie together are alike.",
                lambda: describe_plane.components(found),
            ),
            drawn_panel(
                "explained",
                "Variance of the first ones",
                "How many directions the rows differ in.",
                lambda: describe_plane.explained(found),
            ),
        ],
        "pair",
    )


def _of_images(facts: Facts, images: ImageFacts) -> Iterator[Section]:
    yield Section(
        "balance-and-brightness",
        "Classes and brightness",
        "",
        [
            _balance(facts, "images"),
            drawn_panel(
                "brightness",
                "Brightness by class",
                "Mean pixel of the images that are not sealed: median, quartiles, and 5 to 95 %.",
                lambda: describe_figures.brightness(images.brightness),
                min_width=min(900, 60 + 14 * len(facts.classes)) if len(facts.classes) > 20 else 0,
            ),
        ],
        "pair",
    )


def _shown(description: Description) -> dict[int, str]:
    """The images that the page names, by number."""
    images, found = description.images, description.facts.images
    if images is None or found is None:
        return {}
    numbers = {pair.train for pair in found.near.pairs} | {pair.validation for pair in found.near.pairs}
    numbers |= {suspect.place for suspect in found.suspects.examples}
    numbers |= set(found.apart[:CELLS]) | set(found.blank[:CELLS])
    ordered = sorted(numbers)
    rows = np.searchsorted(description.numbers, ordered)
    return dict(zip(ordered, pictures_of(images, rows.tolist()), strict=True))
