"""Pairing with six digits over real TLS: right, wrong, replayed and expired codes, somebody in between, both users."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

import router.pairing
from router import pairing_code
from router.errors import StoreError
from router.identity import load_identity
from router.pairing import ATTEMPTS, OPEN_S, Answer, PairingAsk, PairingDesk, PairingError, Phase, join
from router.peer_tls import client_session, pin_of, server_context, url_of
from router.trust import authorization, fingerprint_of
from router.web.answers import errors, json_answer
from router.web.strict_json import decode
from tests.fakes import BOUND_S, FakeClock, happens
from tests.router.peer_kit import Computer, computer

Accept = Callable[[PairingAsk], Awaitable[Answer]]


@asynccontextmanager
async def listening(app: web.Application, here: Computer) -> AsyncIterator[int]:
    """``app`` on a TLS port with the certificate of ``here``."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(here.identity))
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Side:
    """The computer that shows the digits."""

    def __init__(self, here: Computer) -> None:
        self.here = here
        self.clock = FakeClock()
        self.changes = 0
        self.port = 0
        self.asked: list[PairingAsk] = []
        self.answer = Answer(accept=True, may_use=True)
        self.desk = PairingDesk(here.identity, here.trust, self.clock, self.own, self.changed)

    def own(self) -> tuple[str, list[str], int]:
        return "studio", ["192.168.1.5"], 7412

    def changed(self) -> None:
        self.changes += 1

    async def accept(self, ask: PairingAsk) -> Answer:
        self.asked.append(ask)
        return self.answer

    def open(self) -> str:
        return self.desk.open(self.accept).code

    def app(self) -> web.Application:
        app = web.Application(middlewares=[errors])

        async def first(request: web.Request) -> web.Response:
            return json_answer(await self.desk.first(decode(await request.read())))

        async def second(request: web.Request) -> web.Response:
            return json_answer(await self.desk.second(decode(await request.read()), request.remote or ""))

        app.router.add_post("/peer/v1/pair/1", first)
        app.router.add_post("/peer/v1/pair/2", second)
        return app


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Computer]:
    """A, where the digits are typed."""
    async with computer(tmp_path / "laptop", "laptop") as made:
        yield made


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[Side]:
    """B, which shows them."""
    async with computer(tmp_path / "studio") as there:
        made = Side(there)
        async with listening(made.app(), there) as port:
            made.port = port
            yield made
        made.desk.close()


async def typed(here: Computer, port: int, code: str, **options: Any) -> Any:
    own = (here.name, ["192.168.1.9", "8.8.8.8", "127.0.0.1"], 7413)
    return await join("127.0.0.1", port, code, here.identity, here.trust, own, **({"may_use": True} | options))


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06d}"


# -- the right code


async def test_the_right_code_pairs_both_directions(here: Computer, side: Side) -> None:
    peer = await typed(here, side.port, side.open())
    theirs = side.here.trust.get(here.id)
    assert peer.node_id == side.here.id
    assert peer.name == "studio"
    assert theirs is not None
    assert theirs.name == "laptop"
    assert side.here.trust.authenticate(authorization(here.id, peer)) == theirs
    assert here.trust.authenticate(authorization(side.here.id, theirs)) == peer
    assert peer.secret_out != theirs.secret_out
    assert side.here.trust.authenticate(f"Quorum {here.id} {theirs.secret_out}") is None  # each way has its own
    assert side.desk.state.phase is Phase.PAIRED


async def test_each_user_decides_over_the_own_computer_alone(here: Computer, side: Side) -> None:
    side.answer = Answer(accept=True, may_use=False)
    peer = await typed(here, side.port, side.open(), may_use=True, may_manage=True)
    theirs = side.here.trust.get(here.id)
    assert theirs is not None
    assert (peer.may_use, peer.may_manage) == (True, True)
    assert (theirs.may_use, theirs.may_manage) == (False, False)


async def test_addresses_are_what_was_seen_and_those_of_the_network(here: Computer, side: Side) -> None:
    peer = await typed(here, side.port, side.open())
    theirs = side.here.trust.get(here.id)
    assert theirs is not None
    assert (theirs.addresses, theirs.port) == (("127.0.0.1", "192.168.1.9"), 7413)
    assert (peer.addresses, peer.port) == (("127.0.0.1", "192.168.1.5"), side.port)


