"""Responses are found again by whoever made them, as long as their bodies are kept, across restarts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from router.archive import Archive
from router.errors import BadRequestError
from router.job_rows import JobRow, JobRows
from router.responses import Responses
from router.scheduler import Scheduler
from router.states import JobState
from router.store import Store
from router.web.responses_events import RESTART
from tests.router.store_kit import opened, rows
from tests.world import World

ULID = "01JOB0000000000000000000A1"
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}


class Kept:
    """A store with responses in it."""

    def __init__(self, store: Store, scheduler: Scheduler) -> None:
        self.path = store.path
        self.rows = JobRows(store)
        self.archive = Archive(self.rows, scheduler)
        self.responses = Responses(store, self.archive)

    async def add(self, state: JobState = JobState.DONE, *, try_no: int = 1, **fields: Any) -> None:
        """One job with its body, its answer, and what was asked."""
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
        row = JobRow(id=ULID, model="m", state=state, try_no=try_no, keep=True, created_at=1.0, **fields)
        await self.rows.save_durable(row, body)
        self.rows.set_answer(ULID, json.dumps(ANSWER).encode(), "application/json")
        job = await self.archive.job(ULID)
        assert job is not None
        await self.responses.promise(job, {"model": "m", "input": [], "store": True})


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with opened(tmp_path / "quorum.db") as store:
        made = Kept(store, World().scheduler)
        await made.rows.open()
        await made.responses.open()
        yield made


async def test_a_response_is_found_by_its_id_with_what_was_said(kept: Kept) -> None:
    await kept.add(completed_at=3.0)

    found = await kept.responses.find(f"resp_{ULID}", None)

    assert found is not None
    response = found.now()
    assert (response["status"], response["completed_at"]) == ("completed", 3)
    assert response["output"][0]["content"][0]["text"] == "Hi"


@pytest.mark.parametrize("unknown", ["resp_1", "x", f"msg_{ULID}", "resp_01JOB0000000000000000000A2"])
async def test_there_is_no_response_of_another_id(kept: Kept, unknown: str) -> None:
    await kept.add()

    assert await kept.responses.find(unknown, None) is None


async def test_a_key_finds_its_own_responses_only(kept: Kept) -> None:
    await kept.add(key_id="key-1")

    assert await kept.responses.find(f"resp_{ULID}", "key-1") is not None
    assert await kept.responses.find(f"resp_{ULID}", None) is not None
    assert await kept.responses.find(f"resp_{ULID}", "key-2") is None
    with pytest.raises(BadRequestError):
        await kept.responses.checked({"model": "m", "input": "x", "previous_response_id": f"resp_{ULID}"}, "key-2")


async def test_what_was_asked_goes_with_the_bodies_of_the_job(kept: Kept) -> None:
    await kept.add(completed_at=2.0)

    await kept.rows.prune(0.0, 10.0)

    assert await kept.archive.job(ULID) is not None
    assert await kept.responses.find(f"resp_{ULID}", None) is None


async def test_a_forgotten_response_leaves_neither_question_nor_answer(kept: Kept) -> None:
    await kept.add()
    found = await kept.responses.find(f"resp_{ULID}", None)
    assert found is not None

    await kept.responses.forget(found)

    assert await kept.responses.find(f"resp_{ULID}", None) is None
    assert await kept.archive.request(ULID) is None


async def test_only_an_answer_that_had_begun_is_told_with_other_numbers_after_a_restart(kept: Kept) -> None:
    await kept.add(JobState.QUEUED, try_no=0)
    await kept.responses.open()
    row = await kept.rows.get(ULID)
    assert row is not None
    assert rows(kept.path, "SELECT restarts FROM responses") == [(0,)]
    row.state, row.try_no = JobState.WORKING, 1
    await kept.rows.save_durable(row)

    await kept.responses.open()

    row.state = JobState.DONE
    await kept.rows.save_durable(row)
    found = await kept.responses.find(f"resp_{ULID}", None)
    assert found is not None
    assert found.translator().opening()[0][0] == RESTART


async def test_a_conversation_can_not_go_on_from_a_response_that_failed(kept: Kept) -> None:
    await kept.add(JobState.FAILED)

    with pytest.raises(BadRequestError) as refused:
        await kept.responses.checked({"model": "m", "input": "x", "previous_response_id": f"resp_{ULID}"}, None)

    assert refused.value.field == "previous_response_id"
