"""Conversations survive, are found, and lose nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from router.chats import Chats
from router.errors import BadRequestError, QuorumError, failure
from router.store import Store
from router.wire import Chat, ChatOptions, ChatPatch, NewChat
from tests.router.store_kit import Clock, opened
from tests.router.test_job_row import RECEIPT


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "quorum.db") as store:
        yield store


@pytest.fixture
def chats(store: Store, clock: Clock) -> Chats:
    return Chats(store, clock)


async def asked(chats: Chats, clock: Clock, *contents: str) -> str:
    """A conversation with these messages of the user; its id."""
    clock.now += 1
    chat = await chats.create(NewChat(model="tiny"))
    for content in contents:
        await chats.add_user_message(chat.id, content=content, model="tiny")
    return chat.id


async def test_a_new_conversation_is_empty_and_first_in_the_list(chats: Chats, clock: Clock) -> None:
    old = await chats.create(NewChat(title="Old"))
    clock.now += 5
    new = await chats.create(NewChat(model="tiny"))

    assert new.title == ""
    assert new.model == "tiny"
    assert [chat.id for chat in await chats.list()] == [new.id, old.id]
    assert await chats.get(new.id) == Chat(info=new, options=ChatOptions(), messages=[])


async def test_a_message_brings_its_conversation_to_the_top(chats: Chats, clock: Clock) -> None:
    first = await asked(chats, clock, "one")
    second = await asked(chats, clock, "two")
    clock.now += 1
    await chats.add_user_message(first, content="more", model="other")

    assert [chat.id for chat in await chats.list()] == [first, second]
    assert (await chats.info(first)).model == "other"


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("Why is the sky blue?", "Why is the sky blue?"),
        ("  Two\nlines\tof \x1b[31mtext ", "Two lines of [31mtext"),
        ("word " * 40, ("word " * 12).strip() + "…"),
        ("x" * 400, "x" * 60 + "…"),
        ("", "something else"),
    ],
)
async def test_the_first_message_names_the_conversation(chats: Chats, clock: Clock, content: str, title: str) -> None:
    chat_id = await asked(chats, clock, content, "something else")

    assert (await chats.info(chat_id)).title == title


async def test_a_title_of_the_users_own_stays(chats: Chats) -> None:
    chat = await chats.create(NewChat(title="  Mine\n "))
    await chats.add_user_message(chat.id, content="hello")

    assert (await chats.info(chat.id)).title == "Mine"


async def test_messages_come_back_as_they_were_with_their_tree(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock)
    image = "data:image/png;base64,AAAA"
    question = await chats.add_user_message(chat_id, content="Grüße 🙂\0", images=[image], model="tiny")
    first = await chats.add_answer(chat_id, parent_id=question.id, model="tiny", job_id="j1")
    second = await chats.add_answer(chat_id, parent_id=question.id, model="tiny", job_id="j2")

    messages = (await chats.get(chat_id)).messages
    assert messages == [question, first, second]
    assert [message.parent_id for message in messages] == [None, question.id, question.id]
    assert messages[0].images == [image]
    assert messages[1].state == "running"


async def test_an_answer_ends_with_its_receipt(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock, "hello")
    answer = await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j1")
    assert (await chats.info(chat_id)).running_job == "j1"
    clock.now += 9

    ended = await chats.finish_answer(answer.id, content="hi", reasoning="hm", reasoning_s=1.5, receipt=RECEIPT)

    assert (ended.state, ended.content, ended.reasoning, ended.reasoning_s) == ("ended", "hi", "hm", 1.5)
    assert ended.receipt == RECEIPT
    assert await chats.message(answer.id) == ended
    info = await chats.info(chat_id)
    assert info.running_job is None
    assert info.updated_at == clock.now


async def test_a_failed_answer_keeps_what_was_said_and_why(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock, "hello")
    answer = await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j1")
    error = failure("interrupted", "The engine stopped.")

    ended = await chats.finish_answer(answer.id, content="half an ans", error=error)

    assert ended.content == "half an ans"
    assert ended.error == error


async def test_answers_an_earlier_process_left_running_are_listed(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "left.db"
    async with opened(path) as store:
        chats = Chats(store, clock)
        chat_id = await asked(chats, clock, "hello")
        left = await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j1")
        done = await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j2")
        await chats.finish_answer(done.id, content="hi")
    async with opened(path) as store:
        assert list(await Chats(store, clock).running_answers()) == [left]


async def test_only_what_a_patch_names_is_changed(chats: Chats) -> None:
    chat = await chats.create(NewChat(title="Old", model="tiny"))
    options = ChatOptions(system="Be kind.", temperature=0.0, max_tokens=9)

    assert (await chats.patch(chat.id, ChatPatch(title="New"))).title == "New"
    assert (await chats.patch(chat.id, ChatPatch(options=options))).model == "tiny"
    assert await chats.patch(chat.id, ChatPatch()) == await chats.info(chat.id)
    whole = await chats.get(chat.id)
    assert (whole.info.title, whole.info.model, whole.options) == ("New", "tiny", options)


async def test_deleting_takes_the_messages_and_names_the_jobs_that_still_run(
    chats: Chats, clock: Clock, store: Store
) -> None:
    chat_id, other = await asked(chats, clock, "one"), await asked(chats, clock, "two")
    await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j1")

    assert await chats.delete(chat_id) == ["j1"]

    assert [chat.id for chat in await chats.list()] == [other]
    left = await store.run(lambda db: db.execute_sql("SELECT count(*) FROM messages").fetchone()[0])
    assert left == 1


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("cat", {0}),
        ("CATS", {0}),
        ("100%", {1}),
        ("0%0", set()),
        ("snake_case", {1}),
        ("snakeXcase", set()),
        ("back\\slash", {1}),
        ("größe", {2}),
        ("GRÖSSE", {2}),
        ("привет", {2}),
        ("   ", {0, 1, 2}),
        ("'; DROP TABLE chats; --", set()),
        ("\ud800", set()),
    ],
)
async def test_search_finds_title_and_text_in_any_case_and_takes_signs_as_they_are(
    chats: Chats, clock: Clock, q: str, found: set[int]
) -> None:
    ids = [
        await asked(chats, clock, "About Cats", "and dogs"),
        await asked(chats, clock, "numbers", "it is 100% snake_case with a back\\slash"),
        await asked(chats, clock, "Übergröße", "ПРИВЕТ"),
    ]

    assert {ids.index(chat.id) for chat in await chats.list(q)} == found


async def test_answers_are_searched_too(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock, "hello")
    answer = await chats.add_answer(chat_id, parent_id=None, model="tiny", job_id="j1")
    await chats.finish_answer(answer.id, content="The answer is Elephant.")

    assert [chat.id for chat in await chats.list("elephant")] == [chat_id]


async def test_a_conversation_is_exported(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock, "About cats")

    name, kind, content = await chats.export(chat_id, "md")
    assert (name, kind) == ("about-cats.md", "text/markdown; charset=utf-8")
    assert b"## You" in content
    name, kind, content = await chats.export(chat_id, "json")
    assert (name, kind) == ("about-cats.json", "application/json; charset=utf-8")
    assert msgspec.json.decode(content, type=Chat) == await chats.get(chat_id)
    with pytest.raises(BadRequestError, match="md or json"):
        await chats.export(chat_id, "exe")


async def test_what_is_not_there_is_said_so(chats: Chats) -> None:
    for call in (
        chats.get("x"),
        chats.info("x"),
        chats.patch("x", ChatPatch(title="y")),
        chats.delete("x"),
        chats.export("x", "md"),
        chats.add_user_message("x", content="y"),
        chats.add_answer("x", parent_id=None, model="m", job_id="j"),
        chats.finish_answer("x", content="y"),
        chats.message("x"),
    ):
        with pytest.raises(QuorumError) as failed:
            await call
        assert failed.value.code == "not_found"


async def test_text_that_no_utf8_can_hold_is_stored_without_its_broken_parts(chats: Chats, clock: Clock) -> None:
    chat_id = await asked(chats, clock, "broken \ud800 half")

    (message,) = (await chats.get(chat_id)).messages
    assert message.content == "broken ? half"
