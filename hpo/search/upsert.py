"""Rows that are inserted, or updated where they stand: all of them in one statement."""

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from hpo.search.database import Database


class Upsert:
    """INSERT into a table, or where a row of the same key stands, set some of its columns.

    Postgres takes the rows as arrays: 16 of them as one statement each took 0.7 ms.
    """

    def __init__(
        self, database: Database, table: sa.Table, key: Sequence[str], update: Sequence[str], **fixed: Any
    ) -> None:
        """`update`: what is set in a row that stands; `fixed`: what is the same in all rows."""
        self.sqlite = database.sqlite
        self.table = table
        self.key = list(key)
        self.update = update
        self.fixed = {name: _column(value, table.c[name].type) for name, value in fixed.items()}
        self.columns = [name for name in [*key, *update] if name not in fixed]
        self.statement = self._one() if self.sqlite else self.among()

    def _one(self) -> Any:
        row: dict[str, Any] = {name: sa.bindparam(name) for name in self.columns}
        return self._updating(sqlite.insert(self.table).values(row | self.fixed))

    def among(self, owned: sa.CTE | None = None) -> Any:
        """The statement for Postgres; for those rows whose trials are among `owned`."""
        types = {name: self.table.c[name].type for name in self.columns}
        arrays = [
            sa.bindparam(self._name(name), type_=postgresql.ARRAY(kind)) for name, kind in types.items()
        ]
        rows = sa.func.unnest(*arrays).table_valued(*(sa.column(*column) for column in types.items()))
        rows = rows.render_derived(f"new_{self.table.name}")
        chosen = sa.select(*rows.c, *self.fixed.values())
        if owned is not None:
            chosen = chosen.where(rows.c.trial_id.in_(sa.select(owned.c.trial_id)))
        return self._updating(postgresql.insert(self.table).from_select([*types, *self.fixed], chosen))

    def _updating(self, insert: Any) -> Any:
        changed = {name: insert.excluded[name] for name in self.update}
        return insert.on_conflict_do_update(index_elements=self.key, set_=changed)

    def _name(self, column: str) -> str:
        """Of a parameter, unlike those of other tables in the same statement."""
        return f"{self.table.name}_{column}"

    def _last(self, rows: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return list({row[: len(self.key)]: row for row in rows}.values())

    def arrays(self, rows: Iterable[tuple[Any, ...]]) -> dict[str, list[Any]]:
        """The parameters for Postgres: of each column its values; none without rows."""
        last = self._last(rows)
        if not last:
            return {}
        columns = zip(*last, strict=True)
        return {self._name(name): list(column) for name, column in zip(self.columns, columns, strict=True)}

    def __call__(self, connection: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows: the key's columns, then those to update that are not fixed; of equal keys the last."""
        last = self._last(rows)
        if not last:
            return
        if self.sqlite:
            connection.execute(self.statement, [dict(zip(self.columns, row, strict=True)) for row in last])
        else:
            connection.execute(self.statement, self.arrays(last))


def _column(value: Any, kind: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return value if isinstance(value, sa.ColumnElement) else sa.literal(value, kind)
