"""The journal gives back exactly what was written; a replay finds the first difference and says where."""

from __future__ import annotations

import json
import typing
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from core_bench import KEY, SECOND_NS, START_NS, config, instrument, model
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backtest import Answer

from live import replay
from live.core import commands as cmd
from live.core import events as ev
from live.core.engine import Engine
from live.journal import (
    FLUSH_LINES,
    Header,
    JournalError,
    JournalReader,
    JournalWriter,
    decode,
    encode,
    order_list_hash,
)
from live.pipeline import Row, SignalPipeline

# ---- the journal

NAMED: dict[str, st.SearchStrategy[Any]] = {
    "params": st.just(model().to_dict()),
    "positions": st.dictionaries(st.text(max_size=8), st.integers(), max_size=3),
}


def records(kinds: tuple[type, ...]) -> st.SearchStrategy[Any]:
    """Instances of ``kinds`` with every field drawn from its type, also those that have defaults."""
    return st.one_of([st.builds(k, **{f.name: NAMED.get(f.name, ...) for f in fields(k)}) for k in kinds])


EVENTS = records(typing.get_args(ev.Event))
ORDER_COMMANDS = records((cmd.PlaceOrder, cmd.CancelOrder, cmd.QueryOrder))


@given(st.one_of(EVENTS, ORDER_COMMANDS))
@settings(max_examples=400)
def test_every_event_and_order_command_comes_back_exactly(record: Any) -> None:
    line = encode(record)
    back = decode(line)
    assert "\n" not in line
    assert back == record and type(back) is type(record)
    assert repr(back) == repr(record)  # tuples stay tuples


def header(**changes: Any) -> Header:
    tickers = {t: instrument(t) for t in ("AAA", "BBB")}
    return replace(Header("s1", KEY, config(), tickers, model(), "SIMULATED"), **changes)


def test_the_header_comes_back(tmp_path: Path) -> None:
    JournalWriter(tmp_path, header(restored={"x": 1})).close()
    assert JournalReader(tmp_path).header == header(restored={"x": 1})


def test_a_session_is_never_written_over_another(tmp_path: Path) -> None:
    JournalWriter(tmp_path, header()).close()
    with pytest.raises(JournalError, match="cannot start"):
        JournalWriter(tmp_path, header())


def test_lines_reach_the_disk_every_second_or_every_so_many(tmp_path: Path) -> None:
    clock = [0]
    writer = JournalWriter(tmp_path, header(), monotonic_ns=lambda: clock[0])
    writer.event(ev.Timer(1))
    writer.write()
    assert len(list(JournalReader(tmp_path))) == 0
    clock[0] = SECOND_NS
    writer.event(ev.Timer(2))
    writer.write()
    assert len(list(JournalReader(tmp_path))) == 2
    for n in range(1_000):
        writer.event(ev.Timer(n))
    assert len(list(JournalReader(tmp_path))) > 1_000 - FLUSH_LINES


def test_a_torn_last_line_is_recognised_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, header())
    for n in range(5):
        writer.event(ev.Timer(n))
    writer.close()
    whole = writer.path.read_text()
    writer.path.write_text(whole[:-4])
    reader = JournalReader(tmp_path)
    assert [e.now_ns for e in reader] == [0, 1, 2, 3] and reader.torn  # type: ignore[union-attr]
    writer.path.write_text(whole.replace('["Timer",2]', '["Timor",2]'))
    with pytest.raises(JournalError, match="line 4"):
        list(JournalReader(tmp_path))


def test_a_full_journal_stops_growing_and_says_so(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, header(), max_bytes=4_000)
    for n in range(1_000):
        writer.event(ev.Timer(n))
    writer.close()
    reader = JournalReader(tmp_path)
    count = len(list(reader))
    assert reader.truncated and 0 < count < 1_000 and writer.not_written == 1_000 - count
    assert writer.path.stat().st_size < 5_000


@pytest.mark.parametrize("text", ["", "{}", "[1]\n", '{"format": 99}\n'])
def test_a_file_that_is_no_journal_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "events.jsonl").write_text(text)
    with pytest.raises(JournalError):
        JournalReader(tmp_path)
    with pytest.raises(JournalError, match="cannot read"):
        JournalReader(tmp_path / "nowhere")


# ---- replay


class Leaner:
    """Scores every row by its own count, so that each answer depends on all before it."""

    def __init__(self, scale: int = 30_000) -> None:
        self.scale = scale
        self.n = 0

    def step(self, ticker: str, x: Row) -> Answer | None:
        self.n += 1
        up = self.n % 7 < 4
        return Answer(np.array([0.2, 0.2, 0.6] if up else [0.6, 0.2, 0.2]), self.scale if up else -self.scale)

    def reset(self, ticker: str) -> None:
        self.n = 0

    def use_only(self, names: Collection[str] | None) -> None:
        self.n = 0


