"""What the doctor makes of what was found out: one sentence and one hint for each computer. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from router.states import NodeMode, PeerState
from router.wire_peers import Finding, Fix, Level
from router.wire_snapshot import OLDEST, PROTOCOL

CLOCK_S: Final = 60.0
"""How far two clocks may differ: times of jobs and conversations are shown side by side."""

USUAL_PORT: Final = 7412


class Said(StrEnum):
    """How one address answered a connection, and the certificate shown there."""

    PAIRED = "paired"
    OTHER = "other"
    GARBLED = "garbled"
    FROZEN = "frozen"
    REFUSED = "refused"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    NO_ROUTE = "no-route"


class Way(StrEnum):
    """Through which network of this computer an address is reached; ``routed``: through none of its own."""

    LAN = "lan"
    VPN = "vpn"
    ROUTED = "routed"


@dataclass(frozen=True, slots=True)
class Knock:
    """One connection to one address. ``shown`` is the node id of a certificate that is not the paired one."""

    address: str
    port: int
    said: Said
    way: Way = Way.LAN
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Words:
    """What the computer itself answered over its pinned certificate. ``status`` is that of the two-way check, 0: none.

    ``protocol`` 0: it did not tell. ``missed`` says how its call back failed: timeout, refused, certificate; empty when
    it reached this computer, None when that is not known. ``ahead_s``: its clock less this one's.
    """

    protocol: int = 0
    version: str = ""
    status: int = 0
    missed: str | None = None
    back_to: str = ""
    ahead_s: float | None = None


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """All that is known of one paired computer. ``seen``: its announcements arrive (None: nobody looks for them).

    ``follows``: its own line to this computer is open. ``left``: it said goodbye. ``known_as`` names a computer that
    is known by the certificate shown instead.
    """

    node_id: str
    name: str
    state: PeerState = PeerState.OFFLINE
    reason: str = ""
    mode: NodeMode = NodeMode.RUNNING
    shared: bool = True
    granted: bool = True
    left: bool = False
    follows: bool = False
    seen: bool | None = None
    known_as: str = ""
    knocks: tuple[Knock, ...] = ()
    words: Words | None = None


@dataclass(frozen=True, slots=True)
class HereFacts:
    """This computer among others. ``browsing`` None: discovery is switched off. ``holder`` has the usual peer port.

    ``trouble`` and ``deaf`` say why others can't reach this computer, and why it can't look for them.
    """

    addresses: tuple[str, ...] = ()
    sharing: bool = False
    listens: bool = False
    wanted_port: int = USUAL_PORT
    port: int = 0
    holder: str = ""
    trouble: str = ""
    browsing: bool | None = True
    deaf: str = ""
    seen: int = 0
    paired: int = 0


# -- one paired computer


def judge(facts: PeerFacts, own_port: int) -> Finding:
    """The one sentence about a paired computer; ``own_port`` is where it reaches this one."""
    reached = [knock for knock in facts.knocks if knock.said is Said.PAIRED]
    if reached:
        return _reached(facts, reached, own_port)
    return _not_reached(facts)


def _reached(facts: PeerFacts, reached: Sequence[Knock], own_port: int) -> Finding:
    name, words, at = facts.name, facts.words or Words(), _at(reached[0])
    refused = _refused(facts, words, at)
    if refused is not None:
        return refused
    if facts.state in (PeerState.UNHEALTHY, PeerState.OFFLINE):
        why = facts.reason or "Its state has not come yet."
        return _bad(facts, "garbled", f"{name} answers at {at}, but its state can't be followed: {why}", _RESTART, at)
    if facts.mode is not NodeMode.RUNNING:
        word = "paused" if facts.mode is NodeMode.PAUSED else "draining"
        hint = f"It takes work again after 'Resume' in the tray of {name}."
        return _note(facts, word, f"{name} is {word} by its owner and takes no new work.", hint, at)
    if words.missed:
        return _one_way(facts, words, own_port, at)
    if words.ahead_s is not None and abs(words.ahead_s) > CLOCK_S:
        away, word = _span(abs(words.ahead_s)), "ahead of" if words.ahead_s > 0 else "behind"
        hint = "Switch on the automatic setting of the time on the one that is wrong."
        return _bad(facts, "clock", f"The clock of {name} is {away} {word} this computer's.", hint, at)
    if not facts.shared:
        hint = f"Switch on 'Share this computer's models' in the settings of {name}."
        return _note(facts, "not-shared", f"{name} does not share its models.", hint, at)
    if not facts.granted:
        hint = f"Allow it on the Peers page of {name}: 'Use this computer's models'."
        return _note(facts, "not-granted", f"{name} does not let this computer use its models.", hint, at)
    ways = {knock.way for knock in reached}
    if ways == {Way.VPN}:
        hint = "Models answer more slowly over a VPN; in one network the two find a shorter way by themselves."
        return _note(facts, "vpn", f"{name} is reached over a VPN only, at {at}.", hint, at)
    if facts.seen is False and Way.LAN in ways:
        sentence = f"{name} is reached at {at}, but its announcements don't arrive: multicast is blocked between you."
        return _bad(facts, "multicast", sentence, MULTICAST_HINT, at)
    return Finding(
        id=facts.node_id, name=name, level=Level.GOOD, code="good", sentence=f"{name} is fine: both ways work.", at=at
    )


def _refused(facts: PeerFacts, words: Words, at: str) -> Finding | None:
    """It is there, and wants nothing to do with this computer."""
    name = facts.name
    if max(1, words.protocol - 1) > PROTOCOL:
        sentence = f"{name} runs Quorum {words.version}, which is too new for this one."
        return _bad(facts, "too-new", sentence, "Update Quorum on this computer.", at)
    if 0 < words.protocol < OLDEST:
        sentence = f"{name} runs Quorum {words.version}, which is too old for this one."
        return _bad(facts, "too-old", sentence, f"Update Quorum on {name}.", at)
    if words.status == 401:
        sentence = f"{name} does not know this computer any more."
        hint = "It was unpaired or is ignored there, or its data were reset: pair the two again."
        return _bad(facts, "forgotten", sentence, hint, at, Fix.PAIR)
    if not words.protocol:
        return _bad(facts, "garbled", f"{name} takes connections at {at}, but does not answer.", _RESTART, at)
    return None


def _one_way(facts: PeerFacts, words: Words, own_port: int, at: str) -> Finding:
    """This computer reaches it, and it does not reach this one."""
    name, here = facts.name, _place(words.back_to, own_port)
    if words.missed == "certificate":
        sentence = f"You reach {name}, but it finds another computer at {here}, where this one should be."
        return _bad(
            facts, "one-way", sentence, "Two computers have the same address, or a router answers for this one.", at
        )
    if words.missed == "refused":
        sentence = f"You reach {name}, but its connections to {here} are refused."
        hint = f"A firewall of this computer refuses port {own_port}, or a router stands between: allow it (TCP)."
        return _bad(facts, "one-way", sentence, hint, at)
    sentence = f"You reach {name}, but it can't reach this computer at {here}."
    hint = f"A firewall of this computer blocks port {own_port}: allow it for incoming connections (TCP)."
    return _bad(facts, "one-way", sentence, hint, at)


def _not_reached(facts: PeerFacts) -> Finding:
    """Nobody with its certificate answers: the address that says most decides."""
    name, by = facts.name, {knock.said: knock for knock in reversed(facts.knocks)}
    there = facts.follows or bool(facts.seen)
    if (other := by.get(Said.OTHER)) is not None:
        return _replaced(facts, other)
    if (knock := by.get(Said.FROZEN) or by.get(Said.GARBLED)) is not None:
        at = _at(knock)
        if knock.said is Said.FROZEN:
            return _bad(facts, "frozen", f"{name} takes connections at {at}, but does not answer.", _RESTART, at)
        hint = f"Another program has port {knock.port} there, or Quorum is just stopping: look there, then try again."
        return _bad(facts, "garbled", f"What answers at {at} is not Quorum.", hint, at, Fix.ADDRESS)
    if facts.left and not there:
        hint = "It comes back by itself as soon as Quorum runs there again."
        sentence = f"{name} {facts.reason.removeprefix('It ') or 'was closed.'}"
        return _note(facts, "away", sentence, hint)
    if (knock := by.get(Said.REFUSED)) is not None:
        at = _at(knock)
        sentence = f"The computer of {name} is on, but nothing listens at {at}."
        hint = f"Start Quorum there. If it runs, its firewall refuses port {knock.port}, or its address has changed."
        return _bad(facts, "refused", sentence, hint, at, Fix.ADDRESS)
    if not facts.knocks:
        return _bad(facts, "nowhere", f"No address of {name} is known.", _WHERE, "", Fix.ADDRESS)
    return _silent(facts, by, there)


def _silent(facts: PeerFacts, by: dict[Said, Knock], there: bool) -> Finding:
    name = facts.name
    if (knock := by.get(Said.SILENT) or by.get(Said.UNREACHABLE)) is None:
        at = _at(facts.knocks[0])
        sentence = f"This computer is in no network with {name}, which was last at {at}."
        return _bad(facts, "no-route", sentence, "Connect both to the same network or VPN.", at, Fix.ADDRESS)
    at = _at(knock)
    if there:
        how = "It reaches this computer" if facts.follows else "It announces itself"
        sentence = f"{name} is on, but its port {knock.port} does not answer at {knock.address}. {how}."
        hint = f"The firewall of {name} blocks port {knock.port}: allow it there for incoming connections (TCP)."
        return _bad(facts, "firewall", sentence, hint, at)
    if knock.said is Said.UNREACHABLE:
        sentence = f"No computer answers at {knock.address}, where {name} was last."
        hint = f"{name} is off, asleep, or in another network. If it has another address now, give that."
        return _bad(facts, "unreachable", sentence, hint, at, Fix.ADDRESS)
    sentence = f"{name} does not answer at {at}."
    hint = f"It is off, asleep, in another network, or its firewall drops port {knock.port}."
    return _bad(facts, "silent", sentence, hint, at, Fix.ADDRESS)


def _replaced(facts: PeerFacts, other: Knock) -> Finding:
    name, at = facts.name, _at(other)
    if facts.known_as and facts.known_as != name:
        sentence = f"At {at}, where {name} was, {facts.known_as} is now."
        hint = f"{name} is away or has another address. If you know it, give it."
        return _bad(facts, "moved", sentence, hint, at, Fix.ADDRESS)
    sentence = f"At {at} another certificate is shown than that of {name}."
    hint = (
        f"If Quorum was set up anew there, pair again and unpair the old {name}. If not, don't: it is another computer."
    )
    return _bad(facts, "changed", sentence, hint, at, Fix.PAIR)


# -- this computer


def judge_here(facts: HereFacts, reached: Sequence[PeerFacts] = ()) -> list[Finding]:
    """What is to say about this computer; at least one. ``reached`` are the paired ones that answered in the LAN."""
    if not facts.addresses:
        return [
            _here(
                Level.BAD, "no-network", "This computer is in no network.", "Connect it to the network of the others."
            )
        ]
    found = []
    if facts.trouble:
        hint = "Change the setting 'Peer port', or stop the program that has it."
        found.append(_here(Level.BAD, "not-listening", f"Other computers can't reach this one: {facts.trouble}", hint))
    elif facts.listens and facts.wanted_port not in (0, facts.port):
        who = facts.holder or "another program"
        sentence = (
            f"Port {facts.wanted_port} is taken by {who}, so other computers reach this one at port {facts.port}."
        )
        hint = f"Stop that program and restart Quorum, or allow port {facts.port} in the firewall, too."
        found.append(_here(Level.NOTE, "port-taken", sentence, hint))
    found += _discovery(facts, reached)
    if not facts.sharing:
        sentence = "Sharing is off: nothing is announced, and nobody can use this computer's models."
        found.append(
            _here(Level.NOTE, "sharing-off", sentence, "Share its models if others should use them.", Fix.SHARE)
        )
    if found:
        return found
    return [_here(Level.GOOD, "good", f"This computer is announced and listens at port {facts.port}.", "")]


def _discovery(facts: HereFacts, reached: Sequence[PeerFacts]) -> list[Finding]:
    if facts.browsing is None:
        hint = "Start Quorum without --no-discovery; paired computers are still reached at the addresses known."
        return [_here(Level.NOTE, "discovery-off", "Looking for other computers is switched off.", hint)]
    if not facts.browsing:
        sentence = f"Other computers can't be looked for: {facts.deaf or 'the network does not allow it'}."
        hint = "Another program may hold UDP port 5353 for itself; stop it, or pair by address."
        return [_here(Level.BAD, "mdns-port", sentence, hint)]
    unseen = [one for one in reached if one.seen is False and one.shared]
    if len(unseen) > 1 and len(unseen) == len(reached):
        sentence = (
            "None of the paired computers is seen, although they are reached: multicast does not get through here."
        )
        return [_here(Level.BAD, "multicast", sentence, MULTICAST_HINT)]
    if facts.seen == 0 and facts.paired == 0:
        sentence = "No other computer is seen."
        hint = "Start Quorum there and share its models. Where a network blocks multicast, pair by address."
        return [_here(Level.NOTE, "nobody", sentence, hint)]
    return []


MULTICAST_HINT: Final = (
    "Allow UDP port 5353 in both firewalls, and multicast in the router: "
    "guest networks and 'client isolation' block it."
)
_RESTART: Final = "Restart Quorum there."
_WHERE: Final = "Give its address, or share its models there so that it is seen."


def _here(level: Level, code: str, sentence: str, hint: str, fix: Fix = Fix.NONE) -> Finding:
    return Finding(level=level, code=code, sentence=sentence, hint=hint, fix=fix)


def _note(facts: PeerFacts, code: str, sentence: str, hint: str, at: str = "") -> Finding:
    return Finding(id=facts.node_id, name=facts.name, level=Level.NOTE, code=code, sentence=sentence, hint=hint, at=at)


def _bad(facts: PeerFacts, code: str, sentence: str, hint: str, at: str, fix: Fix = Fix.NONE) -> Finding:
    return Finding(
        id=facts.node_id, name=facts.name, level=Level.BAD, code=code, sentence=sentence, hint=hint, at=at, fix=fix
    )


def _at(knock: Knock) -> str:
    return _place(knock.address, knock.port)


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 36 * 3600 else f"{seconds / 86_400:.0f} days"
