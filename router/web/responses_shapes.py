"""Between OpenAI's ``responses`` and the canonical chat: requests one way, the Response object the other. No I/O."""

from __future__ import annotations

from typing import Any, Final

from router.errors import BadRequestError
from router.web.prompt import wrong
from router.web.turns import Turns, with_system

METADATA_MOST: Final = 16
_PASSED: Final = (
    "temperature", "top_p", "top_logprobs", "user", "parallel_tool_calls", "seed", "stop", "top_k", "min_p",
    "presence_penalty", "frequency_penalty", "repeat_penalty", "chat_template_kwargs",
)  # fmt: skip
_ECHOED: Final = (
    "model", "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id",
    "reasoning", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "user", "background", "store",
)  # fmt: skip
_ELSEWHERE: Final = {
    "conversation": "Use 'previous_response_id', or send the items again.",
    "prompt": "Stored prompts are a service of OpenAI's; send the text itself.",
}
_LOGPROBS: Final = "message.output_text.logprobs"


def kept(asked: dict[str, Any]) -> dict[str, Any]:
    """What of a request is remembered: the fields a Response repeats, and the input as a list of items.

    Raises BadRequestError for what only makes sense elsewhere or is not as it must be.
    """
    for name, hint in _ELSEWHERE.items():
        if asked.get(name) is not None:
            raise BadRequestError(f"'{name}' is not kept here.", hint, field=name)
    for name in ("background", "store", "stream"):
        if type(asked.get(name) or False) is not bool:
            wrong(name, "true or false")
    store = asked.get("store") is not False
    if asked.get("background") and not store:
        raise BadRequestError("'background' needs 'store': the answer could not be fetched otherwise.", field="store")
    check_metadata(asked.get("metadata"))
    most = asked.get("max_output_tokens")
    if most is not None and (type(most) is not int or not 1 <= most <= 1_000_000):
        wrong("max_output_tokens", "a whole number from 1 to 1,000,000")
    if type(asked.get("instructions") or "") is not str:
        wrong("instructions", "text")
    if type(asked.get("previous_response_id") or "") is not str:
        wrong("previous_response_id", "the id of a response")
    if type(asked.get("include") or []) is not list:
        wrong("include", "a list of texts")
    remembered = {name: asked[name] for name in _ECHOED if asked.get(name) is not None}
    return remembered | {"input": _items(asked.get("input")), "store": store}


def check_metadata(value: object) -> None:
    """Raise BadRequestError unless ``value`` is absent or a few short texts."""
    if value is None:
        return
    if type(value) is not dict or len(value) > METADATA_MOST:
        wrong("metadata", f"an object of at most {METADATA_MOST} texts")
    for name, text in value.items():
        if len(name) > 64 or type(text) is not str or len(text) > 512:
            wrong("metadata", "an object of names of at most 64 and texts of at most 512 characters")


def _items(value: object) -> list[Any]:
    if type(value) is str:
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    if type(value) is not list or not value:
        wrong("input", "text, or a list of at least one item")
    return value


