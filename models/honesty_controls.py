"""Experiments whose answer is known: each breaks one thing on purpose; the result must move, or must not.

A line that finds alpha in shuffled labels invents it; one that gains nothing from features of the future
would not show a leak either; one that counts a snapshot sent twice as two believes its luck twice over.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from market.types import InstrumentDay
from models.honesty import I64, Panel, Paths, independent_rows

SHUFFLE_BLOCK: int = 30
"""Outcomes that stay together when labels are shuffled, 5 minutes: their own memory survives, only the tie to
the features is cut."""
RESEND_NS = 200_000
"""How soon after a snapshot its copy arrives."""


def shuffled(p: Panel, seed: int, block: int = SHUFFLE_BLOCK) -> Panel:
    """Independent rows with their outcomes moved in blocks along one random cycle, so that no block stays
    where it was. Rows after the last whole block are dropped."""
    p = independent_rows(p)
    count = len(p) // block
    p = p.rows(np.arange(count * block))
    source = (_cycle(count, seed)[:, None] * block + np.arange(block)).ravel()
    # Outcomes keep their new rows' windows: only what was earned in them is exchanged.
    return replace(p, move=p.move[source], long=p.long[source], short=p.short[source])


def ahead(p: Panel) -> Panel:
    """Features as they will be when the label's window closes: look-ahead by one horizon, on purpose."""
    last = np.searchsorted(p.entry_ns, p.exit_ns, side="right") - 1
    inside = last < len(p) - 1
    return replace(p, X=p.X[last], latent=p.latent[last], usable=p.usable & p.usable[last] & inside)


def doubled(p: Panel) -> Panel:
    """Every row twice: what careless joins of tables do."""
    return p.rows(np.repeat(np.arange(len(p)), 2))


def resent(day: InstrumentDay, every: int) -> tuple[InstrumentDay, I64]:
    """A day whose source repeats every ``every``-th snapshot ``RESEND_NS`` later; and, per row of the new
    day, the row of the old one."""
    rows = np.arange(len(day.books), dtype=np.int64)
    copy = rows[::every]
    source = np.sort(np.concatenate([rows, copy]), kind="stable")
    books = day.books.rows(source)
    again = np.concatenate([[False], source[1:] == source[:-1]])
    books.recv_ns = books.recv_ns + np.where(again, RESEND_NS, 0)
    return replace(day, books=books), source


def resend(paths: Paths, every: int) -> Paths:
    """``resent`` on every day, the planted state with it."""
    seen = [resent(day, every) for day in paths.seen]
    days = tuple(day for day, _ in seen)
    paid = days if paths.paid is paths.seen else tuple(resent(day, every)[0] for day in paths.paid)
    latent = tuple(s[rows] for s, (_, rows) in zip(paths.latent, seen, strict=True))
    return Paths(days, paid, latent)


def reversed_day(day: InstrumentDay) -> InstrumentDay:
    """The day played backwards between the same two moments; sides of trades as they were.

    Not a null: a mean-reverting or trending path is predictable both ways, but no one is paid for it.
    """
    books = day.books.rows(slice(None, None, -1))
    trades = day.trades.rows(slice(None, None, -1))
    stamps = np.concatenate([day.books.recv_ns, day.trades.recv_ns])
    ends = int(stamps.min()) + int(stamps.max())
    for table in (books, trades):
        table.recv_ns = ends - table.recv_ns
        table.exch_ns = ends - table.exch_ns
    return replace(day, books=books, trades=trades)


def backwards(paths: Paths) -> Paths:
    """Every day reversed, the planted state with it."""
    seen = tuple(reversed_day(day) for day in paths.seen)
    paid = seen if paths.paid is paths.seen else tuple(reversed_day(day) for day in paths.paid)
    return Paths(seen, paid, tuple(np.ascontiguousarray(s[::-1]) for s in paths.latent))


def _cycle(count: int, seed: int) -> NDArray[np.int64]:
    """A random permutation that is one cycle (Sattolo 1986): without a fixed point for two and more."""
    order = np.arange(count, dtype=np.int64)
    rng = np.random.default_rng(seed)
    for i in range(count - 1, 0, -1):
        j = int(rng.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return order
