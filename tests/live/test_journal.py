"""The journal's lines, however they were made, are those of ``encode`` and read back as what was said."""

from __future__ import annotations

import tempfile
from pathlib import Path

from core_bench import KEY, config, instrument, model
from hypothesis import given
from hypothesis import strategies as st

from live.core.events import Book, Event, Timer
from live.journal import EVENTS_FILE, Header, JournalReader, JournalWriter, encode

TICKERS = ("AAA", 'Ж"\\')
sides = st.lists(st.integers(-(2**63), 2**63), max_size=23).map(tuple)
few = st.sampled_from([(), (100, 99), (100, 99, 98), tuple(range(120, 100, -1))])
books = st.builds(
    Book,
    st.integers(0, 2**63),
    st.sampled_from(TICKERS),
    st.integers(0, 2**63),
    few,
    sides,
    few,
    sides,
    st.booleans(),
)


@given(st.lists(books | st.builds(Timer, st.integers(0, 2**63)), max_size=30))
def test_lines_of_books_are_those_of_the_plain_encoder(events: list[Event]) -> None:
    """Prices repeat from book to book, as they do in the market, and their text is kept."""
    header = Header("s", KEY, config(), {t: instrument(t) for t in TICKERS}, model(TICKERS), "SIMULATED")
    with tempfile.TemporaryDirectory() as folder:
        writer = JournalWriter(Path(folder), header)
        for event in events:
            writer.event(event)
        writer.close()
        lines = (Path(folder) / EVENTS_FILE).read_text(encoding="utf-8").splitlines()[1:]
        assert lines == [encode(event) for event in events]
        assert list(JournalReader(Path(folder))) == events
