"""Anthropic's messages as canonical chats, and how many tokens those are about. No I/O."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from router.errors import BadRequestError
from router.web.prompt import wrong
from router.web.turns import Turns, with_system

IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
IMAGE_TOKENS: Final = 1000
BYTES_A_TOKEN: Final = 3.5
MESSAGE_TOKENS: Final = 5
_PASSED: Final = ("temperature", "top_p", "top_k", "min_p", "seed")
_ELSEWHERE: Final = ("mcp_servers", "container")


def to_canonical(asked: dict[str, Any], *, counting: bool = False) -> dict[str, Any]:
    """A ``/v1/messages`` request as a chat-completions request; ``counting`` needs no ``max_tokens``.

    Raises BadRequestError naming the field.
    """
    for name in _ELSEWHERE:
        if asked.get(name):
            raise BadRequestError(f"'{name}' is run by Anthropic, not here.", "Offer tools and call them.", field=name)
    body: dict[str, Any] = {"model": asked.get("model"), "messages": _messages(asked)}
    most = asked.get("max_tokens")
    if not counting:
        if type(most) is not int or not 1 <= most <= 1_000_000:
            wrong("max_tokens", "a whole number from 1 to 1,000,000")
        body["max_tokens"] = most
    if asked.get("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= {name: asked[name] for name in _PASSED if asked.get(name) is not None}
    if (stops := asked.get("stop_sequences")) is not None:
        if type(stops) is not list or len(stops) > 32 or not all(type(stop) is str and stop for stop in stops):
            wrong("stop_sequences", "a list of at most 32 texts")
        body |= {"stop": stops} if stops else {}
    match asked.get("metadata"):
        case {"user_id": str(user)}:
            body["user"] = user[:512]
    body |= _thinking(asked.get("thinking"))
    body |= _output(asked.get("output_config"))
    return body | _tools(asked.get("tools"), asked.get("tool_choice"))


def shows_thinking(asked: dict[str, Any]) -> bool:
    """Whether the client asked to see how the model thinks; others don't expect such blocks."""
    thinking = asked.get("thinking")
    return thinking is not None and thinking.get("type") != "disabled"


def _messages(asked: dict[str, Any]) -> list[dict[str, Any]]:
    given = asked.get("messages")
    if type(given) is not list or not given:
        wrong("messages", "a list of at least one message")
    turns = Turns()
    for place, message in enumerate(given):
        name = f"messages[{place}]"
        if type(message) is not dict or message.get("role") not in ("user", "assistant", "system"):
            wrong(f"{name}.role", "user, assistant or system")
        role, content = message["role"], message.get("content")
        if type(content) is str:
            turns.say(role, content)
        elif type(content) is list:
            _blocks(turns, f"{name}.content", role, content)
        else:
            wrong(f"{name}.content", "text or a list of blocks")
    return with_system(_system(asked.get("system")), turns.done())


def _system(value: object) -> str:
    if value is None or type(value) is str:
        return value or ""
    if type(value) is not list:
        wrong("system", "text or a list of blocks of text")
    return "\n\n".join(_text(f"system[{place}]", block) for place, block in enumerate(value))


def _blocks(turns: Turns, name: str, role: str, blocks: list[Any]) -> None:
    """One message: results of tools first, then what is said, then the calls."""
    said: list[dict[str, Any]] = []
    calls: list[tuple[str, str, str]] = []
    for place, block in enumerate(blocks):
        at = f"{name}[{place}]"
        match block:
            case {"type": "thinking" | "redacted_thinking"}:
                continue
            case {"type": "tool_use", "id": str(call_id), "name": str(tool), "input": dict(given)}:
                calls.append((call_id, tool, msgspec.json.encode(given).decode()))
            case {"type": "tool_result", "tool_use_id": str(call_id)}:
                turns.result(call_id, *_result(f"{at}.content", block.get("content")))
            case _:
                said.append(_part(at, block))
    if role != "user" and any(part["type"] != "text" for part in said):
        wrong(name, "text: only a user shows images")
    if said:
        turns.say(role, said)
    for call in calls:
        turns.call(*call)


