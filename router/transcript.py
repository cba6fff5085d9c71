"""A conversation as a file: Markdown of the branch the page shows, or everything as JSON."""

from __future__ import annotations

import time

import msgspec

from router.wire import Chat, Message


def shown_branch(chat: Chat) -> list[Message]:
    """From the first message to the newest leaf of the tree."""
    by_id = {message.id: message for message in chat.messages}
    branch: list[Message] = []
    at = chat.messages[-1] if chat.messages else None
    while at is not None and len(branch) < len(by_id):
        branch.append(at)
        at = by_id.get(at.parent_id or "")
    return branch[::-1]


def as_json(chat: Chat) -> bytes:
    """The whole tree, options, receipts and images, as the API has them."""
    return msgspec.json.format(msgspec.json.encode(chat)) + b"\n"


def as_markdown(chat: Chat) -> bytes:
    """Title, system prompt, questions and answers; images are only mentioned."""
    parts = [f"# {chat.info.title or 'Conversation'}"]
    if chat.options.system.strip():
        parts.append(f"> {_quoted(chat.options.system.strip())}")
    for message in shown_branch(chat):
        parts.append(f"## {'You' if message.role == 'user' else message.model or 'Answer'}")
        parts.append(f"*{time.strftime('%Y-%m-%d %H:%M', time.localtime(message.created_at))}*")
        if message.reasoning:
            parts.append(f"<details><summary>Thoughts</summary>\n\n{message.reasoning}\n\n</details>")
        if message.images:
            parts.append(f"*({len(message.images)} image{'s' if len(message.images) > 1 else ''})*")
        if message.content:
            parts.append(message.content)
        if message.error is not None:
            parts.append(f"*{message.error.message}*")
    return ("\n\n".join(parts) + "\n").encode()


def file_name(chat: Chat, suffix: str) -> str:
    """A name every file system takes: ASCII letters, digits and hyphens of the title."""
    letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in chat.info.title.lower())
    return f"{'-'.join(letters.split())[:60].strip('-') or 'conversation'}.{suffix}"


def _quoted(text: str) -> str:
    return text.replace("\n", "\n> ")
