# Turns of the loop, with time as a number.

from __future__ import annotations

import asyncio

from auction.edge.transports.memory import ManualClock
from auction.edge.turns import TURN_S, Turns


async def test_a_turn_is_over_when_it_has_lasted_and_the_next_one_has_as_long_again() -> None:
    clock = ManualClock()
    turns = Turns(clock)
    for _ in range(3):
        assert not turns.over
        clock.advance(TURN_S / 2)
        assert not turns.over
        clock.advance(TURN_S)
        assert [True, True] == [turns.over, turns.over]
        await asyncio.sleep(0)


async def test_a_turn_in_which_nobody_asked_has_not_begun() -> None:
    clock = ManualClock()
    turns = Turns(clock)
    clock.advance(10 * TURN_S)
    assert not turns.over
