"""The chat page's questions as jobs: a branch of messages becomes a request, the answer is written as it ended."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from router.aio import Clock, Tasks
from router.chats import Chats
from router.chunks import NOT_JSON, payloads
from router.engines.base import Kind
from router.errors import BadRequestError, QuorumError, StoreError, failure
from router.intake import Intake
from router.jobs import Job, Origin
from router.view import View
from router.web.canonical import check
from router.wire import Answering, Chat, Ended, Message, NewMessage, Regenerate, State

AGAIN_S: Final = 5.0


class Conversations:
    """Asks and asks again; every answer is a job that lives on without its page."""

    def __init__(self, chats: Chats, intake: Intake, view: View, tasks: Tasks, clock: Clock) -> None:
        self._chats = chats
        self._intake = intake
        self._view = view
        self._tasks = tasks
        self._clock = clock

    async def ask(self, chat_id: str, asked: NewMessage) -> Answering:
        """Store the user's message and start its answer. Raises QuorumError, and then nothing is stored.

        An answer that nobody can give now is stored with its error, to be asked for again.
        """
        if not asked.content.strip() and not asked.images:
            raise BadRequestError("The message is empty.", field="content")
        chat = await self._chats.get(chat_id)
        if asked.parent_id is not None and all(message.id != asked.parent_id for message in chat.messages):
            raise BadRequestError("The message answered to is not in this conversation.", field="parent_id")
        await self._check(asked.model, asked.images)
        message = await self._chats.add_user_message(
            chat_id, content=asked.content, parent_id=asked.parent_id, images=asked.images, model=asked.model
        )
        self._view.message(message)
        chat = await self._chats.get(chat_id)
        return await self._answer(chat, message, asked.model, shown=message)

    async def again(self, chat_id: str, asked: Regenerate) -> Answering:
        """Another answer to the same question, beside the one named (an answer's or a user message's id)."""
        chat = await self._chats.get(chat_id)
        by_id = {message.id: message for message in chat.messages}
        named = by_id.get(asked.message_id)
        question = by_id.get(named.parent_id or "") if named and named.role == "assistant" else named
        if question is None:
            raise BadRequestError("That message is not in this conversation.", field="message_id")
        model = asked.model or (named.model if named else "") or chat.info.model
        await self._check(model, question.images)
        return await self._answer(chat, question, model, shown=None)

    async def _check(self, model: str, images: list[str]) -> None:
        """Raise QuorumError unless somebody holds ``model`` and it can see ``images``."""
        await self._intake.check_model(model)
        if images and not self._intake.sees(model):
            raise BadRequestError(
                f"The model '{model}' can't see pictures.",
                "Choose a model with vision, or ask without the pictures.",
                field="images",
            )

    async def _answer(self, chat: Chat, question: Message, model: str, *, shown: Message | None) -> Answering:
        body = msgspec.json.encode(_request(chat, question, model, self._intake.sees(model)))
        job = self._intake.job(
            check(Kind.CHAT, msgspec.json.decode(body), body), Origin.CHAT, keep=True, chat_id=chat.info.id
        )
        answer = await self._chats.add_answer(chat.info.id, parent_id=question.id, model=model, job_id=job.id)
        recorder = _Recorder(self, answer, job, self._clock)
        job.answer.attach(recorder)
        try:
            await self._intake.submit(job)
        except QuorumError as error:
            answer = await self._chats.finish_answer(answer.id, content="", error=error.info())
        self._view.message(answer)
        self._view.chat((await self._chats.get(chat.info.id)).info)
        return Answering(message=shown, answer=answer, job_id=job.id)

    def adopt(self, answer: Message, job: Job) -> None:
        """Follow again a job that this node resumed at its start."""
        job.answer.attach(_Recorder(self, answer, job, self._clock))

    async def lost(self, answer: Message) -> None:
        """An answer whose job is no longer known can't come."""
        error = failure("interrupted", "Quorum stopped before this answer was finished.", "Ask again.")
        await self._chats.finish_answer(
            answer.id, content=answer.content, reasoning=answer.reasoning, receipt=None, error=error
        )

    def finish(self, recorder: _Recorder, ended: Ended) -> None:
        """The answer ended: write it and its receipt."""
        self._tasks.spawn("write-answer", self._write(recorder, ended))

    async def _write(self, recorder: _Recorder, ended: Ended) -> None:
        """Into the conversation; while the disk can't be written, again and again."""
        while True:
            try:
                message = await self._chats.finish_answer(
                    recorder.message.id,
                    content=recorder.content_text,
                    reasoning=recorder.reasoning_text,
                    reasoning_s=recorder.reasoning_s,
                    receipt=ended.receipt,
                    error=ended.error,
                )
                self._view.message(message)
                self._view.chat((await self._chats.get(recorder.message.chat_id)).info)
            except StoreError:
                await asyncio.sleep(AGAIN_S)
                continue
            except QuorumError:
                pass  # a conversation deleted meanwhile needs no answer
            return


