"""``POST /jobs``: a canonical request and, beside it, what is asked of the job itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from router.engines.base import Kind
from router.errors import BadRequestError
from router.web.canonical import Checked, check, with_fields
from router.web.strict_json import decode
from router.webhooks import Hook

ATTEMPTS_MAX: Final = 20
DEADLINE_MAX_S: Final = 604_800.0
SECRET_MIN: Final = 8
SECRET_MAX: Final = 256

_KINDS: Final = {
    "chat": Kind.CHAT,
    "completion": Kind.COMPLETION,
    "completions": Kind.COMPLETION,
    "embedding": Kind.EMBEDDING,
    "embeddings": Kind.EMBEDDING,
}
_SIGNS: Final = {"messages": Kind.CHAT, "prompt": Kind.COMPLETION, "input": Kind.EMBEDDING}


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked job. ``max_attempts`` None is the setting's."""

    checked: Checked
    batch: bool
    max_attempts: int | None
    deadline_s: float | None
    hook: Hook | None


async def read(body: bytes, address: Callable[[str], Awaitable[tuple[str, bool]]]) -> Asked:
    """``body`` as a job. Raises BadRequestError naming the field.

    ``address`` gives that of a webhook, checked, and whether it may lie on this computer.

    A chat or completion is asked as a stream with its usage, so that its events can be followed.
    """
    asked = decode(body)
    kind = _kind(asked)
    checked = check(kind, asked, body)
    if kind is not Kind.EMBEDDING:
        options = asked.get("stream_options") or {"include_usage": True}
        checked = replace(checked, body=with_fields(checked.body, stream=True, stream_options=options), stream=True)
    return Asked(
        checked=checked,
        batch=_priority(asked) == "batch",
        max_attempts=_attempts(asked),
        deadline_s=_deadline(asked),
        hook=await _hook(asked, address),
    )


def _kind(asked: dict[str, Any]) -> Kind:
    named = asked.get("kind")
    if named is None:
        return next((kind for sign, kind in _SIGNS.items() if asked.get(sign) is not None), Kind.CHAT)
    kind = _KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise _wrong("kind", "must be chat, completion or embedding")
    return kind


def _priority(asked: dict[str, Any]) -> str:
    priority = asked.get("priority")
    if priority is None:
        return "batch"
    if priority not in ("batch", "interactive"):
        raise _wrong("priority", "must be batch or interactive")
    return str(priority)


def _attempts(asked: dict[str, Any]) -> int | None:
    attempts = asked.get("max_attempts")
    if attempts is None:
        return None
    if type(attempts) is not int or not 1 <= attempts <= ATTEMPTS_MAX:
        raise _wrong("max_attempts", f"must be a whole number from 1 to {ATTEMPTS_MAX}")
    return attempts


def _deadline(asked: dict[str, Any]) -> float | None:
    deadline_s = asked.get("deadline_s")
    if deadline_s is None:
        return None
    if type(deadline_s) not in (int, float) or not 0 < deadline_s <= DEADLINE_MAX_S:
        raise _wrong("deadline_s", f"must be a number of seconds, more than 0 and at most {DEADLINE_MAX_S:,.0f}")
    return float(deadline_s)


async def _hook(asked: dict[str, Any], address: Callable[[str], Awaitable[tuple[str, bool]]]) -> Hook | None:
    url, secret = asked.get("webhook"), asked.get("webhook_secret")
    if secret is not None:
        if not isinstance(secret, str) or not SECRET_MIN <= len(secret) <= SECRET_MAX:
            raise _wrong("webhook_secret", f"must be text of {SECRET_MIN} to {SECRET_MAX} characters")
        if url is None:
            raise _wrong("webhook_secret", "is of no use without 'webhook'")
    if url is None:
        return None
    if not isinstance(url, str):
        raise _wrong("webhook", "must be an http or https address")
    checked, loopback = await address(url)
    return Hook(checked, secret, loopback)


def _wrong(field: str, what: str) -> BadRequestError:
    return BadRequestError(f"'{field}' {what}.", field=field)


def encoded(hook: Hook) -> str:
    """As ``Job.webhook`` holds it."""
    return msgspec.json.encode(hook).decode()
