"""The models are the schema."""

from __future__ import annotations

import peewee
import pytest

from router.migrations import migrate
from router.tables import TABLES


@pytest.fixture
def shipped() -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(":memory:")
    migrate(db)
    return db


@pytest.fixture
def modelled() -> peewee.SqliteDatabase:
    db = peewee.SqliteDatabase(":memory:")
    with db.bind_ctx(TABLES):
        db.create_tables(TABLES)
    return db


def test_there_is_a_model_for_every_table(shipped: peewee.SqliteDatabase) -> None:
    assert sorted(table._meta.table_name for table in TABLES) == sorted(shipped.get_tables())


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table._meta.table_name)
def test_a_model_has_the_columns_types_and_references_of_its_table(
    table: type[peewee.Model], shipped: peewee.SqliteDatabase, modelled: peewee.SqliteDatabase
) -> None:
    name = table._meta.table_name
    for pragma in (f"table_xinfo({name})", f"foreign_key_list({name})", f"table_list({name})"):
        assert shipped.execute_sql(f"PRAGMA {pragma}").fetchall() == modelled.execute_sql(f"PRAGMA {pragma}").fetchall()
