"""A computer that stood still, its cable out, and comes back at another address: the first answers after that.

A process that is stopped is the worst of sleeps: unlike a sleeping computer's, its clock goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time

import pytest

from tests.cluster.kit import ask, first_asked
from tests.cluster.net import Computer, run
from tests.fakes import HANG, head, stream

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

ASLEEP_S = 13.0
ANSWER_S = 3.0


async def doze(computer: Computer, address: str = "") -> None:
    """It stands still, out of the network; then it is back, at ``address`` if it is given."""
    computer.signal(signal.SIGSTOP)
    computer.cut()
    await wait(ASLEEP_S)
    if address:
        computer.move(address)
    computer.mend()
    while "state UP" not in run("ip", "-n", computer.namespace, "link", "show", "eth0"):
        await wait(0.02)
    computer.signal(signal.SIGCONT)


async def wait(seconds: float) -> None:
    """Nothing happens for so long."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)


async def test_the_first_answer_after_a_sleep_at_another_address_comes_within_three_seconds(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, _ = three
    assert (await ask(laptop)).status == 200
    await doze(laptop, "10.77.0.99")
    began = time.monotonic()
    answer = await ask(laptop)
    took_s = time.monotonic() - began
    assert (answer.status, answer.text in ("studio", "attic")) == (200, True), (answer.got, laptop.log)
    assert took_s < ANSWER_S, took_s
    await laptop.peer_is(studio, "healthy")
    await studio.peer_is(laptop, "healthy")
    again = await ask(laptop)
    assert again.status == 200


async def test_a_request_that_slept_with_its_computer_is_answered(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    for holder in (studio, attic):
        holder.engine.scripts.clear()
        holder.engine.play(HANG)
    asking = asyncio.ensure_future(ask(laptop))
    await first_asked(studio, attic)
    for holder in (studio, attic):
        holder.engine.scripts.clear()
        holder.engine.play(head(), stream(holder.name))
    await doze(laptop)
    began = time.monotonic()
    answer = await asking
    took_s = time.monotonic() - began
    assert (answer.status, answer.text in ("studio", "attic")) == (200, True), (answer.got, laptop.log)
    assert took_s < 2 * ANSWER_S, took_s
    receipt = await answer.receipt()
    assert receipt["tries"][-1]["result"] == "ok", json.dumps(receipt["tries"])


async def test_a_holder_that_slept_serves_again_as_soon_as_it_is_back(
    three: tuple[Computer, Computer, Computer],
) -> None:
    laptop, studio, attic = three
    await attic.stop()
    await laptop.peer_is(attic, "offline")
    await doze(studio, "10.77.0.98")
    began = time.monotonic()
    await laptop.peer_is(studio, "healthy")
    answer = await ask(laptop)
    took_s = time.monotonic() - began
    assert (answer.status, answer.text) == (200, "studio"), (answer.got, laptop.log)
    assert took_s < ANSWER_S, took_s