def _text(name: str, block: Any) -> str:
    if type(block) is not dict or block.get("type") != "text" or type(block.get("text")) is not str:
        wrong(name, "a block of text")
    return str(block["text"])


def _part(name: str, block: Any) -> dict[str, Any]:
    match block:
        case {"type": "text"}:
            made: dict[str, Any] = {"type": "text", "text": _text(name, block)}
        case {"type": "image", "source": {"type": "base64", "media_type": str(kind), "data": str(data)}}:
            if kind not in IMAGES:
                wrong(f"{name}.source.media_type", ", ".join(IMAGES))
            made = {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}
        case {"type": "image"}:
            hint = "Nothing is fetched from other addresses; send the image itself."
            wrong(f"{name}.source", "an image in base64", hint)
        case {"type": "document", "source": {"type": "text", "data": str(data)}}:
            title = block.get("title")
            made = {"type": "text", "text": f"{title}\n\n{data}" if type(title) is str else data}
        case {"type": "document"}:
            wrong(f"{name}.source", "a document of plain text", "No engine here reads other files.")
        case _:
            wrong(name, "a block of type text, image, document, tool_use, tool_result or thinking")
    return made


def _result(name: str, content: object) -> tuple[str, list[dict[str, Any]]]:
    """Text and images of what a tool gave back."""
    if content is None or type(content) is str:
        return content or "", []
    if type(content) is not list:
        wrong(name, "text or a list of blocks")
    parts = [_part(f"{name}[{place}]", block) for place, block in enumerate(content)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts), [part for part in parts if part["type"] != "text"]


def _thinking(thinking: Any) -> dict[str, Any]:
    if thinking is None:
        return {}
    kind = thinking.get("type") if type(thinking) is dict else None
    if kind not in ("enabled", "adaptive", "disabled"):
        wrong("thinking.type", "enabled, adaptive or disabled")
    return {"chat_template_kwargs": {"enable_thinking": kind != "disabled"}}


def _output(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    if type(config) is not dict:
        wrong("output_config", "an object")
    made: dict[str, Any] = {}
    if (effort := config.get("effort")) is not None:
        if type(effort) is not str or len(effort) > 32:
            wrong("output_config.effort", "a word")
        made["reasoning_effort"] = effort
    match config.get("format"):
        case None:
            pass
        case {"type": "json_schema", "schema": dict(schema)}:
            made["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        case _:
            wrong("output_config.format", "an object of type json_schema with a schema")
    return made


def _tools(tools: Any, choice: Any) -> dict[str, Any]:
    if tools is not None and type(tools) is not list:
        wrong("tools", "a list of tools")
    if not tools:
        return {}
    made: dict[str, Any] = {"tools": [_tool(f"tools[{place}]", tool) for place, tool in enumerate(tools)]}
    match choice:
        case None:
            pass
        case {"type": "auto" | "none" as word}:
            made["tool_choice"] = word
        case {"type": "any"}:
            made["tool_choice"] = "required"
        case {"type": "tool", "name": str(name)}:
            made["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            wrong("tool_choice.type", "auto, any, none, or tool with its name")
    if choice is not None and choice.get("disable_parallel_tool_use") is True:
        made["parallel_tool_calls"] = False
    return made


def _tool(name: str, tool: Any) -> dict[str, Any]:
    own = type(tool) is dict and (tool.get("type") or "custom") == "custom"
    if not own or type(tool.get("name")) is not str or type(tool.get("input_schema")) is not dict:
        hint = "Anthropic's own tools run at Anthropic; offer one of your own."
        wrong(name, "a tool of your own, with name and input_schema", hint)
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def estimate(canonical: dict[str, Any], prompt_bytes: int) -> int:
    """About how many tokens the prompt of a canonical chat has, where nobody can count them."""
    messages = canonical["messages"]
    parts = [part for message in messages if type(message["content"]) is list for part in message["content"]]
    images = sum(1 for part in parts if part["type"] != "text")
    tools = len(msgspec.json.encode(canonical["tools"])) if canonical.get("tools") else 0
    text = round((prompt_bytes + tools) / BYTES_A_TOKEN)
    return text + MESSAGE_TOKENS * len(messages) + IMAGE_TOKENS * images