async def test_the_user_is_asked_about_who_typed_it(here: Computer, side: Side) -> None:
    await typed(here, side.port, side.open())
    assert side.asked == [PairingAsk(here.id, "laptop", "127.0.0.1")]


async def test_a_code_may_be_typed_with_blanks(here: Computer, side: Side) -> None:
    code = side.open()
    await typed(here, side.port, f" {code[:3]} {code[3:]} ")


async def test_pairing_again_replaces_the_secrets(here: Computer, side: Side) -> None:
    first = await typed(here, side.port, side.open())
    second = await typed(here, side.port, side.open())
    assert side.here.trust.authenticate(authorization(here.id, first)) is None
    assert side.here.trust.authenticate(authorization(here.id, second)) is not None
    assert len(here.trust.peers()) == len(side.here.trust.peers()) == 1


# -- codes that do not pair


async def test_nothing_is_paired_while_pairing_is_closed(here: Computer, side: Side) -> None:
    with pytest.raises(PairingError, match="No pairing is open"):
        await typed(here, side.port, "123456")


async def test_a_wrong_code_pairs_nobody_and_asks_nobody(here: Computer, side: Side) -> None:
    code = side.open()
    with pytest.raises(PairingError, match="code is wrong"):
        await typed(here, side.port, wrong(code))
    assert here.trust.peers() == side.here.trust.peers() == ()
    assert side.asked == []
    assert side.desk.state.attempts_left == ATTEMPTS - 1
    await typed(here, side.port, code)


async def test_three_attempts_in_all_then_not_even_the_right_code(here: Computer, side: Side) -> None:
    code = side.open()
    for _ in range(ATTEMPTS):
        with pytest.raises(PairingError, match="code is wrong"):
            await typed(here, side.port, wrong(code))
    assert side.desk.state.phase is Phase.FAILED
    with pytest.raises(PairingError, match="No pairing is open"):
        await typed(here, side.port, code)
    assert side.here.trust.peers() == ()


async def test_attempts_that_are_begun_and_never_ended_count(here: Computer, side: Side) -> None:
    code = side.open()
    async with Raw(side) as raw:
        for _ in range(ATTEMPTS):
            assert (await raw.first(here, wrong(code)))[0] == 200
        assert (await raw.first(here, code))[0] == 403


async def test_a_used_code_is_void(here: Computer, side: Side, tmp_path: Path) -> None:
    code = side.open()
    await typed(here, side.port, code)
    async with computer(tmp_path / "third") as third:
        with pytest.raises(PairingError, match="No pairing is open"):
            await typed(third, side.port, code)


async def test_an_expired_code_is_void(here: Computer, side: Side) -> None:
    code = side.open()
    side.clock.advance(OPEN_S)
    with pytest.raises(PairingError, match="No pairing is open"):
        await typed(here, side.port, code)


async def test_a_code_that_expires_between_the_steps_is_void(here: Computer, side: Side) -> None:
    code = side.open()
    async with Raw(side) as raw:
        status, told, key = await raw.first(here, code)
        assert status == 200
        side.clock.advance(OPEN_S)
        assert (await raw.second(here, told, key))[0] == 403
    assert side.here.trust.peers() == ()


async def test_the_page_hears_when_the_time_is_over(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.pairing, "OPEN_S", 0.01)
    over = asyncio.Event()
    desk = PairingDesk(side.here.identity, side.here.trust, side.clock, side.own, lambda: None)
    desk._changed = lambda: over.set() if desk.state.phase is Phase.FAILED else None  # type: ignore[func-returns-value]
    desk.open(side.accept)
    await happens(over)
    assert not desk.is_open


async def test_opening_again_and_closing_void_the_older_code(here: Computer, side: Side) -> None:
    older = side.open()
    newer = side.open()
    if older != newer:
        with pytest.raises(PairingError, match="code is wrong"):
            await typed(here, side.port, older)
    side.desk.close()
    with pytest.raises(PairingError, match="No pairing is open"):
        await typed(here, side.port, newer)
    assert side.desk.state.phase is Phase.CLOSED


