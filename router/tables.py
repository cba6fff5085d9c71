"""The tables as peewee models, for everything off the hot path. They are never bound to a database.

Queries run inside ``Store.run`` and name theirs: ``Chat.select().where(...).execute(db)``. ``migrations.py`` holds the
schema itself; a test keeps the two the same. Times are Unix seconds, ``*_json`` the structs of ``wire.py``.
"""

from __future__ import annotations

from typing import Final

import peewee
from peewee import AutoField, BlobField, BooleanField, FloatField, ForeignKeyField, IntegerField, TextField


class Table(peewee.Model):
    """Base of all tables."""

    class Meta:
        legacy_table_names = False
        strict_tables = True


class Fact(Table):
    """Facts about the database itself: ``boot_id`` of the last start."""

    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "meta"
        without_rowid = True


class Job(Table):
    """One job; ``router/job_row.py`` reads and writes it with raw SQL."""

    row_id = AutoField()
    id = TextField(unique=True)
    kind = TextField()
    origin = TextField()
    person = TextField()
    key_id = TextField(null=True)
    chat_id = TextField(null=True)
    model = TextField()
    digest = TextField(null=True)
    state = TextField()
    attempt = IntegerField()
    max_attempts = IntegerField()
    try_no = IntegerField()
    boot_id = TextField()
    crashes = IntegerField()
    not_before = FloatField()
    priority = IntegerField()
    stream = BooleanField()
    keep = BooleanField()
    node = TextField(null=True)
    engine = TextField(null=True)
    receipt_json = TextField(null=True)
    error_json = TextField(null=True)
    idempotency_key = TextField(null=True)
    request_hash = TextField(null=True)
    webhook = TextField(null=True)
    origin_node = TextField(null=True)
    origin_job = TextField(null=True)
    origin_try = IntegerField(null=True)
    created_at = FloatField()
    updated_at = FloatField()
    started_at = FloatField(null=True)
    completed_at = FloatField(null=True)
    deadline_s = FloatField(null=True)
    keep_alive_s = FloatField(null=True)

    class Meta:
        table_name = "jobs"


class Body(Table):
    """What a job was asked and what it answered, while they are kept."""

    job = ForeignKeyField(Job, primary_key=True, column_name="job", on_delete="CASCADE")
    request = BlobField(null=True)
    answer = BlobField(null=True)
    answer_type = TextField(null=True)
    created_at = FloatField()

    class Meta:
        table_name = "bodies"


class Chunk(Table):
    """A piece of a running answer: whole events, the first with number ``seq`` in its try."""

    row_id = AutoField()
    job = ForeignKeyField(Job, column_name="job", on_delete="CASCADE", index=False)
    try_no = IntegerField()
    seq = IntegerField()
    data = BlobField()

    class Meta:
        table_name = "chunks"


class Webhook(Table):
    """One move of a job that somebody's address must hear of."""

    row_id = AutoField()
    job = ForeignKeyField(Job, column_name="job", on_delete="CASCADE", index=False)
    state = TextField()
    url = TextField()
    body = BlobField()
    attempt = IntegerField()
    not_before = FloatField()
    created_at = FloatField()
    delivered_at = FloatField(null=True)
    error = TextField(null=True)

    class Meta:
        table_name = "webhooks"


class Chat(Table):
    """One conversation."""

    id = TextField(primary_key=True)
    title = TextField()
    model = TextField()
    options_json = TextField()
    created_at = FloatField()
    updated_at = FloatField()

    class Meta:
        table_name = "chats"


class Message(Table):
    """One message of a conversation; a tree by ``parent_id``, in the order of ``row_id``."""

    row_id = AutoField()
    id = TextField(unique=True)
    chat = ForeignKeyField(Chat, column_name="chat_id", on_delete="CASCADE", index=False)
    parent_id = TextField(null=True)
    role = TextField()
    content = TextField()
    reasoning = TextField()
    reasoning_s = FloatField(null=True)
    images_json = TextField()
    model = TextField()
    created_at = FloatField()
    state = TextField()
    job_id = TextField(null=True)
    receipt_json = TextField(null=True)
    error_json = TextField(null=True)

    class Meta:
        table_name = "messages"


class ModelFile(Table):
    """The digest of a model file as it was with this size and time."""

    path = TextField(primary_key=True)
    size = IntegerField()
    mtime_ns = IntegerField()
    digest = TextField()

    class Meta:
        table_name = "model_files"
        without_rowid = True


class AddedPath(Table):
    """A model file or folder the user added, used where it lies."""

    path = TextField(primary_key=True)
    added_at = FloatField()

    class Meta:
        table_name = "added_paths"
        without_rowid = True


class Session(Table):
    """A browser that traded the control token for a cookie, by the cookie's hash."""

    hash = TextField(primary_key=True)
    created_at = FloatField()
    used_at = FloatField()

    class Meta:
        table_name = "sessions"
        without_rowid = True


