"""A worker's answer reaches the loop once, whether it comes at once, late, or at the very last moment."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.handoff import Handoff


def test_an_answer_that_is_there_is_in_the_future_at_once():
    async def work() -> None:
        handoff = Handoff()
        threading.Thread(target=handoff.done, args=(None,)).start()
        assert handoff.wait(30.0)
        assert handoff.future.done() and handoff.future.result() is None

    asyncio.run(work())


def test_a_late_answer_comes_through_the_loop():
    async def work() -> None:
        handoff = Handoff()
        assert not handoff.wait(0.001)
        assert not handoff.future.done()
        threading.Thread(target=handoff.done, args=(ValueError("no room"),)).start()
        with pytest.raises(ValueError, match="no room"):
            await handoff.future

    asyncio.run(work())


def test_nobody_waits_for_the_answer_any_more():
    async def work() -> Handoff:
        handoff = Handoff()
        handoff.wait(0.0)
        return handoff

    asyncio.run(work()).done(None)  # the loop is closed


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 400), st.floats(0, 400), st.booleans())
def test_the_answer_comes_once_however_the_two_threads_race(worker_us, patience_us, fails):
    """With both times drawn from the same span the worker is sometimes first and the loop sometimes."""

    async def work() -> None:
        handoff, error = Handoff(), OSError("disk") if fails else None

        def worker() -> None:
            time.sleep(worker_us / 1e6)
            handoff.done(error)

        thread = threading.Thread(target=worker)
        thread.start()
        at_once = handoff.wait(patience_us / 1e6)
        assert handoff.future.done() == at_once
        async with asyncio.timeout(30):
            assert await asyncio.gather(handoff.future, return_exceptions=True) == [error]
        thread.join()

    asyncio.run(work())
