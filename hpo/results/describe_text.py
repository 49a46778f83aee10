"""What matters about a study's data, in sentences with numbers."""

from collections.abc import Iterable, Iterator, Sequence

from hpo.results.describe import Facts, TableFacts
from hpo.results.describe_columns import Column
from hpo.results.describe_images import ImageFacts

NAMED = 8
RARE = 0.05
"""Share of the rows below which a class is called rare, if it has less than a fifth of an even share too."""


def matters(facts: Facts) -> list[str]:
    """What to look at before training, the worst first; one sentence of praise where nothing stands out."""
    found = [*_of_table(facts.table)] if facts.table else []
    if facts.images:
        found += _of_images(facts.images)
    found += _rare_classes(facts)
    if not found:
        found = ["Nothing stands out: no cell, row or label looks wrong by the rules that this page states."]
    return [*found, *_sampled(facts)]


def overview(facts: Facts) -> str:
    """Size and parts, in one sentence."""
    parts = {part.name: part.rows for part in facts.parts}
    things = "images" if facts.images else "rows"
    kinds = f" of {len(facts.classes):,} classes" if facts.classes else " with a number to predict"
    shape = ""
    if facts.images:
        channels, height, width = facts.images.shape
        shape = f", {width} by {height} pixels, {'grey' if channels == 1 else 'in colour'}"
    elif facts.table:
        shape = f", {_count(facts.table.column_count, 'column')}"
    return (
        f"{sum(parts.values()):,} {things}{kinds}{shape}: {parts['training']:,} to train on, "
        f"{parts['validation']:,} to validate on, and {parts['test']:,} sealed ones, which are only counted "
        "here."
    )


def _of_table(table: TableFacts) -> Iterator[str]:
    if table.unparsable:
        places = _named(f"{cell.place}" for cell in table.unparsable)
        verb = (
            "does not parse as a number and counts"
            if len(table.unparsable) == 1
            else ("do not parse as numbers and count")
        )
        plural = "" if len(table.unparsable) == 1 else "s"
        yield f"{_count(len(table.unparsable), 'cell')} {verb} as missing ({table.place}{plural} {places})."
    if table.dropped:
        yield f"{_count(table.dropped, 'row')} with missing cells {_is(table.dropped)} dropped."
    yield from _repeated(table)
    yield from _zeros(table.columns)
    yield from _missing(table)
    yield from _outliers(table)
    for kind in ("empty", "constant"):
        if named := [column.name for column in table.columns if column.kind == kind]:
            yield f"{_columns(named)} {_is(len(named))} {kind}."
    if drifting := [drift.column for drift in table.drifts if drift.drifts]:
        verb = "differs" if len(drifting) == 1 else "differ"
        yield f"{_columns(drifting)} {verb} between training and validation part by more than chance."
    if table.suspects.surprising:
        count = table.suspects.count
        yield f"{_count(count, 'target')} {_look(count)} wrong to two models that had not seen them."


def _repeated(table: TableFacts) -> Iterator[str]:
    found = table.duplicates
    if found.repeated:
        verb = "is a duplicate of an earlier one" if found.repeated == 1 else "are duplicates of earlier ones"
        leaked = f"; {found.in_both:,} of the validation part are in the training part too"
        yield f"{_count(found.repeated, 'row')} {verb}{leaked if found.in_both else ''}."
    if found.contradicting:
        yield f"{found.contradicting:,} rows equal others in all columns but have another target."


def _zeros(columns: Sequence[Column]) -> Iterator[str]:
    found = [column for column in columns if column.suspicious_zeros]
    if len(found) == 1:
        yield f"{found[0].name} has {found[0].zeros:,} zeros that look like missing values."
    elif found:
        listed = _named(f"{column.name} ({column.zeros:,})" for column in found)
        yield f"{len(found)} columns have zeros that look like missing values: {listed}."


def _missing(table: TableFacts) -> Iterator[str]:
    columns = [column for column in table.columns if column.missing and column.kind != "empty"]
    if not columns:
        return
    total = sum(column.missing for column in columns)
    worst = max(columns, key=lambda column: column.missing)
    share = worst.missing / table.rows
    others = "" if len(columns) == 1 else f"{len(columns)} columns, most of them in "
    yield f"{_count(total, 'cell')} {_is(total)} missing in {others}{worst.name} ({share:.1%} of its rows)."


def _outliers(table: TableFacts) -> Iterator[str]:
    columns = [column for column in table.columns if column.outliers]
    if not columns:
        return
    total = sum(column.outliers for column in columns)
    listed = _named(
        f"{column.name} {column.outlier_cells[0].value} on {table.place} {column.outlier_cells[0].place}"
        for column in sorted(columns, key=lambda column: column.outliers)
    )
    such = "" if total == 1 else ", such as"
    yield f"{_count(total, 'cell')} {'is an outlier' if total == 1 else 'are outliers'}{such}: {listed}."


def _of_images(images: ImageFacts) -> Iterator[str]:
    near = images.near
    if near.count:
        also = f"; {near.contradicting:,} of them with another class" if near.contradicting else ""
        what = "1 validation image is" if near.count == 1 else f"{near.count:,} validation images are"
        yield f"{what} in the training part too, or almost{also}."
    if images.blank:
        yield f"{_count(len(images.blank), 'image')} {_is(len(images.blank))} blank."
    if images.apart:
        verb = "stands" if len(images.apart) == 1 else "stand"
        yield f"{_count(len(images.apart), 'image')} {verb} apart in brightness or contrast."
    if images.suspects.surprising:
        count = images.suspects.count
        yield f"{_count(count, 'label')} {_look(count)} wrong to two models that had not seen their images."


def _rare_classes(facts: Facts) -> Iterator[str]:
    if not facts.classes:
        return
    counts = [sum(found) for found in zip(*(part.counts for part in facts.parts if part.counts), strict=True)]
    total = sum(counts)
    limit = min(RARE, 0.2 / len(counts)) * total
    rare = [(name, count) for name, count in zip(facts.classes, counts, strict=True) if count < limit]
    if len(rare) == 1:
        yield f"Class {rare[0][0]} is rare: {rare[0][1]:,} of {total:,}."
    elif rare:
        yield f"{len(rare)} classes are rare: {_named(f'{name} ({count:,})' for name, count in rare)}."


def _sampled(facts: Facts) -> Iterator[str]:
    if facts.sampled:
        yield f"All of this is of a sample of {facts.sampled:,}: there are more than that."
    if facts.table and len(facts.table.columns) < facts.table.column_count:
        shown, every = len(facts.table.columns), facts.table.column_count
        yield f"Of {every:,} columns, {shown} are described, evenly spread."


def _count(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _look(count: int) -> str:
    return "looks" if count == 1 else "look"


def _columns(names: Sequence[str]) -> str:
    return f"Column{'' if len(names) == 1 else 's'} {_named(names)}"


def _named(names: Iterable[str]) -> str:
    """The first ones, and how many more."""
    listed = list(names)
    more = f" and {len(listed) - NAMED:,} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more