def to_canonical(asked: dict[str, Any], items: list[Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat-completions request: instructions, then ``history``, then ``items``. Raises BadRequestError."""
    turns = messages_of(items)
    body: dict[str, Any] = {
        "model": asked.get("model"),
        "messages": with_system(asked.get("instructions") or "", [*history, *turns]),
    }
    body |= {name: asked[name] for name in _PASSED if asked.get(name) is not None}
    if asked.get("max_output_tokens") is not None:
        body["max_tokens"] = asked["max_output_tokens"]
    if asked.get("stream"):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if _LOGPROBS in (asked.get("include") or ()) or asked.get("top_logprobs"):
        body["logprobs"] = True
    body |= _text(asked.get("text"))
    body |= _reasoning(asked.get("reasoning"))
    body |= _tools(asked.get("tools"), asked.get("tool_choice"))
    return body


def messages_of(items: list[Any], field: str = "input") -> list[dict[str, Any]]:
    """Input or output items as messages. Reasoning is left out: no engine takes it back."""
    turns = Turns()
    for place, item in enumerate(items):
        name = f"{field}[{place}]"
        if type(item) is not dict:
            wrong(name, "an object")
        match item.get("type") or "message":
            case "message":
                _message(turns, name, item)
            case "function_call":
                turns.call(_given(name, item, "call_id"), _given(name, item, "name"), _given(name, item, "arguments"))
            case "function_call_output":
                text, images = _output(f"{name}.output", item.get("output"))
                turns.result(_given(name, item, "call_id"), text, images)
            case "reasoning":
                continue
            case _:
                wrong(f"{name}.type", "message, function_call, function_call_output, reasoning or item_reference")
    return turns.done()


def _given(name: str, item: dict[str, Any], field: str) -> str:
    value = item.get(field)
    if type(value) is not str:
        wrong(f"{name}.{field}", "text")
    return value


def _message(turns: Turns, name: str, item: dict[str, Any]) -> None:
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant", "system", "developer"):
        wrong(f"{name}.role", "user, assistant, system or developer")
    if type(content) is not str:
        if type(content) is not list or not content:
            wrong(f"{name}.content", "text, or a list of at least one part")
        content = [_part(f"{name}.content[{place}]", part) for place, part in enumerate(content)]
        if role != "user" and any(part["type"] != "text" for part in content):
            wrong(f"{name}.content", "text: only a user shows images")
    turns.say("system" if role == "developer" else role, content)


def _part(name: str, part: object) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)} | {
            "type": "refusal",
            "refusal": str(text),
        }:
            made: dict[str, Any] = {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)} if url[:11].lower() == "data:image/":
            made = {"type": "image_url", "image_url": {"url": url}}
        case {"type": "input_image"}:
            hint = "Nothing is fetched from other addresses; send the image itself."
            wrong(f"{name}.image_url", "a data: address of an image in base64", hint)
        case {"type": "input_audio", "input_audio": dict(audio)}:
            made = {"type": "input_audio", "input_audio": audio}
        case {"type": "input_file"}:
            hint = "Put its text into the message."
            raise BadRequestError(f"'{name}' is a file, which no engine here reads.", hint, field=name)
        case _:
            wrong(name, "a part of type input_text, output_text, input_image or input_audio")
    return made


def _output(name: str, output: object) -> tuple[str, list[dict[str, Any]]]:
    """The text and the images of a function's result."""
    if type(output) is str:
        return output, []
    if type(output) is not list:
        wrong(name, "text or a list of parts")
    parts = [_part(f"{name}[{place}]", part) for place, part in enumerate(output)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return "\n".join(texts), [part for part in parts if part["type"] != "text"]


def _text(text: object) -> dict[str, Any]:
    if text is None:
        return {}
    if type(text) is not dict:
        wrong("text", "an object")
    made: dict[str, Any] = {"verbosity": text["verbosity"]} if text.get("verbosity") else {}
    match text.get("format"):
        case None | {"type": "text"}:
            pass
        case {"type": "json_object"}:
            made["response_format"] = {"type": "json_object"}
        case {"type": "json_schema", "schema": dict()} as form:
            schema = {name: form[name] for name in ("name", "description", "schema", "strict") if form.get(name)}
            made["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer"} | schema}
        case _:
            wrong("text.format", "an object of type text, json_object, or json_schema with a schema")
    return made


def _reasoning(reasoning: object) -> dict[str, Any]:
    if reasoning is None:
        return {}
    if type(reasoning) is not dict:
        wrong("reasoning", "an object")
    effort = reasoning.get("effort")
    if effort is None:
        return {}
    if type(effort) is not str:
        wrong("reasoning.effort", "a word")
    return {"chat_template_kwargs": {"enable_thinking": False}} if effort == "none" else {"reasoning_effort": effort}


def _tools(tools: object, choice: object) -> dict[str, Any]:
    if tools is not None and type(tools) is not list:
        wrong("tools", "a list of functions")
    offered = [_function(f"tools[{place}]", tool) for place, tool in enumerate(tools or ())]
    match choice:
        case None:
            made: dict[str, Any] = {}
        case "none" | "auto" | "required":
            made = {"tool_choice": choice}
        case {"type": "function", "name": str(name)}:
            made = {"tool_choice": {"type": "function", "function": {"name": name}}}
        case {"type": "allowed_tools", "mode": "auto" | "required" as mode, "tools": list(allowed)}:
            names = [tool.get("name") for tool in allowed if type(tool) is dict]
            offered = [tool for tool in offered if tool["function"]["name"] in names]
            made = {"tool_choice": mode}
        case _:
            wrong("tool_choice", "none, auto, required, a function by its name, or allowed_tools")
    return made | {"tools": offered} if offered else {}


def _function(name: str, tool: object) -> dict[str, Any]:
    if type(tool) is not dict:
        wrong(name, "an object")
    if tool.get("type") != "function":
        wrong(f"{name}.type", "function", "OpenAI's own tools run at OpenAI; offer a function and call it yourself.")
    made = {field: tool[field] for field in ("name", "description", "parameters", "strict") if tool.get(field)}
    return {"type": "function", "function": made}


def input_items(job_id: str, items: list[Any]) -> list[dict[str, Any]]:
    """The items as ``GET input_items`` lists them, each with an id, contents as parts."""
    return [_listed(f"{job_id}_in{place}", item) for place, item in enumerate(items)]


def _listed(name: str, item: dict[str, Any]) -> dict[str, Any]:
    kind = item.get("type") or "message"
    prefix = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}.get(kind, "it")
    made = {"id": item.get("id") or f"{prefix}_{name}", "type": kind, "status": "completed"} | item
    if kind == "message" and type(made["content"]) is str:
        part = "output_text" if made["role"] == "assistant" else "input_text"
        extra: dict[str, Any] = {"annotations": []} if part == "output_text" else {}
        made["content"] = [{"type": part, "text": made["content"]} | extra]
    return made


def response_of(job_id: str, asked: dict[str, Any], created_at: float) -> dict[str, Any]:
    """A Response object that has only begun; ``asked`` as ``kept`` made it."""
    usual: dict[str, Any] = {
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": None,
        "user": None,
        "background": False,
    }
    told = {name: value for name, value in asked.items() if name != "input"}
    return {
        "id": f"resp_{job_id}",
        "object": "response",
        "created_at": int(created_at),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "output": [],
        "service_tier": "default",
        "truncation": "disabled",
        "usage": None,
        **(usual | told),
    }
