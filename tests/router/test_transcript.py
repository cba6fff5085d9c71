"""A conversation as a file."""

from __future__ import annotations

import msgspec
import pytest

from router.errors import failure
from router.transcript import as_json, as_markdown, file_name, shown_branch
from router.wire import Chat, ChatInfo, ChatOptions, Message


def message(message_id: str, parent_id: str | None, role: str = "user", content: str = "", **fields: object) -> Message:
    return Message(
        id=message_id,
        chat_id="c",
        parent_id=parent_id,
        role=role,
        content=content,
        created_at=0.0,
        **fields,  # type: ignore[arg-type]
    )


def chat(*messages: Message, title: str = "About cats", system: str = "") -> Chat:
    info = ChatInfo(id="c", title=title, model="tiny", created_at=0.0, updated_at=0.0)
    return Chat(info=info, options=ChatOptions(system=system), messages=list(messages))


def test_the_branch_of_the_newest_leaf_is_shown() -> None:
    shown = shown_branch(
        chat(message("1", None), message("2", "1"), message("3", "2"), message("4", "2"), message("5", "4"))
    )

    assert [each.id for each in shown] == ["1", "2", "4", "5"]
    assert shown_branch(chat()) == []


def test_a_loop_of_parents_ends() -> None:
    assert len(shown_branch(chat(message("1", "2"), message("2", "1")))) == 2


def test_markdown_has_who_said_what() -> None:
    text = as_markdown(
        chat(
            message("1", None, content="Was *ist* das?", images=["data:image/png;base64,AAAA"]),
            message("2", "1", "assistant", "Eine Katze.", model="tiny", reasoning="Hm."),
            message("3", "2", "assistant", model="tiny", error=failure("interrupted", "The engine stopped.")),
            system="Be kind.\nBe brief.",
        )
    ).decode()

    for part in ("# About cats\n", "> Be kind.\n> Be brief.", "## You", "Was *ist* das?", "*(1 image)*", "## tiny"):
        assert part in text
    assert "Eine Katze." in text
    assert "Hm." in text
    assert "*The engine stopped.*" in text
    assert "base64" not in text


def test_json_has_everything() -> None:
    whole = chat(message("1", None, content="Grüße"), system="Be kind.")

    assert msgspec.json.decode(as_json(whole), type=Chat) == whole


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("About cats", "about-cats.md"),
        ("../../etc/passwd", "etc-passwd.md"),
        ('a"b\r\nc', "a-b-c.md"),
        ("Grüße", "gr-e.md"),
        ("", "conversation.md"),
        ("日本", "conversation.md"),
        ("x" * 200, "x" * 60 + ".md"),
    ],
)
def test_a_file_name_is_safe_everywhere(title: str, name: str) -> None:
    assert file_name(chat(title=title), "md") == name
