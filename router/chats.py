"""Conversations and their messages. The router writes answers and receipts here, not the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import peewee
from ulid import ULID

from router.aio import Clock
from router.errors import BadRequestError, QuorumError
from router.store import Store
from router.tables import Chat as ChatTable
from router.tables import Message as MessageTable
from router.transcript import as_json, as_markdown, file_name
from router.wire import Chat, ChatInfo, ChatOptions, ChatPatch, ErrorInfo, Message, NewChat, Receipt

TITLE_LENGTH: Final = 60
TITLE_LIMIT: Final = 200
QUERY_LIMIT: Final = 200

_FIELDS: Final = (
    "id, chat_id, parent_id, role, content, reasoning, reasoning_s, images_json, model, created_at, state, job_id, "
    "receipt_json, error_json"
)
_LIST: Final = (
    "SELECT id, title, model, created_at, updated_at, (SELECT job_id FROM messages WHERE chat_id = chats.id "
    "AND state = 'running' ORDER BY row_id DESC LIMIT 1) FROM chats "
)
_NEWEST_FIRST: Final = " ORDER BY updated_at DESC, id DESC"


class Chats:
    """Every method raises QuorumError: ``not_found`` for an id that isn't there, StoreError when it can't be kept."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # conversations

    async def list(self, q: str = "") -> list[ChatInfo]:
        """All conversations, newest first; with ``q`` those that have it in their title or a message, in any case."""
        words = _clean(q.strip()[:QUERY_LIMIT])
        sql, params = (_LIST, ()) if not words else _search(words)
        return await self._store.read(
            lambda db: [_info(columns) for columns in db.execute_sql(sql + _NEWEST_FIRST, params)]
        )

    async def create(self, new: NewChat) -> ChatInfo:
        """A new, empty conversation; without a title it gets one from the first message."""
        now = self._clock.wall()
        chat = ChatInfo(
            id=str(ULID.from_timestamp(now)),
            title=_line(new.title, TITLE_LIMIT),
            model=new.model,
            created_at=now,
            updated_at=now,
        )

        def insert(db: peewee.SqliteDatabase) -> ChatInfo:
            ChatTable.insert(
                id=chat.id,
                title=chat.title,
                model=chat.model,
                options_json=_text(ChatOptions()),
                created_at=now,
                updated_at=now,
            ).execute(db)
            return chat

        return await self._store.run(insert)

    async def get(self, chat_id: str) -> Chat:
        """A conversation with its options and all messages, oldest first."""
        return await self._store.read(lambda db: read_chat(db, chat_id))

    async def info(self, chat_id: str) -> ChatInfo:
        """A conversation as the list shows it."""
        return await self._store.read(lambda db: _read_info(db, chat_id))

    async def patch(self, chat_id: str, patch: ChatPatch) -> ChatInfo:
        """Change title, model or options; what is absent stays."""
        changes: dict[str, Any] = {}
        if patch.title is not None:
            changes["title"] = _line(patch.title, TITLE_LIMIT)
        if patch.model is not None:
            changes["model"] = patch.model
        if patch.options is not None:
            changes["options_json"] = _text(patch.options)

        def update(db: peewee.SqliteDatabase) -> ChatInfo:
            if changes:
                ChatTable.update(**changes).where(ChatTable.id == chat_id).execute(db)
            return _read_info(db, chat_id)

        return await self._store.run(update)

    async def delete(self, chat_id: str) -> Sequence[str]:
        """Delete a conversation with its messages; the jobs of answers that still run, for the caller to cancel."""

        def drop(db: peewee.SqliteDatabase) -> Sequence[str]:
            _read_info(db, chat_id)
            running = db.execute_sql(
                "SELECT job_id FROM messages WHERE chat_id = ? AND state = 'running' AND job_id IS NOT NULL", (chat_id,)
            ).fetchall()
            ChatTable.delete().where(ChatTable.id == chat_id).execute(db)
            return [job_id for (job_id,) in running]

        return await self._store.run(drop)

    async def export(self, chat_id: str, format: str) -> tuple[str, str, bytes]:
        """File name, content type and content: ``md`` the shown branch as Markdown, ``json`` everything."""
        if format not in ("md", "json"):
            raise BadRequestError("The format must be md or json.", field="format")
        chat = await self.get(chat_id)
        content, kind = (as_markdown(chat), "text/markdown") if format == "md" else (as_json(chat), "application/json")
        return file_name(chat, format), f"{kind}; charset=utf-8", content

    # messages

    async def add_user_message(
        self,
        chat_id: str,
        *,
        content: str,
        parent_id: str | None = None,
        images: Sequence[str] = (),
        model: str = "",
    ) -> Message:
        """What the user wrote, below ``parent_id``. The first one gives the conversation its title."""
        message = self._new(chat_id, "user", parent_id, model, content=content, images=[*images])
        title = _title(content)

        def insert(db: peewee.SqliteDatabase) -> Message:
            _insert(db, message)
            db.execute_sql("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (title, chat_id))
            return message

        return await self._store.run(insert)

    async def add_answer(self, chat_id: str, *, parent_id: str | None, model: str, job_id: str) -> Message:
        """A running answer, to be filled by ``finish_answer``."""
        message = self._new(chat_id, "assistant", parent_id, model, state="running", job_id=job_id)
        return await self._store.run(lambda db: _insert(db, message))

    async def finish_answer(
        self,
        message_id: str,
        *,
        content: str,
        reasoning: str = "",
        reasoning_s: float | None = None,
        receipt: Receipt | None = None,
        error: ErrorInfo | None = None,
    ) -> Message:
        """The answer as it ended. ``not_found`` when its conversation was deleted meanwhile."""
        now = self._clock.wall()

        def update(db: peewee.SqliteDatabase) -> Message:
            MessageTable.update(
                content=_clean(content),
                reasoning=_clean(reasoning),
                reasoning_s=reasoning_s,
                state="ended",
                receipt_json=None if receipt is None else _text(receipt),
                error_json=None if error is None else _text(error),
            ).where(MessageTable.id == message_id).execute(db)
            message = _read_message(db, message_id)
            ChatTable.update(updated_at=now).where(ChatTable.id == message.chat_id).execute(db)
            return message

        return await self._store.run(update)

    async def message(self, message_id: str) -> Message:
        """One message."""
        return await self._store.read(lambda db: _read_message(db, message_id))

    async def running_answers(self) -> Sequence[Message]:
        """Answers that have not ended, oldest first: at the start, those an earlier process left."""
        sql = f"SELECT {_FIELDS} FROM messages WHERE state = 'running' ORDER BY row_id"  # noqa: S608 - own constant
        return await self._store.read(lambda db: [_message(columns) for columns in db.execute_sql(sql)])

    def _new(self, chat_id: str, role: str, parent_id: str | None, model: str, **fields: Any) -> Message:
        now = self._clock.wall()
        fields["content"] = _clean(fields.get("content", ""))
        return Message(
            id=str(ULID.from_timestamp(now)),
            chat_id=chat_id,
            parent_id=parent_id,
            role=role,
            model=model,
            created_at=now,
            **fields,
        )


def _search(words: str) -> tuple[str, tuple[str, ...]]:
    """LIKE knows case for ASCII only; other letters are folded by a function of ours, which is slower."""
    if words.isascii():
        for special in "\\%_":
            words = words.replace(special, "\\" + special)
        found, value = "{} LIKE ? ESCAPE '\\'", f"%{words}%"
    else:
        found, value = "instr(fold({}), ?)", words.casefold()
    inside = f"SELECT 1 FROM messages WHERE chat_id = chats.id AND {found.format('content')}"  # noqa: S608 - own text
    return f"{_LIST} WHERE {found.format('title')} OR EXISTS ({inside})", (value, value)


def _read_info(db: peewee.SqliteDatabase, chat_id: str) -> ChatInfo:
    columns = db.execute_sql(_LIST + "WHERE id = ?", (chat_id,)).fetchone()
    if columns is None:
        raise QuorumError("not_found", "There is no such conversation.", "It may have been deleted; look at the list.")
    return _info(columns)


def read_chat(db: peewee.SqliteDatabase, chat_id: str) -> Chat:
    """A conversation with its options and all messages, oldest first. Raises QuorumError (not_found)."""
    info = _read_info(db, chat_id)
    options = db.execute_sql("SELECT options_json FROM chats WHERE id = ?", (chat_id,)).fetchone()[0]
    messages = db.execute_sql(
        f"SELECT {_FIELDS} FROM messages WHERE chat_id = ? ORDER BY row_id",  # noqa: S608 - own constant
        (chat_id,),
    )
    return Chat(
        info=info,
        options=msgspec.json.decode(options, type=ChatOptions),
        messages=[_message(columns) for columns in messages],
    )


def _info(columns: Any) -> ChatInfo:
    chat_id, title, model, created_at, updated_at, running_job = columns
    return ChatInfo(
        id=chat_id,
        title=title,
        model=model,
        created_at=created_at,
        updated_at=updated_at,
        running_job=running_job,
    )


def _insert(db: peewee.SqliteDatabase, message: Message) -> Message:
    """Put a message below its conversation, which moves to the top of the list."""
    _read_info(db, message.chat_id)
    MessageTable.insert(
        id=message.id,
        chat=message.chat_id,
        parent_id=message.parent_id,
        role=message.role,
        content=message.content,
        reasoning=message.reasoning,
        images_json=_text(message.images),
        model=message.model,
        created_at=message.created_at,
        state=message.state,
        job_id=message.job_id,
    ).execute(db)
    changes = {"updated_at": message.created_at, **({"model": message.model} if message.model else {})}
    ChatTable.update(**changes).where(ChatTable.id == message.chat_id).execute(db)
    return message


def _read_message(db: peewee.SqliteDatabase, message_id: str) -> Message:
    sql = f"SELECT {_FIELDS} FROM messages WHERE id = ?"  # noqa: S608 - own constant
    columns = db.execute_sql(sql, (message_id,)).fetchone()
    if columns is None:
        raise QuorumError("not_found", "There is no such message.", "Its conversation may have been deleted.")
    return _message(columns)


def _message(columns: Any) -> Message:
    values = dict(zip(Message.__struct_fields__, columns, strict=True))
    values["images"] = msgspec.json.decode(values["images"])
    for name, kind in (("receipt", Receipt), ("error", ErrorInfo)):
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name], type=kind)
    return Message(**values)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _clean(text: str) -> str:
    """Without lone surrogates, which UTF-8 and so the database can't hold."""
    return text.encode("utf-8", "replace").decode()


def _line(text: str, limit: int) -> str:
    """One line without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in _clean(text)).split())[:limit]


def _title(content: str) -> str:
    """The beginning of the first message, cut between words."""
    line = _line(content[: TITLE_LENGTH * 8], TITLE_LENGTH * 8)
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[:TITLE_LENGTH].rsplit(" ", 1)[0]
    return f"{cut if len(cut) > TITLE_LENGTH // 2 else line[:TITLE_LENGTH]}…"
