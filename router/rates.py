"""How fast models are, as measured here: when those in line start, who would be done first, what peers are told."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from router.engines.base import Kind
from router.jobs import Job
from router.lanes import Lane
from router.prediction import Need, Speed
from router.wire_receipt import Receipt

WEIGHT = 0.2
UNKNOWN_S = 10.0
FRESH_S = 600.0
BYTES_A_TOKEN = 4.0
ANSWER_TOKENS = 256.0
PROMPT_TOKENS = 1000.0
LOOK_BYTES = 512

_MAX = b'"max_'
_LIMIT = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d{1,9})')


@dataclass(slots=True)
class _Ratio:
    """Two sums in which what is old fades: a long job says more of a rate than a short one."""

    above: float = 0.0
    below: float = 0.0

    def add(self, above: float, below: float) -> None:
        self.above = (1 - WEIGHT) * self.above + above
        self.below = (1 - WEIGHT) * self.below + below

    @property
    def value(self) -> float | None:
        return self.above / self.below if self.below > 0 else None


@dataclass(slots=True)
class _Measured:
    """One model at one engine: tokens over seconds, seconds, and the share of prompts found ready."""

    prefill: _Ratio = field(default_factory=_Ratio)
    decode: _Ratio = field(default_factory=_Ratio)
    reused: _Ratio = field(default_factory=_Ratio)
    work_s: float | None = None
    load_s: float | None = None
    at: float = 0.0


@dataclass(slots=True)
class _Texts:
    """What is asked of one model and answered by it, wherever it runs."""

    size: _Ratio = field(default_factory=_Ratio)  # bytes over tokens
    prompt: float | None = None
    answer: float | None = None


_NO_TEXTS = _Texts()


class Rates:
    """Moving means by engine and by the digest of the model, else its name. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str], _Measured] = {}
        self._texts: dict[str, _Texts] = {}
        self._identities: dict[tuple[str, str], str] = {}

    # -- what ended jobs show

    def learn(self, job: Job) -> None:
        """Learn from a job that is done."""
        receipt, chosen = job.receipt, job.decision.chosen if job.decision else None
        if job.lane is None or receipt is None:
            return
        identity = identity_of(chosen.digest if chosen else None, job.lane_model)
        self._identities[job.lane.engine, job.lane_model] = identity
        seen = self._measured.setdefault((job.lane.engine, identity), _Measured())
        seen.at = job.created_mono + (receipt.total_s or 0.0)
        worked_s = receipt.working_s
        if worked_s is None:
            worked_s = max(0.0, (receipt.total_s or 0.0) - receipt.queued_s - receipt.loading_s)
        seen.work_s = _mean(seen.work_s, worked_s)
        if receipt.loading_s > 0:
            seen.load_s = _mean(seen.load_s, receipt.loading_s)
        self._learn_speed(seen, job.kind, receipt, worked_s)
        self._learn_texts(identity, job, receipt)

    @staticmethod
    def _learn_speed(seen: _Measured, kind: Kind, receipt: Receipt, worked_s: float) -> None:
        asked, ready, made = receipt.prompt_tokens or 0, receipt.cached_tokens or 0, receipt.completion_tokens or 0
        if asked:
            seen.reused.add(min(ready, asked), asked)
        read = max(0, asked - ready)
        reading_s = worked_s if kind is Kind.EMBEDDING else receipt.ttft_s
        if receipt.prefill_per_s:
            seen.prefill.add(read or 1, (read or 1) / receipt.prefill_per_s)
        elif read and reading_s:
            seen.prefill.add(read, reading_s)
        if kind is Kind.EMBEDDING:
            return
        if receipt.tokens_per_s:
            seen.decode.add(made or 1, (made or 1) / receipt.tokens_per_s)
        elif made and worked_s > 0:
            seen.decode.add(made, worked_s)

    def _learn_texts(self, identity: str, job: Job, receipt: Receipt) -> None:
        texts = self._texts.setdefault(identity, _Texts())
        if receipt.prompt_tokens:
            texts.prompt = _mean(texts.prompt, receipt.prompt_tokens)
            if job.body and not job.sees:
                texts.size.add(len(job.body), receipt.prompt_tokens)
        if receipt.completion_tokens and job.kind is not Kind.EMBEDDING:
            texts.answer = _mean(texts.answer, receipt.completion_tokens)

    def forget_prompts(self, engine: str, model: str) -> None:
        """The loaded copy of ``model`` at ``engine`` is gone, and with it every prompt that it held ready."""
        if (seen := self._at(engine, model)) is not None:
            seen.reused = _Ratio()

    # -- what placement and peers ask

    def speed(self, engine: str, identity: str, told: Speed, now: float) -> Speed:
        """What is known of a model at an engine: what was seen here lately, else what its computer ``told``."""
        seen = self._measured.get((engine, identity))
        if seen is None:
            return told
        own = Speed(seen.prefill.value, seen.decode.value, seen.load_s, seen.work_s, seen.reused.value or 0.0)
        first, second = (own, told) if now - seen.at < FRESH_S else (told, own)
        return Speed(
            first.prefill_per_s or second.prefill_per_s,
            first.decode_per_s or second.decode_per_s,
            second.load_s if first.load_s is None else first.load_s,
            own.work_s,
            own.reused,
        )

    def own(self, engine: str, model: str) -> Speed:
        """What was measured of a model at one of this computer's engines, as its peers are told."""
        seen = self._at(engine, model)
        if seen is None:
            return Speed()
        return Speed(_three(seen.prefill.value), _three(seen.decode.value), _three(seen.load_s))

    def need(self, job: Job, identity: str) -> Need:
        """What ``job`` is expected to take: by the size of its request and by what the model usually answers."""
        texts = self._texts.get(identity, _NO_TEXTS)
        by_size = len(job.body) / (texts.size.value or BYTES_A_TOKEN)
        prompt = (texts.prompt or PROMPT_TOKENS) if job.sees else by_size
        if job.kind is Kind.EMBEDDING:
            return Need(prompt)
        answer = texts.answer or ANSWER_TOKENS
        return Need(prompt, min(answer, _limit(job.body)))

    # -- lines

    def _at(self, engine: str, model: str) -> _Measured | None:
        return self._measured.get((engine, self._identities.get((engine, model), "")))

    def work_s(self, engine: str, model: str) -> float:
        """Seconds one job of ``model`` works at ``engine``."""
        seen = self._at(engine, model)
        return UNKNOWN_S if seen is None or seen.work_s is None else seen.work_s

    def load_s(self, engine: str, model: str) -> float:
        """Seconds the load of ``model`` takes at ``engine``; 0 while unknown."""
        seen = self._at(engine, model)
        return 0.0 if seen is None or seen.load_s is None else seen.load_s

    def etas(self, lane: Lane, waiting: list[Job]) -> list[float]:
        """Seconds until each of ``waiting`` (in the order they will run) starts, swaps of models included."""
        loaded = lane.running_model
        at = self.work_s(lane.engine, loaded) / 2 / lane.width if loaded and not lane.free else 0.0
        etas = []
        for job in waiting:
            if loaded and job.lane_model != loaded:
                at += self.load_s(lane.engine, job.lane_model)
            loaded = job.lane_model
            etas.append(round(at, 1))
            at += self.work_s(lane.engine, job.lane_model) / lane.width
        return etas

    def turn_s(self, lanes: Iterable[Lane]) -> float:
        """Seconds until some lane takes its next job: when a full queue should have a place again."""
        turns = [self.work_s(lane.engine, lane.running_model) / lane.width for lane in lanes if lane.waiting]
        return min(300.0, max(1.0, min(turns, default=1.0)))


def _limit(body: bytes) -> float:
    """How many tokens an answer may have, where the request says so near its beginning or its end."""
    for part in (body[:LOOK_BYTES], body[-LOOK_BYTES:]):
        if _MAX in part and (found := _LIMIT.search(part)) is not None:
            return float(found[1])
    return math.inf


def identity_of(digest: str | None, name: str) -> str:
    """What stands for the model: its digest, or the normalised name where its engine tells none."""
    return digest or name.lower().removesuffix(":latest")


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)


def _three(value: float | None) -> float | None:
    """To three digits, so that what is told does not change with every job."""
    return None if value is None else float(f"{value:.3g}")
