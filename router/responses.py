"""OpenAI's ``responses`` over jobs: what was asked beside each job's own body, and conversations continued by id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import peewee

from router.archive import Archive
from router.engines.base import Kind
from router.errors import BadRequestError, QuorumError
from router.jobs import Job
from router.states import JobState
from router.store import Store
from router.web.canonical import Checked, check
from router.web.responses_events import Translator
from router.web.responses_shapes import kept, messages_of, response_of, to_canonical
from router.web.turns import without_system

PREFIX: Final = "resp_"
_ID: Final = re.compile(r"resp_([0-9A-Z]{26})")
_ITEM: Final = re.compile(r"(?:msg|rs|fc)_([0-9A-Z]{26})_(\d{1,4})")
_BEGAN: Final = (
    "UPDATE responses SET restarts = restarts + 1 WHERE job IN "
    "(SELECT row_id FROM jobs WHERE state IN ('queued', 'loading', 'working') AND try_no > 0)"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A response that is kept: its job, live or as it ended, and what was asked."""

    job: Job
    asked: dict[str, Any]
    restarts: int

    def translator(self) -> Translator:
        """Events of the answer from their beginning."""
        return Translator(response_of(self.job.id, self.asked, self.job.created_at), self.job.id, self.restarts)

    def now(self) -> dict[str, Any]:
        """The Response object as it stands."""
        translator = self.translator()
        translator.answer(self.job.answer)
        if (end := self.job.answer.end) is not None:
            translator.end(end, self.job.completed_at)
        elif not self.job.state.running:
            translator.response["status"] = "queued"
        return translator.response


class Responses:
    """Called on the loop. ``open`` once, after the store's and before jobs of an earlier run begin again."""

    def __init__(self, store: Store, archive: Archive) -> None:
        self._store = store
        self._archive = archive

    async def open(self) -> None:
        """Answers that an earlier run left half said will be told anew, with numbers of their own."""
        await self._store.commit(_BEGAN)

    async def checked(self, asked: dict[str, Any], key_id: str | None) -> tuple[Checked, dict[str, Any]]:
        """A request in canonical form, and what of it is to be remembered. Raises BadRequestError naming the field."""
        remembered = kept(asked)
        items = [await self._resolved(place, item, key_id) for place, item in enumerate(remembered["input"])]
        remembered["input"] = items
        history = await self._history(asked.get("previous_response_id"), key_id)
        canonical = to_canonical(asked, items, history)
        return check(Kind.CHAT, canonical, msgspec.json.encode(canonical)), remembered

    def remember(self, job: Job, asked: dict[str, Any]) -> None:
        """Keep what ``job`` was asked as long as its body is kept; with the row of a job submitted just now."""
        self._archive.set_asked(job.id, msgspec.json.encode(asked))

    async def promise(self, job: Job, asked: dict[str, Any]) -> None:
        """The same for an accepted job, on the disk when this returns. Raises StoreError."""
        await self._archive.promise_asked(job.id, msgspec.json.encode(asked))

    async def find(self, response_id: str, key_id: str | None) -> Found | None:
        """A kept response; None when there is none of this id, or it is another key's."""
        if (match := _ID.fullmatch(response_id)) is None:
            return None
        job = await self._archive.job(match[1])
        if job is None or (key_id is not None and job.key_id != key_id):
            return None
        found = await self._store.read(lambda db: _read(db, match[1]))
        return None if found is None else Found(job, msgspec.json.decode(found[0]), found[1])

    async def forget(self, found: Found) -> None:
        """Delete what was asked and said; the job's row stays, without them."""
        await self._archive.forget(found.job.id)

    async def _history(self, response_id: object, key_id: str | None) -> list[dict[str, Any]]:
        """The messages up to and including the answer of an earlier response."""
        if not isinstance(response_id, str):
            return []
        before = await self.find(response_id, key_id)
        body = None if before is None else await self._archive.request(before.job.id)
        if before is None or body is None:
            raise BadRequestError(
                "The response that 'previous_response_id' names is not kept here.",
                "Send the whole conversation again.",
                code="not_found",
                field="previous_response_id",
            )
        if before.job.state is not JobState.DONE:
            why = "has not ended yet" if before.job.state.live else f"was {before.job.state}"
            raise BadRequestError(
                f"The response that 'previous_response_id' names {why}.", field="previous_response_id"
            )
        said = msgspec.json.decode(body)["messages"]
        return without_system(before.asked.get("instructions") or "", said) + messages_of(before.now()["output"])

    async def _resolved(self, place: int, item: Any, key_id: str | None) -> Any:
        """``item``, or the one it refers to."""
        if not _refers(item):
            return item
        match = _ITEM.fullmatch(str(item.get("id")))
        found = await self.find(PREFIX + match[1], key_id) if match else None
        output = found.now()["output"] if found else []
        if match is None or int(match[2]) >= len(output):
            field = f"input[{place}]"
            raise BadRequestError(
                f"'{field}' refers to an item that is not kept here.", "Send the item itself.", field=field
            )
        return output[int(match[2])]


def _refers(item: Any) -> bool:
    """Whether an item only names another one; its type may be left out."""
    return isinstance(item, dict) and (item.get("type") == "item_reference" or set(item) == {"id"})


def _read(db: peewee.SqliteDatabase, job_id: str) -> Any:
    sql = "SELECT asked, restarts FROM responses JOIN jobs ON row_id = job WHERE id = ?"
    return db.execute_sql(sql, (job_id,)).fetchone()


def not_found() -> QuorumError:
    """What is told of a response that is not here."""
    return QuorumError(
        "not_found",
        "There is no such response here, or it is not kept any more.",
        "Responses are kept for 24 h, unless they were made with 'store': false.",
    )
