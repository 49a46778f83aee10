"""Database URLs, their mistakes, and what becomes of passwords."""

from pathlib import Path

import pytest

from hpo.errors import StorageError, UsageError
from hpo.search.database import Database


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not a database URL"),
        ("mysql://host/db", "'mysql' is not supported"),
        ("sqlite://", "SQLite needs a file"),
        ("sqlite:///:memory:", "SQLite needs a file"),
        ("sqlite:////no/such/folder/x.db", "there is no folder /no/such/folder"),
    ],
)
def test_a_wrong_url_is_named_with_what_is_valid(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Database(url)


def test_a_password_is_not_shown() -> None:
    database = Database("postgresql://me:s3cret@localhost:1/x")
    assert "s3cret" not in str(database) and "me:***@" in str(database)


def test_an_unreachable_database_is_named_at_once_without_its_password() -> None:
    database = Database("postgresql://me:s3cret@127.0.0.1:1/x", patience=60)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
        database.has_schema()
    assert "s3cret" not in str(caught.value)


def test_a_database_in_a_folder_with_braces_percent_signs_and_umlauts_works(tmp_path: Path) -> None:
    folder = tmp_path / "a {b} 100% ü"
    folder.mkdir()
    database = Database(f"sqlite:///{folder}/hpo.db")
    database.create_schema()
    assert database.has_schema()


def test_looking_for_a_schema_makes_no_file(tmp_path: Path) -> None:
    assert not Database(f"sqlite:///{tmp_path}/none.db").has_schema()
    assert list(tmp_path.iterdir()) == []


def test_sqlite_keeps_a_write_ahead_log_and_syncs_fully(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/hpo.db")

    def pragma(name: str) -> object:
        return database.read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())

    assert (pragma("journal_mode"), pragma("synchronous"), pragma("foreign_keys")) == ("wal", 2, 1)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "hpo.db").write_text("this is a text file, and a long enough one to be read as a header")
    with pytest.raises(StorageError, match="not a database"):
        Database(f"sqlite:///{tmp_path}/hpo.db").has_schema()
