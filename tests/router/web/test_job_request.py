"""A job's body: a canonical request and what is asked of the job itself; see test_jobs for what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.job_request import Asked, encoded, read
from router.webhooks import Hook

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "a"}]}


async def asked(body: dict[str, Any], *, loopback: bool = True) -> Asked:
    async def address(url: str) -> tuple[str, bool]:
        if "forbidden" in url:
            raise BadRequestError("No.", field="webhook")
        return url + "/", loopback

    return await read(json.dumps(body).encode(), address)


async def test_a_chat_is_a_batch_job_asked_as_a_stream() -> None:
    job = await asked(CHAT)
    assert (job.batch, job.max_attempts, job.deadline_s, job.hook) == (True, None, None, None)
    assert (job.checked.kind, job.checked.stream) == (Kind.CHAT, True)
    assert json.loads(job.checked.body) == CHAT | {"stream": True, "stream_options": {"include_usage": True}}


async def test_what_the_client_says_of_usage_is_respected() -> None:
    job = await asked(CHAT | {"stream": False, "stream_options": {"include_usage": False}})
    assert json.loads(job.checked.body)["stream_options"] == {"include_usage": False}


async def test_nothing_that_is_asked_of_the_job_reaches_the_engine() -> None:
    own = {"kind": "chat", "priority": "interactive", "max_attempts": 20, "deadline_s": 1.5, "webhook": "http://a"}
    job = await asked(CHAT | own | {"webhook_secret": "a long secret"})
    assert not set(json.loads(job.checked.body)) & (set(own) | {"webhook_secret"})
    assert (job.batch, job.max_attempts, job.deadline_s) == (False, 20, 1.5)
    assert job.hook == Hook("http://a/", "a long secret", True)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"prompt": "a"}, Kind.COMPLETION),
        ({"input": ["a"]}, Kind.EMBEDDING),
        ({"prompt": "a", "kind": "completions"}, Kind.COMPLETION),
        ({"input": "a", "kind": "embeddings"}, Kind.EMBEDDING),
        ({"prompt": "a", "kind": None, "priority": None, "max_attempts": None, "webhook": None}, Kind.COMPLETION),
    ],
)
async def test_the_kind_is_named_or_seen(body: dict[str, Any], kind: Kind) -> None:
    job = await asked({"model": "m"} | body)
    assert job.checked.kind is kind
    assert job.checked.stream is (kind is not Kind.EMBEDDING)


async def test_where_a_webhook_may_go_is_asked_of_who_knows() -> None:
    with pytest.raises(BadRequestError):
        await asked(CHAT | {"webhook": "http://forbidden"})
    hook = (await asked(CHAT | {"webhook": "http://a"}, loopback=False)).hook
    assert hook is not None
    assert msgspec.json.decode(encoded(hook), type=Hook) == Hook("http://a/", None, False)
