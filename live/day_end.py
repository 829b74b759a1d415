"""At the end of a day our books must equal the broker's operations, deal by deal, or a hold says that they do
not and a report says where.

Compared are the deals of the exchange day so far: after the trading window has closed, at the exchange's
midnight where there is no window, and when the runner stops. What differs is never mended here: a missing
deal is found by reconciliation, an invented one by a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from live.broker.operations import Operation, read_operations
from live.core import clock
from live.core.config import SessionConfig
from live.core.events import DayCompared
from live.core.orders import NEW
from live.core.words import KOPECK_NANO
from live.reporting import write_json
from live.storage import Record, reader
from market.errors import ScalperError
from market.types import SECOND_NS

if TYPE_CHECKING:
    from live.session import Session

SETTLE_NS = 60 * SECOND_NS
"""The broker writes operations down a moment after the deals."""
LOOK_S = 30.0
MIN_LOOK_S = 0.2
MAX_DIFFERENCES = 100


@dataclass(frozen=True, slots=True)
class OurDeal:
    """A fill as we booked it."""

    trade_id: str
    ticker: str
    side: int
    price_ticks: int
    lots: int
    fee_nano: int


@dataclass(frozen=True, slots=True)
class DayReport:
    """``differences``: one sentence each. ``fee_difference_nano``: the broker's fees less ours."""

    day: str
    deals: int
    broker_deals: int
    fees_nano: int
    fee_difference_nano: int
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return not self.differences


def compare(day: str, ours: Iterable[OurDeal], theirs: Iterable[Operation], since_ns: int) -> DayReport:
    """Our deals against the broker's operations. Theirs from before ``since_ns`` need not be among ours: they
    are there to find deals that we booked late.
    """
    booked = {(deal.ticker, deal.trade_id): deal for deal in ours}
    told: list[str] = []
    met: set[tuple[str, str]] = set()
    fee_difference = 0
    for operation in theirs:
        fees, whole = 0, True
        for trade_id, price_ticks, lots in operation.deals:
            key = (operation.ticker, trade_id)
            deal = booked.get(key)
            if deal is None:
                whole = False
                if operation.now_ns >= since_ns:
                    told.append(
                        f"the broker has deal {trade_id}: {_words(operation.side, lots, price_ticks)} "
                        f"{operation.ticker}, our books do not"
                    )
                continue
            met.add(key)
            fees += deal.fee_nano
            if (deal.side, deal.lots, deal.price_ticks) != (operation.side, lots, price_ticks):
                told.append(
                    f"deal {trade_id} in {operation.ticker}: the broker says "
                    f"{_words(operation.side, lots, price_ticks)}, our books "
                    f"{_words(deal.side, deal.lots, deal.price_ticks)}"
                )
        if whole and operation.deals:
            apart = operation.fee_nano - fees
            fee_difference += apart
            # A real broker charges whole kopecks: so far may it be apart from the tariff's.
            if abs(apart) >= KOPECK_NANO:
                told.append(
                    f"operation {operation.operation_id} in {operation.ticker}: the broker charged "
                    f"{operation.fee_nano} nano-roubles, by our tariff it is {fees}; check broker.tariff"
                )
    told += [
        f"our books have deal {deal.trade_id}: {_words(deal.side, deal.lots, deal.price_ticks)} "
        f"{deal.ticker}, the broker does not"
        for key, deal in booked.items()
        if key not in met
    ]
    broker_deals = sum(len(o.deals) for o in theirs if o.now_ns >= since_ns)
    fees_nano = sum(deal.fee_nano for deal in booked.values())
    return DayReport(day, len(booked), broker_deals, fees_nano, fee_difference, tuple(told[:MAX_DIFFERENCES]))


def _words(side: int, lots: int, price_ticks: int) -> str:
    return f"{'bought' if side > 0 else 'sold'} {lots} at {price_ticks} ticks"