def live_session(
    folder: Path, *, swap_at: int | None = None, fail_at: int | None = None, huge_at: int | None = None
) -> list[cmd.PlaceOrder]:
    """A live session in miniature: engine, pipeline and journal, with a broker that fills at once."""
    head = header()
    engine = Engine(head.config, head.instruments, head.model, KEY)
    pipeline = SignalPipeline(head.instruments, Leaner(), KEY)
    journal = JournalWriter(folder, head)
    orders: list[cmd.PlaceOrder] = []

    def tell(event: ev.Event) -> None:
        journal.event(event)
        commands = engine.on(event)
        journal.commands(commands)
        for order in (c for c in commands if isinstance(c, cmd.PlaceOrder)):
            orders.append(order)
            fill = ev.FillInfo(f"d{len(orders)}", order.price_ticks or 30_000, order.lots, 7)
            tell(ev.OrderUpdate(event.now_ns, order.client_order_id, "x", "FILLED", order.lots, (fill,)))

    now_ns = START_NS
    tell(ev.Reconciled(now_ns, {}))
    for n in range(900):
        now_ns += SECOND_NS // 2
        mid = 30_000 + n % 5
        book = ev.Book(
            now_ns, "AAA", now_ns, (mid - 1, mid - 2), (90, 50), (mid + 1, mid + 2), (80 + n % 9, 50), True
        )
        if n == huge_at:
            book = replace(book, bid_qty=(2**31, 50))
        if n % 3 == 0:
            trade = ev.Trade(now_ns, "AAA", now_ns, mid, 1 + n % 4, 1)
            pipeline.on_trade(trade)
            tell(trade)
        tell(book)
        answer = pipeline.on_book(book)
        if answer is not None:
            if n == fail_at:
                answer = ev.InferenceFailed(answer.now_ns, "AAA", answer.trace_id, "the GPU fell off the bus")
            tell(answer)
        if n == swap_at:
            pipeline.swap(Leaner(40_000))
            tell(ev.ModelSwapped(now_ns, "m2", model().to_dict()))
            pipeline.set_mode(["gbdt"], SECOND_NS)
            tell(ev.PipelineMode(now_ns, ("gbdt",), SECOND_NS, "hot"))
            pipeline.reset()
            tell(ev.PipelineReset(now_ns, "*", "hot"))
        if n % 2:
            tell(ev.Timer(now_ns))
    journal.close()
    return orders


def make(sha256: str, tickers: tuple[str, ...]) -> Leaner:
    return Leaner(40_000 if sha256 == "m2" else 30_000)


def test_a_live_session_replays_to_the_same_orders(tmp_path: Path) -> None:
    orders = live_session(tmp_path)
    result = replay.run(tmp_path, None, make_model=make)
    assert result.equal and result.orders == len(orders) > 10
    assert result.order_list_hash == result.journal_order_list_hash == order_list_hash(orders)
    assert result.score_differences == 0
    assert json.loads(json.dumps(result.to_dict()))["equal"] is True


def test_a_book_of_no_market_is_distrusted_and_replays_too(tmp_path: Path) -> None:
    live_session(tmp_path, huge_at=700)
    result = replay.run(tmp_path, None, make_model=make)
    assert result.equal and result.orders > 10 and result.score_differences == 0


def test_model_swaps_modes_and_resets_are_replayed_too(tmp_path: Path) -> None:
    live_session(tmp_path, swap_at=600)
    result = replay.run(tmp_path, None, make_model=make)
    assert result.equal and result.score_differences == 0 and result.orders > 10


def test_a_failure_of_the_machine_is_taken_from_the_journal(tmp_path: Path) -> None:
    live_session(tmp_path, fail_at=500)
    result = replay.run(tmp_path, None, make_model=make)
    assert result.equal and result.failures_not_repeated == 1


def test_another_model_is_found_out_at_its_first_score_and_order(tmp_path: Path) -> None:
    live_session(tmp_path)
    result = replay.run(tmp_path, None, make_model=lambda sha256, tickers: Leaner(-30_000))
    assert not result.equal and result.score_differences > 0
    assert result.first_score_difference is not None and "AAA" in result.first_score_difference
    assert result.first_difference is not None and "the session asked for" in result.first_difference
    assert result.order_list_hash != result.journal_order_list_hash


def test_an_order_that_was_altered_left_out_or_added_is_named_with_its_time(tmp_path: Path) -> None:
    live_session(tmp_path)
    path = tmp_path / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    at = [i for i, line in enumerate(lines) if line.startswith('["=PlaceOrder"')][3]
    alterations = {
        "altered": [*lines[:at], lines[at].replace('"AAA"', '"BBB"', 1), *lines[at + 1 :]],
        "left out": [*lines[:at], *lines[at + 1 :]],
        "added": [*lines[: at + 1], lines[at], *lines[at + 1 :]],
    }
    for name, text in alterations.items():
        path.write_text("".join(text))
        result = replay.run(tmp_path, None, make_model=make)
        assert not result.equal, name
        assert result.first_difference is not None and result.first_difference.startswith("at 1768"), name


def test_a_session_that_crashed_in_mid_line_replays_up_to_there(tmp_path: Path) -> None:
    live_session(tmp_path)
    path = tmp_path / "events.jsonl"
    text = path.read_text()
    path.write_text(text[: len(text) * 2 // 3])
    result = replay.run(tmp_path, None, make_model=make)
    assert result.equal and result.torn and result.orders > 0


def test_a_restored_session_replays_from_its_checkpoint(tmp_path: Path) -> None:
    before = Engine(config(), header().instruments, model(), "99999999-1234-5678-1234-567812345678")
    before.on(ev.Reconciled(START_NS, {}))
    before.on(ev.VolatilityIndex(START_NS, 9_999))
    head = header(restored=json.loads(json.dumps(before.snapshot())))
    engine = Engine(head.config, head.instruments, head.model, KEY)
    assert head.restored is not None
    engine.restore(head.restored)
    writer = JournalWriter(tmp_path, head)
    for event in (ev.Reconciled(START_NS, {}), ev.Timer(START_NS + 1)):
        writer.event(event)
        writer.commands(engine.on(event))
    writer.close()
    assert replay.run(tmp_path, None, make_model=make).equal
    assert engine.holds.get("VOLATILITY") is not None


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    live_session(tmp_path)
    with pytest.raises(replay.ReplayError, match="m1"):
        replay.run(tmp_path, None)
