"""The queue in front of the engine: order, conflation under pressure, and nothing lost that matters."""

from __future__ import annotations

import asyncio
import gc
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from live.core.events import Book, Event, Override, Timer, Trade
from live.inbox import CONFLATE_ABOVE, Inbox

LENGTH = 48


def book(n: int, ticker: str = "A") -> Book:
    return Book(n, ticker, n, (100,), (1,), (101,), (1,))


def of(kind: str, n: int) -> Event:
    return {"a": book(n, "A"), "b": book(n, "B"), "t": Trade(n, "A", n, 100, 1, 1), "n": Override(n, True),
            "c": Timer(n)}[kind]  # fmt: skip


async def drained(inbox: Inbox) -> list[Event]:
    return [(await inbox.get())[1] for _ in range(len(inbox))]


@given(st.lists(st.sampled_from("aaaaabbtnc.."), max_size=400))
def test_what_waits_comes_in_order_and_only_superseded_books_and_the_market_are_lost(steps):
    async def play() -> None:
        inbox, posted, taken, refused = Inbox(LENGTH), [], [], []
        for n, step in enumerate(steps):
            if step == ".":
                if len(inbox):
                    taken.append((await inbox.get())[1])
                continue
            event = of(step, n)
            (posted if inbox.post(event) else refused).append(event)
            assert inbox.news == sum(isinstance(e, Override) for e in posted) - sum(
                isinstance(e, Override) for e in taken
            )
        taken += await drained(inbox)
        assert [e.now_ns for e in taken] == sorted(e.now_ns for e in taken)
        assert len(taken) + inbox.conflated == len(posted)
        assert inbox.dropped == len(refused) and all(isinstance(e, Book | Trade) for e in refused)
        missing = [e for e in posted if e not in taken]
        assert all(isinstance(e, Book) for e in missing)
        for lost in missing:  # only for a newer one
            assert any(
                isinstance(e, Book) and e.ticker == lost.ticker and e.now_ns > lost.now_ns for e in taken
            )

    asyncio.run(play())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=40), st.integers(2, 12), st.integers())
def test_overload_starves_no_instrument(rates, posts_per_event, seed):
    """However often an instrument posts: who has a book waiting is decided on before long."""

    async def play() -> None:
        rnd, inbox = random.Random(seed), Inbox(100_000)
        waited = dict.fromkeys(map(str, range(len(rates))), 0)
        waiting = dict.fromkeys(waited, False)
        for n in range(300):
            for ticker in rnd.choices(list(waited), rates, k=posts_per_event):
                inbox.post(book(n, ticker))
                waiting[ticker] = True
            event = (await inbox.get())[1]
            assert isinstance(event, Book)
            waited = {t: waited[t] + waiting[t] for t in waited}
            waited[event.ticker] = 0
            waiting[event.ticker] = bool(inbox._books[event.ticker])
            assert len(inbox) <= CONFLATE_ABOVE + 2 * len(rates)
            assert max(waited.values()) <= CONFLATE_ABOVE + 2 * len(rates)

    asyncio.run(play())


def test_every_book_is_used_while_few_wait():
    async def play() -> None:
        inbox = Inbox(LENGTH)
        for n in range(CONFLATE_ABOVE + 1):
            inbox.post(book(n))
        assert [e.now_ns for e in await drained(inbox)] == list(range(CONFLATE_ABOVE + 1))
        assert inbox.conflated == 0

    asyncio.run(play())


def test_the_memory_of_superseded_books_is_free_before_anybody_takes_one():
    async def play() -> None:
        inbox = Inbox(100_000)
        inbox.post(Override(0, True))
        for n in range(1, 5_000):
            inbox.post(book(n, "SUPERSEDED"))
        kept = sum(isinstance(o, Book) and o.ticker == "SUPERSEDED" for o in gc.get_objects())
        assert kept == len(inbox) - 1 <= CONFLATE_ABOVE + 1
        assert len(inbox._items) <= 2 * len(inbox) + CONFLATE_ABOVE + 1
        assert inbox.conflated == 4_999 - kept
        last = (await drained(inbox))[-1]
        assert last.now_ns == 4_999

    asyncio.run(play())


def test_who_waits_for_an_event_gets_it():
    async def play() -> None:
        inbox = Inbox(LENGTH)
        waiting = asyncio.create_task(inbox.get())
        await asyncio.sleep(0)
        inbox.post(book(7))
        assert (await waiting)[1].now_ns == 7

    asyncio.run(play())
