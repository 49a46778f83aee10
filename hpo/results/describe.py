"""What a study's data hold, before anything is trained on them. The sealed test part is only counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hpo.config import StudyConfig
from hpo.data.prepare import prepare
from hpo.data.prepared import PreparedData
from hpo.data.unsealed import UnsealedImages, UnsealedTable, unsealed
from hpo.results.describe_columns import (
    Cell,
    Column,
    MissingRows,
    columns,
    missing_rows,
    unparsable_cells,
)
from hpo.results.describe_groups import View, view_of
from hpo.results.describe_images import ImageFacts, image_facts
from hpo.results.describe_labels import ROWS, Suspects, no_suspects, suspect_labels, suspect_numbers
from hpo.results.describe_projection import encoded
from hpo.results.describe_relations import (
    Correlations,
    Drift,
    MutualInformation,
    correlations,
    mutual_information,
    part_drifts,
)
from hpo.results.describe_rows import Duplicates, duplicates
from hpo.results.metrics import Record
from hpo.results.summary import data_name

MOST_ROWS = 1_000_000
"""More are sampled."""
MOST_COLUMNS = 200
"""More are left out, evenly."""
CORRELATED = 30


class PartFacts(Record):
    """One part of the data."""

    name: str
    rows: int
    counts: tuple[int, ...]
    """By class; empty for regression, and of a test part that was sealed before they were recorded."""


class TableFacts(Record):
    """Rows and columns that are not sealed."""

    place: str
    """What rows are named by: line (of the file) or row (of the array)."""
    rows: int
    dropped: int
    """Rows that `missing: drop` leaves out."""
    column_count: int
    columns: tuple[Column, ...]
    unparsable: tuple[Cell, ...]
    missing_rows: tuple[MissingRows, ...]
    duplicates: Duplicates
    information: MutualInformation | None
    correlations: Correlations | None
    drifts: tuple[Drift, ...]
    suspects: Suspects


class Facts(Record):
    """What is said of a study's data: JSON-able."""

    study: str
    data: str
    """What the study file calls them."""
    task: str
    classes: tuple[str, ...]
    parts: tuple[PartFacts, ...]
    sampled: int | None
    """Of more rows, so many were drawn to describe."""
    noticed: tuple[str, ...]
    """While the data were cleaned, of all rows."""
    table: TableFacts | None = None
    images: ImageFacts | None = None


@dataclass(frozen=True)
class Description:
    """The facts, and what figures are drawn from."""

    facts: Facts
    view: View | None
    """Of a table."""
    images: UnsealedImages | None
    numbers: "np.typing.NDArray[np.int64]"
    """[N] of the images, as `ImageFacts` numbers them."""


def describe(config: StudyConfig, most_rows: int = MOST_ROWS) -> Description:
    """Describe the data of a study, which are prepared if they are not yet.

    most_rows: of more, so many are drawn; what is counted is then counted among these.

    Raises:
        DataError: the data are missing or unusable.
        UserCodeError: the user's own function cannot be loaded.
    """
    prepared = prepare(config)
    rows = unsealed(config, prepared)
    count = len(rows.targets)
    chosen = np.arange(count)
    if count > most_rows:
        chosen = np.sort(np.random.default_rng(0).choice(count, most_rows, replace=False))
    facts = Facts(
        study=config.name,
        data=data_name(config),
        task=prepared.task,
        classes=prepared.classes,
        parts=tuple(_parts(prepared)),
        sampled=most_rows if count > most_rows else None,
        noticed=tuple(finding.text for finding in prepared.findings),
    )
    if isinstance(rows, UnsealedImages):
        images = UnsealedImages(rows.pixels[chosen], rows.targets[chosen], rows.validation[chosen])
        found = image_facts(images, prepared.classes, chosen + 1)
        return Description(facts.model_copy(update={"images": found}), None, images, chosen + 1)
    table = rows.take(chosen) if count > most_rows else rows
    narrow = _narrowed(table)
    view = view_of(narrow, prepared.classes)
    found_in_table = _table_facts(table, narrow, view)
    return Description(facts.model_copy(update={"table": found_in_table}), view, None, chosen + 1)


def _parts(prepared: PreparedData) -> Sequence[PartFacts]:
    fold = prepared.folds[0]
    size = len(prepared.classes)
    parts = []
    for name, targets in (("training", fold.train.targets), ("validation", fold.validation.targets)):
        counts = torch.bincount(targets, minlength=size).tolist() if size else ()
        parts.append(PartFacts(name=name, rows=len(targets), counts=tuple(counts)))
    return [*parts, PartFacts(name="test", rows=prepared.sizes["test"], counts=prepared.test_counts)]


def _narrowed(table: UnsealedTable) -> UnsealedTable:
    width = table.frame.shape[1]
    if width <= MOST_COLUMNS:
        return table
    chosen = np.linspace(0, width - 1, MOST_COLUMNS).astype(np.int64)
    return replace(table, frame=table.frame.iloc[:, chosen])


def _table_facts(table: UnsealedTable, narrow: UnsealedTable, view: View) -> TableFacts:
    information = mutual_information(view) if view.frame.shape[1] else None
    first = [found.column for found in information.columns] if information else []
    return TableFacts(
        place=table.place,
        rows=len(table.targets),
        dropped=int(table.dropped.sum()),
        column_count=table.frame.shape[1],
        columns=tuple(columns(narrow)),
        unparsable=tuple(unparsable_cells(table)),
        missing_rows=tuple(missing_rows(table)),
        duplicates=duplicates(table, view.classes),
        information=information,
        correlations=correlations(view, CORRELATED, first) if first else None,
        drifts=tuple(part_drifts(view)),
        suspects=_suspects(view),
    )


def _suspects(view: View) -> Suspects:
    sample = view.sample(ROWS)
    features = encoded(sample.frame)
    if not features.shape[1]:
        return no_suspects("There is no column to learn from.")
    if view.classes:
        return suspect_labels(features, sample.groups.codes, sample.places, view.classes)
    return suspect_numbers(features, sample.targets.astype(np.float64), sample.places)
