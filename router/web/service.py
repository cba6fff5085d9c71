"""What the routes need of the node, in one record that the composition root fills."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from router.access import Access
from router.archive import Archive
from router.chats import Chats
from router.conversation import Conversations
from router.events import Bus
from router.idempotency import Once
from router.intake import Intake
from router.kept import Kept
from router.registry import Registry
from router.scheduler import Scheduler
from router.settings import Settings
from router.updates import Updates
from router.view import View
from router.webhooks import Webhooks
from router.wire import Added, NodeInfo


@dataclass(frozen=True, slots=True)
class Service:
    """The node as its HTTP surfaces see it."""

    bus: Bus
    registry: Registry
    scheduler: Scheduler
    settings: Settings
    intake: Intake
    view: View
    chats: Chats
    conversations: Conversations
    archive: Archive
    access: Access
    kept: Kept
    once: Once
    webhooks: Webhooks
    updates: Updates
    info: Callable[[], NodeInfo]
    pause: Callable[[float | None], None]
    resume: Callable[[], None]
    drain: Callable[[], None]
    show: Callable[[], bool]
    quit: Callable[[], bool]
    load: Callable[..., None]
    unload: Callable[[str, str], Awaitable[None]]
    add_models: Callable[[str], Awaitable[Added]]
    count_tokens: Callable[[str, bytes], Awaitable[int | None]]