def our_deals(path: Path, account: str, since_ns: int) -> tuple[list[OurDeal], int]:
    """Fills of ``account`` booked since then, and from when on the broker has to be asked: a deal that a
    restart booked late was made in the life of its order.
    """
    with reader(path) as connection:
        rows = connection.execute(
            """SELECT f.trade_id, f.ticker, f.side, f.price_ticks, f.lots, f.fee_nano, o.created_ns
               FROM fills f JOIN sessions s ON s.session_id = f.session_id
               LEFT JOIN orders o ON o.client_order_id = f.client_order_id
               WHERE s.account = ? AND f.now_ns >= ?""",
            (account, since_ns),
        ).fetchall()
    deals = [OurDeal(*tuple(row)[:6]) for row in rows]
    return deals, min([since_ns, *(row["created_ns"] for row in rows if row["created_ns"])])


async def check(session: Session, day: int) -> DayReport:
    """Compares the exchange day number ``day`` so far, writes the report and tells the engine.

    Raises ScalperError when one of the two sides cannot be read.
    """
    offset_s = session.loop.engine.config.session.utc_offset_s
    since_ns = clock.day_start_ns(day, offset_s)
    name = clock.iso_time(since_ns, offset_s)[:10]
    # Fills are written in the background: what was booked before this is there after it.
    await session.storage.commit(Record("meta", {"key": "day_compared", "value": name}))
    path = Path(session.config.storage.path)
    ours, from_ns = await asyncio.to_thread(our_deals, path, session.account_ref, since_ns)
    theirs = await read_operations(session.client, from_ns, session.clock.now_ns() + SECOND_NS)
    report = compare(name, ours, theirs, since_ns)
    await asyncio.to_thread(_write, session.runtime / "day_end" / f"{name}.json", session.account_ref, report)
    more = f" (and {len(report.differences) - 1} more)" if len(report.differences) > 1 else ""
    reason = f"{report.differences[0]}{more}" if report.differences else ""
    session.post(DayCompared(session.clock.now_ns(), name, report.deals, len(report.differences), reason))
    return report


def _write(path: Path, account: str, report: DayReport) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"account": account, "equal": report.equal, **asdict(report)})


async def check_or_tell(session: Session, day: int) -> bool:
    """``check``; False when it could not be done, which is audited."""
    try:
        await check(session, day)
    except (ScalperError, OSError) as error:
        session.audit_line("ORDER", "DAY_NOT_COMPARED", reason=str(error))
        return False
    return True


def at_rest(session: Session) -> bool:
    """No order of ours may still bring a deal, but the stops that protect positions."""
    working = session.loop.engine.orders.all_working()
    return session.link.up and all(order.role == "STOP" and order.state == NEW for order in working)


class DayWatch:
    """Which exchange day is due: each once, a minute after its window has closed for the day, or after its
    midnight where there is no window or nobody was at rest before.
    """

    def __init__(self, settings: SessionConfig, now_ns: int) -> None:
        self._settings = settings
        self._day = self._today(now_ns)
        self._ended_ns: int | None = None
        self._compared = False

    def due(self, now_ns: int) -> int | None:
        """The number of the day to compare now; asked again until ``compared``."""
        today = self._today(now_ns)
        if today != self._day and (self._compared or not self._traded(self._day)):
            self._day, self._ended_ns, self._compared = today, None, False
        ended = today != self._day or (self._settings.enabled and self._closed_for_today(now_ns))
        if not ended:
            self._ended_ns = None
        if self._compared or not ended or not self._traded(self._day):
            return None
        self._ended_ns = now_ns if self._ended_ns is None else self._ended_ns
        return self._day if now_ns - self._ended_ns >= SETTLE_NS else None

    def compared(self) -> None:
        self._compared = True

    def _today(self, now_ns: int) -> int:
        return clock.exchange_day(now_ns, self._settings.utc_offset_s)

    def _traded(self, day: int) -> bool:
        return not self._settings.enabled or clock.weekday(day) in self._settings.allowed_weekdays

    def _closed_for_today(self, now_ns: int) -> bool:
        if clock.window_open(now_ns, self._settings):
            return False
        return self._today(clock.next_open_ns(now_ns, self._settings)) != self._today(now_ns)


async def watch(session: Session) -> None:
    """Compares every day once, for as long as the session trades."""
    days = DayWatch(session.loop.engine.config.session, session.clock.now_ns())
    while True:
        await asyncio.sleep(max(MIN_LOOK_S, session.clock.wall_seconds(LOOK_S)))
        day = days.due(session.clock.now_ns())
        if day is not None and at_rest(session) and await check_or_tell(session, day):
            days.compared()