@pytest.mark.parametrize("code", ["", "12345", "1234567", "12345x", "\u0661\u0662\u0663\u0664\u0665\u0666"])
async def test_what_is_not_six_digits_is_never_sent(here: Computer, side: Side, code: str) -> None:
    side.open()
    with pytest.raises(PairingError, match="six digits"):
        await typed(here, side.port, code)
    assert side.desk.state.attempts_left == ATTEMPTS


# -- somebody in between, and messages by hand


class Raw:
    """A's side, step by step."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._session = client_session()

    async def __aenter__(self) -> Raw:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def post(self, path: str, said: object) -> tuple[int, dict[str, Any]]:
        pin = pin_of(fingerprint_of(self._side.here.id))
        url = url_of("127.0.0.1", self._side.port, path)
        async with self._session.post(url, data=msgspec.json.encode(said), ssl=pin) as answer:
            return answer.status, msgspec.json.decode(await answer.read())

    async def first(self, here: Computer, code: str) -> tuple[int, dict[str, Any], bytes]:
        mine, theirs = fingerprint_of(here.id), fingerprint_of(self._side.here.id)
        a, message = pairing_code.begin(code, mine, theirs)
        status, told = await self.post("/peer/v1/pair/1", {"fingerprint": mine.hex(), "message": message.hex()})
        key = pairing_code.finish(a, bytes.fromhex(told["message"])) if status == 200 else b""
        assert key is not None
        return status, told, key

    async def second(
        self, here: Computer, told: dict[str, Any], key: bytes, **changes: Any
    ) -> tuple[int, dict[str, Any]]:
        confirmation = pairing_code.derive(key, b"confirm A")
        proof = pairing_code.prove(here.identity.certificate, here.identity.key, confirmation)
        said = {"session": told["session"], "confirmation": confirmation.hex(), "name": "laptop", **proof}
        return await self.post("/peer/v1/pair/2", said | changes)


async def test_the_answer_to_the_first_message_tells_nothing_to_guess_by(here: Computer, side: Side) -> None:
    code = side.open()
    async with Raw(side) as raw:
        _, told, key = await raw.first(here, code)
        assert set(told) == {"session", "message"}
        status, second = await raw.second(here, told, key)
    assert status == 200
    assert second["confirmation"] == pairing_code.derive(key, b"confirm B").hex()


async def test_a_confirmation_can_not_be_sent_twice(here: Computer, side: Side) -> None:
    code = side.open()
    async with Raw(side) as raw:
        _, told, key = await raw.first(here, code)
        assert (await raw.second(here, told, key, confirmation="00" * 32))[0] == 403
        assert (await raw.second(here, told, key))[0] == 403
    assert side.here.trust.peers() == ()


async def test_a_session_of_an_older_code_is_void(here: Computer, side: Side) -> None:
    async with Raw(side) as raw:
        _, told, key = await raw.first(here, side.open())
        side.open()
        assert (await raw.second(here, told, key))[0] == 403


async def test_confirmations_are_compared_in_constant_time(
    here: Computer, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def compare(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        return hmac.compare_digest(a, b)

    class Spy:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(router.pairing, "hmac", Spy)
    await typed(here, side.port, side.open())
    assert compared == [32, 32]


async def test_a_computer_that_claims_anothers_certificate_is_refused(
    here: Computer, side: Side, tmp_path: Path
) -> None:
    code = side.open()
    async with computer(tmp_path / "victim") as victim, Raw(side) as raw:
        _, told, key = await raw.first(victim, code)
        confirmation = pairing_code.derive(key, b"confirm A")
        proof = pairing_code.prove(here.identity.certificate, here.identity.key, confirmation)
        assert (await raw.second(victim, told, key, **proof))[0] == 403
    assert side.here.trust.peers() == ()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"fingerprint": "00" * 32},
        {"fingerprint": "00" * 32, "message": "00" * 33},
        {"fingerprint": "00" * 31, "message": "41" + "00" * 32},
        {"fingerprint": 1, "message": [1]},
        {"fingerprint": "00" * 32, "message": "41" + "ff" * 32},
    ],
)
async def test_malformed_messages_cost_an_attempt_and_get_400(side: Side, said: dict[str, Any]) -> None:
    side.open()
    async with Raw(side) as raw:
        status, told = await raw.post("/peer/v1/pair/1", said)
    assert (status, told["error"]["code"]) == (400, "bad_request")
    assert side.desk.state.attempts_left == ATTEMPTS - 1


async def test_a_relay_with_its_own_certificate_pairs_nobody(here: Computer, side: Side, tmp_path: Path) -> None:
    async with computer(tmp_path / "between") as between, Raw(side) as raw:

        async def relay(request: web.Request) -> web.Response:
            status, told = await raw.post(request.path, decode(await request.read()))
            return json_answer(told, status)

        app = web.Application()
        app.router.add_post("/{path:.*}", relay)
        async with listening(app, between) as port:
            with pytest.raises(PairingError, match="code is wrong"):
                await typed(here, port, side.open())
    assert here.trust.peers() == side.here.trust.peers() == ()
    assert side.asked == []


async def test_one_who_plays_the_other_computer_without_the_code_pairs_nobody(here: Computer, tmp_path: Path) -> None:
    """It answers everything with success, but can't make the confirmation."""
    async with computer(tmp_path / "between") as between:

        async def first(request: web.Request) -> web.Response:
            said = decode(await request.read())
            made = pairing_code.answer(
                "000000", fingerprint_of(here.id), fingerprint_of(between.id), bytes.fromhex(said["message"])
            )
            assert made is not None
            return json_answer({"session": "s", "message": made[0].hex()})

        async def second(request: web.Request) -> web.Response:
            return json_answer({"confirmation": "00" * 32, "name": "studio"})

        app = web.Application()
        app.router.add_post("/peer/v1/pair/1", first)
        app.router.add_post("/peer/v1/pair/2", second)
        async with listening(app, between) as port:
            with pytest.raises(PairingError, match="does not know the code"):
                await typed(here, port, "123456")
    assert here.trust.peers() == ()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"session":1}', b'{"session":"s","message":"zz"}', b"x" * 40_000, b'{"a":1,"a":2}']
)
async def test_an_answer_that_is_garbage_pairs_nobody(here: Computer, tmp_path: Path, body: bytes) -> None:
    async with computer(tmp_path / "other") as other:

        async def garbage(request: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        app = web.Application()
        app.router.add_post("/{path:.*}", garbage)
        async with listening(app, other) as port:
            with pytest.raises(PairingError):
                await typed(here, port, "123456")


async def test_a_redirect_is_not_followed(here: Computer, side: Side, tmp_path: Path) -> None:
    code = side.open()

    async def away(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": url_of("127.0.0.1", side.port, request.path)}, body=b"{}")

    app = web.Application()
    app.router.add_post("/{path:.*}", away)
    async with computer(tmp_path / "other") as other, listening(app, other) as port:
        with pytest.raises(PairingError, match="answered 307"):
            await typed(here, port, code)
    assert side.desk.state.attempts_left == ATTEMPTS


async def test_the_computer_chosen_from_the_list_must_be_the_one_that_answers(here: Computer, side: Side) -> None:
    code = side.open()
    with pytest.raises(PairingError, match="Another computer answers"):
        await typed(here, side.port, code, expected=here.id)
    assert side.desk.state.attempts_left == ATTEMPTS
    await typed(here, side.port, code, expected=side.here.id)


async def test_a_computer_is_not_paired_with_itself(side: Side) -> None:
    with pytest.raises(PairingError, match="itself"):
        await typed(side.here, side.port, side.open())


async def test_an_address_where_nobody_answers_is_said_so(here: Computer) -> None:
    with pytest.raises(PairingError, match="can't be reached"):
        await typed(here, 9, "123456")


# -- both users


async def test_a_declined_pairing_stores_nothing(here: Computer, side: Side) -> None:
    side.answer = Answer(accept=False)
    with pytest.raises(PairingError, match="declined"):
        await typed(here, side.port, side.open())
    assert here.trust.peers() == side.here.trust.peers() == ()
    assert side.desk.state.detail == "You declined."


async def test_while_the_user_is_asked_the_code_is_void_and_the_page_says_who(
    here: Computer, side: Side, tmp_path: Path
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def ask(who: PairingAsk) -> Answer:
        asked.set()
        await go_on.wait()
        return Answer(accept=True, may_use=True)

    code = side.desk.open(ask).code
    joining = asyncio.ensure_future(typed(here, side.port, code))
    await happens(asked)
    assert side.desk.state.phase is Phase.ASKING
    assert side.desk.state.ask == PairingAsk(here.id, "laptop", "127.0.0.1")
    assert side.desk.busy
    assert not side.desk.is_open
    async with computer(tmp_path / "third") as third:
        with pytest.raises(PairingError, match="No pairing is open"):
            await typed(third, side.port, code)
    go_on.set()
    assert (await joining).node_id == side.here.id


async def test_one_who_leaves_while_the_user_is_asked_is_not_paired(here: Computer, side: Side) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def ask(who: PairingAsk) -> Answer:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        raise AssertionError

    code = side.desk.open(ask).code
    joining = asyncio.ensure_future(typed(here, side.port, code))
    await happens(asked)
    joining.cancel()
    await happens(left)
    assert side.here.trust.peers() == ()
    assert side.desk.state.phase is Phase.FAILED


async def test_closing_ends_the_question(here: Computer, side: Side) -> None:
    asked = asyncio.Event()

    async def ask(who: PairingAsk) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    code = side.desk.open(ask).code
    joining = asyncio.ensure_future(typed(here, side.port, code))
    await happens(asked)
    side.desk.close()
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(PairingError):
            await joining
    assert side.here.trust.peers() == ()
    assert side.desk.state.phase is Phase.CLOSED


async def test_new_digits_end_the_question_and_are_those_that_count(here: Computer, side: Side) -> None:
    asked = asyncio.Event()

    async def ask(who: PairingAsk) -> Answer:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    code = side.desk.open(ask).code
    joining = asyncio.ensure_future(typed(here, side.port, code))
    await happens(asked)
    newer = side.open()
    async with asyncio.timeout(BOUND_S):
        with pytest.raises(PairingError):
            await joining
    assert side.desk.state.phase is Phase.OPEN
    assert side.here.trust.peers() == ()
    await typed(here, side.port, newer)
    assert side.desk.state.phase is Phase.PAIRED


async def test_a_user_who_never_answers_is_no_yes(here: Computer, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router.pairing, "ANSWER_S", 0.05)

    async def ask(who: PairingAsk) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(PairingError, match="Nobody answered"):
        await typed(here, side.port, side.desk.open(ask).code)
    assert side.here.trust.peers() == ()


async def test_a_disk_that_fails_is_no_pairing(here: Computer, side: Side) -> None:
    code = side.open()
    await side.here.store.close()
    with pytest.raises(PairingError):
        await typed(here, side.port, code)
    assert here.trust.peers() == ()
    assert side.desk.state.phase is Phase.FAILED


async def test_a_disk_that_fails_here_is_said(here: Computer, side: Side) -> None:
    await here.store.close()
    with pytest.raises(StoreError):
        await typed(here, side.port, side.open())
    assert here.trust.peers() == ()


async def test_each_step_is_told(here: Computer, side: Side) -> None:
    await typed(here, side.port, side.open())
    assert side.changes == 4  # open, an attempt, asking, paired


async def test_codes_secrets_and_names_are_not_logged(
    here: Computer, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    code = side.open()
    peer = await typed(here, side.port, code)
    logged = " ".join(record.getMessage() for record in caplog.records if record.name.startswith("router"))
    assert code not in logged
    assert peer.secret_out not in logged


def test_a_changed_certificate_is_a_new_computer(tmp_path: Path) -> None:
    before = load_identity(tmp_path).node_id
    for name in ("node.crt", "node.key"):
        (tmp_path / name).unlink()
    assert load_identity(tmp_path).node_id != before
