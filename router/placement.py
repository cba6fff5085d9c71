"""Who serves a request: pure, no I/O, no clock, no logging. The numbers are those of ``DESIGN.md``, "Placement"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.wire import Verdict


class Word(StrEnum):
    """The verdicts a candidate can get."""

    WARM = "warm"
    COLD = "cold"
    BUSY = "busy"
    DRAINING = "draining"
    PAUSED = "paused"
    MISSING = "missing"
    UNHEALTHY = "unhealthy"
    UNTRUSTED = "untrusted"
    TRIED = "tried"
    UNFIT = "unfit"


class Route(StrEnum):
    """Whose turn comes first; ``fastest`` behaves as ``peers-first`` until rates have been measured."""

    PEERS_FIRST = "peers-first"
    LOCAL_FIRST = "local-first"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True)
class HolderView:
    """One holder of the model as it stands now. ``blocked`` is the word that rules it out, if any does."""

    node: str
    engine: str
    model: str
    local: bool
    warm: bool
    in_flight: int
    waiting: int
    width: int
    last_used: float = 0.0
    free_vram_bytes: int = 0
    blocked: Word | None = None
    detail: str = ""

    @property
    def free(self) -> bool:
        return self.in_flight + self.waiting < self.width

    @property
    def load(self) -> float:
        """Jobs per place: what the shortest wait is measured by until rates are known."""
        return (self.in_flight + self.waiting) / self.width


@dataclass(frozen=True, slots=True)
class Decision:
    """The holder chosen (None: nobody can), why, and what every candidate's verdict was."""

    chosen: HolderView | None
    reason: str
    verdicts: tuple[Verdict, ...]


def place(views: Sequence[HolderView], tried: frozenset[tuple[str, str]] = frozenset(), route: str = "") -> Decision:
    """Choose among ``views``, all holders of one model; ``tried`` are (node, engine) pairs already tried this round."""
    if len(views) == 1 and not tried:
        return _only(views[0])
    # [1] every candidate gets its verdict
    words = [_verdict(view, tried) for view in views]
    verdicts = tuple(
        Verdict(node=view.node, engine=view.engine, verdict=word, detail=view.detail)
        for view, word in zip(views, words, strict=True)
    )
    usable = [view for view, word in zip(views, words, strict=True) if word in (Word.WARM, Word.COLD, Word.BUSY)]
    # [2] the first class of the route policy that has a free holder, [3] the best within it
    for reason, local, warm in _classes(route):
        free = [view for view in usable if view.free and view.local is local and view.warm is warm]
        if free:
            return Decision(min(free, key=_rank), reason, verdicts)
    if usable:
        return Decision(min(usable, key=_wait), "shortest-wait", verdicts)
    # this computer, paused or draining, keeps the job until it resumes
    waiting = [v for v, w in zip(views, words, strict=True) if v.local and w in (Word.PAUSED, Word.DRAINING)]
    if waiting:
        keeper = min(waiting, key=lambda view: (str(view.blocked), view.engine, view.model))
        return Decision(keeper, f"waits-{keeper.blocked}", verdicts)
    return Decision(None, "nobody", verdicts)


def _only(view: HolderView) -> Decision:
    """The usual case of one holder, which needs no comparison."""
    word = _verdict(view, frozenset())
    verdict = Verdict(node=view.node, engine=view.engine, verdict=word, detail=view.detail)
    kept = view.local and word in (Word.PAUSED, Word.DRAINING)
    if view.blocked is not None and not kept:
        return Decision(None, "nobody", (verdict,))
    where = "local" if view.local else "peer"
    reason = f"waits-{word}" if kept else "shortest-wait" if word is Word.BUSY else f"{where}-{word}"
    return Decision(view, reason, (verdict,))


def _verdict(view: HolderView, tried: frozenset[tuple[str, str]]) -> Word:
    if (view.node, view.engine) in tried:
        return Word.TRIED
    if view.blocked is not None:
        return view.blocked
    if not view.free:
        return Word.BUSY
    return Word.WARM if view.warm else Word.COLD


def _classes(route: str) -> tuple[tuple[str, bool, bool], ...]:
    """(reason, local, warm) in the order of the policy."""
    if route == Route.LOCAL_FIRST:
        return (
            ("local-warm", True, True),
            ("local-cold", True, False),
            ("peer-warm", False, True),
            ("peer-cold", False, False),
        )
    return (
        ("peer-warm", False, True),
        ("local-warm", True, True),
        ("peer-cold", False, False),
        ("local-cold", True, False),
    )


def _rank(view: HolderView) -> tuple[float, float, int]:
    """Least in flight, then least recently used, then most free VRAM."""
    return view.in_flight, view.last_used, -view.free_vram_bytes


def _wait(view: HolderView) -> tuple[float, bool, bool, float]:
    """Shortest wait; at a tie a warm one, then another computer."""
    return view.load, not view.warm, view.local, view.last_used
