"""A burst begins in order, a few requests in each turn of the loop."""

from __future__ import annotations

import asyncio

from router.web.turnstile import Turnstile


async def one_turn() -> None:
    """Let the loop run everything that is ready."""
    await asyncio.sleep(0)


async def test_a_burst_begins_in_order_and_no_more_than_a_few_a_turn() -> None:
    turnstile = Turnstile(a_turn=3)
    began: list[tuple[int, int]] = []
    turn = 0

    async def enter(number: int) -> None:
        await turnstile.enter()
        began.append((turn, number))

    async def count_turns() -> None:
        nonlocal turn
        while len(began) < 20:
            turn += 1
            await one_turn()

    async with asyncio.TaskGroup() as group:
        group.create_task(count_turns())
        for number in range(20):
            group.create_task(enter(number))
    assert [number for _, number in began] == list(range(20))
    assert max(sum(at == turn for at, _ in began) for turn in {at for at, _ in began}) <= 3


async def test_one_that_gives_up_does_not_hold_the_others() -> None:
    turnstile = Turnstile(a_turn=1)
    await turnstile.enter()
    leaving = asyncio.ensure_future(turnstile.enter())
    staying = asyncio.ensure_future(turnstile.enter())
    await one_turn()
    leaving.cancel()
    await asyncio.wait_for(staying, 1.0)


async def test_a_quiet_turnstile_does_not_keep_the_loop_busy() -> None:
    turnstile = Turnstile()
    await turnstile.enter()
    for _ in range(5):
        await one_turn()
    assert not turnstile._turning
