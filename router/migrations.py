"""The schema and how an older database becomes the newest: an ordered list of functions, each one transaction.

A released version never changes again (``tests/fixtures/schema_v*.sql`` hold them); a change is one more function.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import peewee

Migration: TypeAlias = Callable[[peewee.SqliteDatabase], None]
Schema: TypeAlias = dict[tuple[str, str], str]

APPLICATION_ID: Final = 0x51756F72  # "Quor": a file of ours, as `file` and SQLite show it

MIGRATIONS: Final[list[Migration]] = []


def migration(step: Migration) -> Migration:
    """Add ``step`` as the next version; the order in this file is the order of versions."""
    MIGRATIONS.append(step)
    return step


def newest() -> int:
    """The version this program writes."""
    return len(MIGRATIONS)


def version_of(db: peewee.SqliteDatabase) -> int:
    """The version a database says it has; 0 for an empty file."""
    return int(db.execute_sql("PRAGMA user_version").fetchone()[0])


def migrate(db: peewee.SqliteDatabase) -> None:
    """Bring ``db`` to the newest version, one transaction a step: a crash leaves the last whole version."""
    for version in range(version_of(db), newest()):
        with db.atomic("IMMEDIATE"):
            MIGRATIONS[version](db)
            db.execute_sql(f"PRAGMA user_version = {version + 1}")


def schema_of(db: peewee.SqliteDatabase) -> Schema:
    """Everything ``sqlite_master`` lists but SQLite's own, as (type, name): definition with its spaces collapsed."""
    rows = db.execute_sql("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    return {(kind, name): " ".join((sql or "").split()) for kind, name, sql in rows}


def shipped_schema(version: int) -> Schema:
    """What a database of ``version`` has, no more and no less."""
    db = peewee.SqliteDatabase(":memory:")
    try:
        for step in MIGRATIONS[:version]:
            step(db)
        return schema_of(db)
    finally:
        db.close()


def foreign_parts(db: peewee.SqliteDatabase) -> list[str]:
    """What differs from the shipped schema of the version ``db`` has, as "type name"; empty when nothing does."""
    found, shipped = schema_of(db), shipped_schema(version_of(db))
    return sorted(
        f"{kind} {name}"
        for kind, name in found.keys() | shipped.keys()
        if found.get((kind, name)) != shipped.get((kind, name))
    )


def back_up(db: peewee.SqliteDatabase, target: Path) -> None:
    """A whole copy of ``db`` in the new file ``target`` (0600), synced. Raises OSError or sqlite3.Error."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    copy = sqlite3.connect(target)
    try:
        db.connection().backup(copy)
    finally:
        copy.close()


@migration
def everything(db: peewee.SqliteDatabase) -> None:
    """Version 1: all tables."""
    for statement in _VERSION_1.split(";\n"):
        db.execute_sql(statement)


# Times are Unix seconds; *_json holds the structs of router/wire.py; flags are 0 or 1.
_VERSION_1: Final = """
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    row_id INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    origin TEXT NOT NULL,
    person TEXT NOT NULL,
    key_id TEXT,
    chat_id TEXT,
    model TEXT NOT NULL,
    digest TEXT,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    try_no INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    crashes INTEGER NOT NULL,
    not_before REAL NOT NULL,
    priority INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    node TEXT,
    engine TEXT,
    receipt_json TEXT,
    error_json TEXT,
    idempotency_key TEXT,
    request_hash TEXT,
    webhook TEXT,
    origin_node TEXT,
    origin_job TEXT,
    origin_try INTEGER,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    started_at REAL,
    completed_at REAL,
    deadline_s REAL,
    keep_alive_s REAL
) STRICT;
CREATE UNIQUE INDEX jobs_idempotency ON jobs (coalesce(key_id, ''), idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX jobs_origin ON jobs (origin_node, origin_job, origin_try) WHERE origin_node IS NOT NULL;
CREATE INDEX jobs_live ON jobs (row_id) WHERE state IN ('queued', 'loading', 'working');
CREATE TABLE bodies (
    job INTEGER NOT NULL PRIMARY KEY REFERENCES jobs (row_id) ON DELETE CASCADE,
    request BLOB,
    answer BLOB,
    answer_type TEXT,
    created_at REAL NOT NULL
) STRICT;
CREATE TABLE chunks (
    row_id INTEGER NOT NULL PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (row_id) ON DELETE CASCADE,
    try_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    data BLOB NOT NULL,
    UNIQUE (job, try_no, seq)
) STRICT;
CREATE TABLE webhooks (
    row_id INTEGER NOT NULL PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (row_id) ON DELETE CASCADE,
    state TEXT NOT NULL,
    url TEXT NOT NULL,
    body BLOB NOT NULL,
    attempt INTEGER NOT NULL,
    not_before REAL NOT NULL,
    created_at REAL NOT NULL,
    delivered_at REAL,
    error TEXT,
    UNIQUE (job, state)
) STRICT;
CREATE INDEX webhooks_waiting ON webhooks (not_before) WHERE delivered_at IS NULL;
CREATE TABLE chats (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL,
    model TEXT NOT NULL,
    options_json TEXT NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT;
CREATE INDEX chats_newest ON chats (updated_at);
CREATE TABLE messages (
    row_id INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    parent_id TEXT,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    reasoning_s REAL,
    images_json TEXT NOT NULL,
    model TEXT NOT NULL,
    created_at REAL NOT NULL,
    state TEXT NOT NULL,
    job_id TEXT,
    receipt_json TEXT,
    error_json TEXT
) STRICT;
CREATE INDEX messages_chat ON messages (chat_id, row_id);
CREATE INDEX messages_running ON messages (row_id) WHERE state = 'running';
CREATE TABLE model_files (
    path TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE added_paths (
    path TEXT NOT NULL PRIMARY KEY,
    added_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE sessions (
    hash TEXT NOT NULL PRIMARY KEY,
    created_at REAL NOT NULL,
    used_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    used_at REAL,
    revoked_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE key_usage (
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    day TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    used_at REAL NOT NULL,
    PRIMARY KEY (key_id, model, day)
) STRICT, WITHOUT ROWID;
CREATE TABLE nodes (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    stance TEXT NOT NULL,
    secret_hash TEXT,
    secret BLOB,
    addresses_json TEXT NOT NULL,
    grants_json TEXT NOT NULL,
    overrides_json TEXT NOT NULL,
    record_json TEXT NOT NULL,
    created_at REAL NOT NULL,
    paired_at REAL,
    seen_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE holders (
    node TEXT NOT NULL,
    engine TEXT NOT NULL,
    model TEXT NOT NULL,
    digest TEXT,
    record_json TEXT NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (node, engine, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE pending_ops (
    row_id INTEGER NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    model TEXT NOT NULL,
    operation TEXT NOT NULL,
    payload_json TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    not_before REAL NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    dead_at REAL,
    error TEXT,
    UNIQUE (node, model, operation)
) STRICT
"""


@migration
def responses_files_and_batches(db: peewee.SqliteDatabase) -> None:
    """Version 2: what OpenAI's responses, files and batches keep beside their jobs."""
    for statement in _VERSION_2.split(";\n"):
        db.execute_sql(statement)


# a response goes with the bodies of its job; a line's result stays until its batch has written its files
_VERSION_2: Final = """
CREATE TABLE responses (
    job INTEGER NOT NULL PRIMARY KEY REFERENCES bodies (job) ON DELETE CASCADE,
    asked BLOB NOT NULL,
    restarts INTEGER NOT NULL
) STRICT;
CREATE TABLE files (
    id TEXT NOT NULL PRIMARY KEY,
    key_id TEXT,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    size INTEGER NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL
) STRICT, WITHOUT ROWID;
CREATE TABLE batches (
    row_id INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    key_id TEXT,
    endpoint TEXT NOT NULL,
    input_file TEXT NOT NULL,
    output_file TEXT,
    error_file TEXT,
    status TEXT NOT NULL,
    metadata_json TEXT NOT NULL,
    errors_json TEXT NOT NULL,
    keep_output_s REAL,
    total INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    created_at REAL NOT NULL,
    in_progress_at REAL,
    finalizing_at REAL,
    completed_at REAL,
    failed_at REAL,
    cancelling_at REAL,
    cancelled_at REAL
) STRICT;
CREATE TABLE batch_lines (
    row_id INTEGER NOT NULL PRIMARY KEY,
    batch INTEGER NOT NULL REFERENCES batches (row_id) ON DELETE CASCADE,
    line INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    state TEXT NOT NULL,
    job_id TEXT,
    result BLOB,
    UNIQUE (batch, line)
) STRICT
"""


@migration
def keys_can_be_told_apart(db: peewee.SqliteDatabase) -> None:
    """Version 3: the last four characters of an API key, and one key a name."""
    db.execute_sql("ALTER TABLE keys ADD COLUMN tail TEXT NOT NULL DEFAULT ''")
    db.execute_sql("CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked_at IS NULL")


@migration
def batches_are_made_once(db: peewee.SqliteDatabase) -> None:
    """Version 4: the Idempotency-Key of a batch."""
    db.execute_sql("ALTER TABLE batches ADD COLUMN idempotency_key TEXT")
    db.execute_sql("ALTER TABLE batches ADD COLUMN request_hash TEXT")
    db.execute_sql(
        "CREATE UNIQUE INDEX batches_idempotency ON batches (coalesce(key_id, ''), idempotency_key) "
        "WHERE idempotency_key IS NOT NULL"
    )