class Key(Table):
    """An API key of a person or program, by its hash; ``tail`` are its last four characters."""

    id = TextField(primary_key=True)
    name = TextField()
    hash = TextField(unique=True)
    created_at = FloatField()
    used_at = FloatField(null=True)
    revoked_at = FloatField(null=True)
    tail = TextField(constraints=[peewee.SQL("DEFAULT ''")])

    class Meta:
        table_name = "keys"
        without_rowid = True


class KeyUsage(Table):
    """What one key used of one model in one day (UTC, YYYY-MM-DD)."""

    key_id = TextField()
    model = TextField()
    day = TextField()
    jobs = IntegerField()
    prompt_tokens = IntegerField()
    completion_tokens = IntegerField()
    used_at = FloatField()

    class Meta:
        table_name = "key_usage"
        primary_key = peewee.CompositeKey("key_id", "model", "day")
        without_rowid = True


class Node(Table):
    """Another computer: what its user and ours decided about it (``stance``), grants, overrides, its last record."""

    id = TextField(primary_key=True)
    name = TextField()
    stance = TextField()
    secret_hash = TextField(null=True)
    secret = BlobField(null=True)
    addresses_json = TextField()
    grants_json = TextField()
    overrides_json = TextField()
    record_json = TextField()
    created_at = FloatField()
    paired_at = FloatField(null=True)
    seen_at = FloatField(null=True)

    class Meta:
        table_name = "nodes"
        without_rowid = True


class Holder(Table):
    """What was learnt about one model at one engine of one node; outlives its replicas."""

    node = TextField()
    engine = TextField()
    model = TextField()
    digest = TextField(null=True)
    record_json = TextField()
    updated_at = FloatField()

    class Meta:
        table_name = "holders"
        primary_key = peewee.CompositeKey("node", "engine", "model")
        without_rowid = True


class PendingOp(Table):
    """Something a node must do when it can be reached again; ``dead_at`` once it was given up."""

    row_id = AutoField()
    node = TextField()
    model = TextField()
    operation = TextField()
    payload_json = TextField()
    attempt = IntegerField()
    not_before = FloatField()
    created_at = FloatField()
    updated_at = FloatField()
    dead_at = FloatField(null=True)
    error = TextField(null=True)

    class Meta:
        table_name = "pending_ops"


class Response(Table):
    """What was asked of OpenAI's ``responses``, less what its job's body has; ``restarts`` numbers its streams."""

    job = ForeignKeyField(Body, primary_key=True, column_name="job", on_delete="CASCADE")
    asked = BlobField()
    restarts = IntegerField()

    class Meta:
        table_name = "responses"


class File(Table):
    """A file that was uploaded or that a batch wrote; its content lies in the data folder."""

    id = TextField(primary_key=True)
    key_id = TextField(null=True)
    filename = TextField()
    purpose = TextField()
    size = IntegerField()
    created_at = FloatField()
    expires_at = FloatField(null=True)

    class Meta:
        table_name = "files"
        without_rowid = True


class Batch(Table):
    """Many requests in one file; counts and tokens are those of the lines whose results are recorded."""

    row_id = AutoField()
    id = TextField(unique=True)
    key_id = TextField(null=True)
    endpoint = TextField()
    input_file = TextField()
    output_file = TextField(null=True)
    error_file = TextField(null=True)
    status = TextField()
    metadata_json = TextField()
    errors_json = TextField()
    keep_output_s = FloatField(null=True)
    total = IntegerField()
    completed = IntegerField()
    failed = IntegerField()
    input_tokens = IntegerField()
    cached_tokens = IntegerField()
    output_tokens = IntegerField()
    created_at = FloatField()
    in_progress_at = FloatField(null=True)
    finalizing_at = FloatField(null=True)
    completed_at = FloatField(null=True)
    failed_at = FloatField(null=True)
    cancelling_at = FloatField(null=True)
    cancelled_at = FloatField(null=True)
    idempotency_key = TextField(null=True)
    request_hash = TextField(null=True)

    class Meta:
        table_name = "batches"


class BatchLine(Table):
    """One request of a batch: where it lies in the input file, the job that runs it, its line of the output."""

    row_id = AutoField()
    batch = ForeignKeyField(Batch, column_name="batch", on_delete="CASCADE", index=False)
    line = IntegerField()
    custom_id = TextField()
    start = IntegerField()
    length = IntegerField()
    state = TextField()
    job_id = TextField(null=True)
    result = BlobField(null=True)

    class Meta:
        table_name = "batch_lines"


TABLES: Final = (
    Fact,
    Job,
    Body,
    Chunk,
    Webhook,
    Chat,
    Message,
    ModelFile,
    AddedPath,
    Session,
    Key,
    KeyUsage,
    Node,
    Holder,
    PendingOp,
    Response,
    File,
    Batch,
    BatchLine,
)
