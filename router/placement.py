"""Who serves a request: pure, no I/O, no clock, no logging. The numbers are those of ``DESIGN.md``, "Placement"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.prediction import NOTHING, UNMEASURED, Need, Speed, predict
from router.wire_receipt import Predicted, Verdict

CLOSE = 1.1
CLOSE_S = 0.05


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
    """Whose turn comes first; ``fastest`` asks only who should be done first, as far as that was measured."""

    PEERS_FIRST = "peers-first"
    LOCAL_FIRST = "local-first"
    FASTEST = "fastest"


@dataclass(frozen=True, slots=True)
class HolderView:
    """One holder of the model as it stands now. ``blocked`` is the word that rules it out, if any does.

    ``digest`` is None where its engine tells none: it holds the model by name. ``speed`` is what was measured there.
    """

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
    digest: str | None = None
    speed: Speed = UNMEASURED

    @property
    def free(self) -> bool:
        return self.in_flight + self.waiting < self.width

    @property
    def load(self) -> float:
        """Jobs per place: what the shortest wait is measured by until rates are known."""
        return (self.in_flight + self.waiting) / self.width

    @property
    def ahead(self) -> float:
        """What must end before one more job starts, in jobs a place; of those that run, half is left."""
        return 0.0 if self.free else (0.5 + self.in_flight + self.waiting - self.width) / self.width


@dataclass(frozen=True, slots=True)
class Decision:
    """The holder chosen (None: nobody can), why, every candidate's verdict, and what is expected of the chosen.

    ``absent`` are the computers that are no candidates: they don't hold the model.
    """

    chosen: HolderView | None
    reason: str
    verdicts: tuple[Verdict, ...]
    predicted: Predicted | None = None
    absent: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class _Usable:
    view: HolderView
    predicted: Predicted | None

    def decision(self, reason: str, verdicts: tuple[Verdict, ...]) -> Decision:
        return Decision(self.view, reason, verdicts, self.predicted)


def place(
    views: Sequence[HolderView],
    tried: frozenset[tuple[str, str]] = frozenset(),
    route: str = "",
    need: Need = NOTHING,
) -> Decision:
    """Choose among ``views``, all holders of one model; ``tried`` are (node, engine) pairs already tried this round.

    ``need`` is what the job is expected to take.
    """
    if len(views) == 1 and not tried:
        return _only(views[0], need)
    # [1] every candidate gets its verdict
    words = [_verdict(view, tried) for view in views]
    seen = [
        _Usable(view, _expected(view, need) if word in (Word.WARM, Word.COLD, Word.BUSY) else None)
        for view, word in zip(views, words, strict=True)
    ]
    verdicts = tuple(_said(one.view, word, one.predicted) for one, word in zip(seen, words, strict=True))
    usable = [one for one, word in zip(seen, words, strict=True) if word in (Word.WARM, Word.COLD, Word.BUSY)]
    # [2] who is done first, or the first class of the route policy that has a free holder; [3] the best within it
    if route == Route.FASTEST:
        usable, soonest = _measured(usable)
        if soonest is not None:
            return soonest.decision("soonest", verdicts)
    for reason, local, warm in _classes(route):
        free = [one for one in usable if one.view.free and one.view.local is local and one.view.warm is warm]
        if free:
            return _best(free, _rank).decision(reason, verdicts)
    if usable:
        return _best(usable, _wait).decision("shortest-wait", verdicts)
    # this computer, paused or draining, keeps the job until it resumes
    waiting = [v for v, w in zip(views, words, strict=True) if v.local and w in (Word.PAUSED, Word.DRAINING)]
    if waiting:
        keeper = min(waiting, key=lambda view: (str(view.blocked), view.engine, view.model))
        return Decision(keeper, f"waits-{keeper.blocked}", verdicts)
    return Decision(None, "nobody", verdicts)


def _only(view: HolderView, need: Need) -> Decision:
    """The usual case of one holder, which needs no comparison."""
    word = _verdict(view, frozenset())
    kept = view.local and word in (Word.PAUSED, Word.DRAINING)
    if view.blocked is not None:
        reason = f"waits-{word}" if kept else "nobody"
        return Decision(view if kept else None, reason, (_said(view, word, None),))
    expected = _expected(view, need)
    where = "local" if view.local else "peer"
    reason = "shortest-wait" if word is Word.BUSY else f"{where}-{word}"
    return Decision(view, reason, (_said(view, word, expected),), expected)


def _expected(view: HolderView, need: Need) -> Predicted | None:
    return predict(view.speed, need, warm=view.warm, ahead=view.ahead)


def _said(view: HolderView, word: Word, expected: Predicted | None) -> Verdict:
    predicted_s = round(expected.finish_s, 3) if expected is not None else None
    return Verdict(node=view.node, engine=view.engine, verdict=word, detail=view.detail, predicted_s=predicted_s)


def _measured(usable: list[_Usable]) -> tuple[list[_Usable], _Usable | None]:
    """For ``fastest``: who is done first; or, first, those among whom the chain decides as nothing is known of them.

    A free warm holder that was never measured gets one job, else it would never be; a cold one only if all others are
    busy.
    """
    known = [one for one in usable if one.predicted is not None]
    unknown = [one for one in usable if one.predicted is None and one.view.free]
    if warm := [one for one in unknown if one.view.warm]:
        return warm, None
    if not known:
        return usable, None
    soonest = _best(known, _rank)
    return (unknown, None) if unknown and not soonest.view.free else (known, soonest)


def _best(usable: list[_Usable], rank: Callable[[HolderView], tuple[float, ...]]) -> _Usable:
    """The one that is done first, where all were measured; among those about as soon, and else, by ``rank``."""
    ends = [one.predicted.finish_s for one in usable if one.predicted is not None]
    if len(ends) == len(usable):
        late_s = min(ends) * CLOSE + CLOSE_S
        usable = [one for one, end_s in zip(usable, ends, strict=True) if end_s <= late_s]
    return min(usable, key=lambda one: rank(one.view))


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