class _Recorder:
    """A Reader that collects what an answer says."""

    keeps = True

    def __init__(self, conversations: Conversations, message: Message, job: Job, clock: Clock) -> None:
        self.message = message
        self._conversations = conversations
        self._clock = clock
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._thought_from: float | None = None
        self._thought_to: float | None = None

    @property
    def content_text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning_text(self) -> str:
        return "".join(self._reasoning)

    @property
    def reasoning_s(self) -> float | None:
        if self._thought_from is None or self._thought_to is None:
            return None
        return round(self._thought_to - self._thought_from, 2)

    def content(self, events: bytes, seq: int) -> None:
        for payload in payloads(events):
            try:
                chunk: Any = msgspec.json.decode(payload)
                delta = chunk["choices"][0]["delta"]
                text, thought = delta.get("content"), delta.get("reasoning_content") or delta.get("reasoning")
            except (*NOT_JSON, LookupError, TypeError, AttributeError):
                continue
            if isinstance(thought, str) and thought:
                self._reasoning.append(thought)
                self._thought_to = self._clock.mono()
                self._thought_from = self._thought_from or self._thought_to
            if isinstance(text, str) and text:
                self._text.append(text)

    def state(self, state: State) -> None:
        """Moves are not recorded."""

    def reset(self) -> None:
        self._text.clear()
        self._reasoning.clear()
        self._thought_from = self._thought_to = None

    def ended(self, ended: Ended) -> None:
        self._conversations.finish(self, ended)


def _request(chat: Chat, question: Message, model: str, sees: bool) -> dict[str, Any]:
    """The canonical request for the branch that ends with ``question``.

    Failed and empty answers are left out, and what was asked around them becomes one message: many models' templates
    take only turns that alternate. Pictures that ``model`` can't see are mentioned.
    """
    by_id = {message.id: message for message in chat.messages}
    branch: list[Message] = []
    at: Message | None = question
    while at is not None:
        branch.append(at)
        at = by_id.get(at.parent_id or "")
    turns: list[tuple[str, list[str], list[str]]] = []
    for message in reversed(branch):
        if message.role != "user" and not message.content:
            continue
        if not turns or turns[-1][0] != message.role:
            turns.append((message.role, [], []))
        _, texts, images = turns[-1]
        texts.append(message.content)
        if sees:
            images += message.images
        elif message.images:
            texts.append("[a picture]" if len(message.images) == 1 else f"[{len(message.images)} pictures]")
    messages: list[dict[str, Any]] = []
    if chat.options.system.strip():
        messages.append({"role": "system", "content": chat.options.system})
    messages += [_said(role, "\n\n".join(filter(None, texts)), images) for role, texts, images in turns]
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
    if chat.options.temperature is not None:
        body["temperature"] = chat.options.temperature
    if chat.options.max_tokens is not None:
        body["max_tokens"] = chat.options.max_tokens
    return body


def _said(role: str, text: str, images: list[str]) -> dict[str, Any]:
    if not images:
        return {"role": role, "content": text}
    parts = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {"role": role, "content": [{"type": "text", "text": text}, *parts]}
