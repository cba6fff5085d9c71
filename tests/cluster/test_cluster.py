"""Three computers: real nodes, real mDNS, real TLS, paired by the commands; only their engines follow a script."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.cluster.kit import Asking, ask, first_asked, pair
from tests.cluster.net import Computer, Net
from tests.fakes import HANG, chunk, happens, head, stream

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


async def test_a_request_is_answered_by_a_computer_that_has_the_model(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    answer = await ask(laptop)

    assert (answer.status, answer.text in ("studio", "attic")) == (200, True), answer.got
    assert answer.got.endswith(b"data: [DONE]\n\n")
    receipt = await answer.receipt()
    ids = {peer["name"]: peer["id"] for peer in await laptop.look("peers")}
    assert answer.headers["X-Quorum-Node"] == receipt["node"] == ids[answer.text]
    assert receipt["reason"] in ("peer-warm", "peer-cold")
    assert len(studio.engine.asked) + len(attic.engine.asked) == 1


async def test_a_holder_that_dies_before_its_first_word_is_replaced_by_the_other(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    for holder in (studio, attic):
        holder.engine.scripts.clear()
        holder.engine.play(HANG)
        holder.engine.play(head(), stream(holder.name))
    asking = asyncio.ensure_future(ask(laptop))
    dying = await first_asked(studio, attic)
    other = attic if dying is studio else studio
    other.engine.scripts.pop(0)
    await dying.kill()
    answer = await asking

    assert (answer.status, answer.text) == (200, other.name), answer.got
    receipt = await answer.receipt()
    assert [one["result"] == "ok" for one in receipt["tries"]] == [False, True]
    assert len(other.engine.asked) == 1
    assert len({one["engine"] for one in receipt["tries"]}) == 2


async def test_when_all_holders_are_gone_this_computer_answers_itself(net: Net) -> None:
    laptop = await net.computer("laptop", "llama")
    studio, attic = await net.computer("studio", "llama"), await net.computer("attic", "llama")
    await asyncio.gather(laptop.start(), studio.start(), attic.start())
    for holder in (studio, attic):
        holder.engine.play(HANG)
        await pair(laptop, holder)
        await laptop.peer_is(holder, "healthy")
        await laptop.offers("llama", holder.name)
    laptop.engine.play(head(), stream("laptop"))
    asking = asyncio.ensure_future(ask(laptop))
    dying = await first_asked(studio, attic)
    other = attic if dying is studio else studio
    await dying.kill()
    await other.engine.request()
    await other.kill()
    answer = await asking

    assert (answer.status, answer.text) == (200, "laptop"), answer.got
    receipt = await answer.receipt()
    assert [one["result"] == "ok" for one in receipt["tries"]] == [False, False, True]
    own = (await laptop.look("status"))["node"]["id"]
    assert [one["node"] == own for one in receipt["tries"]] == [False, False, True]
    assert answer.headers["X-Quorum-Node"] == receipt["node"] == own


async def test_a_holder_that_dies_in_the_middle_of_an_answer_ends_it_with_an_error(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    for holder in (studio, attic):
        holder.engine.scripts.clear()
        holder.engine.play(head(), chunk(role=True), chunk(f"I am {holder.name}"), HANG)
    asking = Asking(laptop)
    running = asyncio.ensure_future(asking())
    dying = await first_asked(studio, attic)
    await happens(asking.begun)
    await dying.kill()
    answer = await running

    assert answer.text == f"I am {dying.name}"
    assert b'"interrupted"' in answer.got
    assert b"[DONE]" not in answer.got
    assert len(studio.engine.asked) + len(attic.engine.asked) == 1


async def test_a_frozen_holder_costs_at_most_two_and_a_half_seconds(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    first = await ask(laptop)
    frozen = studio if first.text == "attic" else attic  # the one used longest ago is next
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    answer = await ask(laptop)
    took = time.monotonic() - began
    frozen.signal(signal.SIGCONT)

    assert (answer.status, answer.text) == (200, first.text), answer.got
    assert took <= 2.5 + 0.5


async def test_a_computer_that_was_unpaired_is_refused_and_its_answer_is_cut(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, _attic = three
    await laptop.quorum("unpair", "attic")
    studio.engine.scripts.clear()
    studio.engine.play(head(), chunk(role=True), chunk("half"), HANG)
    asking = Asking(laptop)
    running = asyncio.ensure_future(asking())
    await happens(asking.begun)
    await studio.quorum("unpair", "laptop")
    answer = await running

    assert b"[DONE]" not in answer.got
    assert b'"interrupted"' in answer.got
    await happens(studio.engine.asked[-1].gone)
    asked = len(studio.engine.asked)
    again = await ask(laptop)
    assert again.status >= 400
    assert len(studio.engine.asked) == asked
    assert (await laptop.peer_is(studio, (await laptop.look("peers"))[0]["state"]))["reason"]


async def test_computers_that_share_find_each_other_and_those_that_do_not_stay_unseen(net: Net) -> None:
    one, two, three = [await net.computer(name) for name in ("one", "two", "three")]
    await asyncio.gather(one.start(QUORUM_SHARE="1"), three.start())
    await asyncio.gather(two.start(QUORUM_SHARE="1"))
    began = time.monotonic()
    seen = await one.peer_is(two, "discovered")
    assert time.monotonic() - began <= 2.0 + 0.5
    assert seen["addresses"] == [two.address]
    await two.peer_is(one, "discovered")
    assert "three" not in {peer["name"] for peer in await one.look("peers")}
    assert {peer["name"] for peer in await three.look("peers")} == {"one", "two"}


async def test_nobody_can_dial_a_computer_that_neither_shares_nor_pairs(net: Net) -> None:
    one, two = await net.computer("one"), await net.computer("two")
    await asyncio.gather(one.start(), two.start())
    code, _, err = await one.command("pair", f"123456@{two.address}")
    assert code == 1
    assert err


async def test_how_soon_the_loss_of_a_computer_is_known(three: tuple[Computer, Computer, Computer]) -> None:
    laptop, studio, attic = three
    began = time.monotonic()
    await attic.kill()
    gone = await laptop.peer_is(attic, "unhealthy")
    assert time.monotonic() - began <= 1.0 + 0.5
    assert gone["reason"]

    began = time.monotonic()
    await studio.stop()
    await laptop.peer_is(studio, "offline")
    assert time.monotonic() - began <= 3.0

    await studio.start()
    await laptop.peer_is(studio, "healthy")
    studio.cut()
    began = time.monotonic()
    await laptop.peer_is(studio, "unhealthy")
    assert time.monotonic() - began <= 12.0 + 1.0
    studio.mend()
    await laptop.peer_is(studio, "healthy", 40)


async def test_a_paused_computer_is_known_to_be_and_gets_nothing(three: tuple[Computer, Computer, Computer]) -> None:
    laptop, studio, _attic = three
    await studio.quorum("pause")
    await laptop.until(lambda seen: any("pause" in p["reason"].lower() for p in seen.get("peers", ())))
    answers = [await ask(laptop) for _ in range(3)]

    assert [answer.text for answer in answers] == ["attic"] * 3
    assert not studio.engine.asked


async def test_a_client_that_leaves_stops_the_engine_on_the_other_computer(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    for holder in (studio, attic):
        holder.engine.scripts.clear()
        holder.engine.play(head(), chunk(role=True), chunk("word"), HANG)
    asking = Asking(laptop)
    running = asyncio.ensure_future(asking())
    busy = await first_asked(studio, attic)
    await happens(asking.begun)
    running.cancel()
    began = time.monotonic()
    await happens(busy.engine.asked[-1].gone)
    assert time.monotonic() - began <= 0.5


async def test_a_computer_that_changes_its_address_is_found_again(three: tuple[Computer, Computer, Computer]) -> None:
    laptop, studio, attic = three
    await attic.kill()
    studio.move("10.77.0.99")
    await laptop.peer_is(studio, "unhealthy", 30)
    found = await laptop.peer_is(studio, "healthy", 60)
    answer = await ask(laptop)

    assert (answer.status, answer.text) == (200, "studio"), answer.got
    assert found["addresses"][0] == studio.address
