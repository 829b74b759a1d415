"""``scalper ingest``: the kind is named or found out, facts come as flags, errors name the missing one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flows import column_map
from flows.cli import main
from flows.ingest_cli import KINDS
from market.importers import IMPORTERS
from market.importers.column_mapping import mapping_of
from market.recording import Recording

BOOKS = "ts,bid_1_price,bid_1_qty,ask_1_price,ask_1_qty\n1700000000000000000,26848,9,26849,1\n"
TRADES = "ts,price,qty,side\n1700000000100000000,26849,3,B\n1700000000200000000,26848,2,S\n"


def documented_map() -> str:
    """The mapping of the guide, as a reader copies it."""
    guide = (Path(__file__).resolve().parents[2] / "docs" / "importers.md").read_text()
    found = re.search(r"\*\*columns\.\*\*.*?```yaml\n(.*?)```", guide, re.DOTALL)
    assert found is not None, "the guide shows a mapping"
    return found[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.csv").write_text(BOOKS)
    (tmp_path / "trades.csv").write_text(TRADES)
    (tmp_path / "map.yaml").write_text(documented_map())
    book = {
        "figi": "BBG0",
        "time": "2026-01-15T07:00:00Z",
        "bids": [{"price": 9.5, "quantity": 1}],
        "asks": [],
    }
    (tmp_path / "books.jsonl").write_text(json.dumps(book) + "\n")
    return tmp_path


def test_help_names_every_kind_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(KINDS) == list(IMPORTERS)
    with pytest.raises(SystemExit):
        main(["ingest", "--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"\n  {kind} +\S", text) for kind in KINDS)
    assert text.count("\n  scalper ingest ") == 10 and "docs/importers.md" in text


def test_several_files_by_a_mapping(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ingest", "columns", "book.csv", "trades.csv", "--columns", "map.yaml", "--out", "out"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "book.csv: 1 rows of books" in said and "REAL recording at out, source columns" in said
    day = Recording.open(folder / "out").read("SBER", "2023-11-15")
    assert day.books.bid_px[0, 0] == 26_848 and day.instrument.tick_value_nano == 100_000_000
    assert day.trades.side.tolist() == [1, -1]


def test_facts_come_as_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ingest", "books.jsonl", "--out", "out", "--instrument", "share", "--tick", "0.5"]
    assert main(words) == 2
    assert "give it, for instance --lot 10" in capsys.readouterr().err
    flags = [
        "--lot",
        "10",
        "--ticker",
        "SBER",
        "--class-code",
        "TQBR",
        "--tariff",
        "free",
        "--currency",
        "usd",
    ]
    assert main([*words, *flags]) == 0
    info = Recording.open(folder / "out").info
    (instrument,) = info.instruments
    assert (instrument.ticker, instrument.class_code, instrument.lot) == ("SBER", "TQBR", 10)
    assert (instrument.tick_value_nano, instrument.currency, info.tariff) == (5_000_000_000, "usd", "free")
    assert main(["ingest", "out", "--out", "again"]) == 0
    assert main(["ingest", "out", "--out", "again", "--lot", "1"]) == 2
    assert "a recording describes its instruments itself, so lot cannot be given" in capsys.readouterr().err


def test_facts_of_several_instruments_come_in_a_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = json.loads((folder / "books.jsonl").read_text())
    with (folder / "books.jsonl").open("a") as f:
        f.write(json.dumps({**book, "figi": "BBG1"}) + "\n")
    words = ["ingest", "books.jsonl", "--out", "out", "--instrument", "share", "--tick", "0.5"]
    assert main([*words, "--lot", "10"]) == 2
    assert "BBG0 and BBG1 cannot both be" in capsys.readouterr().err and not (folder / "out").exists()
    facts = "BBG0: {kind: share, lot: 10, ticker: SBER}\nBBG1: {kind: share, lot: 1, tick: 0.25}\n"
    (folder / "facts.yaml").write_text(facts)
    assert main([*words[:4], "--instruments", "facts.yaml"]) == 0
    found = {i.ticker: i.tick_value_nano for i in Recording.open(folder / "out").info.instruments}
    assert found == {"SBER": 95_000_000_000, "BBG1": 250_000_000}  # one price only: its step is that price


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["qhs", "book.csv"], "'qhs' is neither a file nor a kind; kinds: own, moex-rts, qsh"),
        (["qsh"], "kind qsh of what?"),
        (["book.csv"], "no source that can be ingested"),
        (["columns", "book.csv"], "--columns mapping.yaml"),
        (["columns", "book.csv", "--columns", "no.yaml"], "--columns no.yaml cannot be read"),
        (["columns", "book.csv", "--columns", "book.csv"], "has to be a mapping"),
        (["books.jsonl", "--tick", "cheap"], "--tick is 'cheap': a decimal number"),
        (["books.jsonl", "--tick", "-1"], "--tick -1: it has to be above zero"),
        (["books.jsonl", "--lot", "0"], "--lot 0"),
        (["books.jsonl", "--tariff", "gold"], "unknown tariff 'gold'"),
        (["books.jsonl", "--book-every", "-5"], "--book-every -5"),
        (["qsh", "book.csv"], "is no QSH file"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(p.name for p in folder.iterdir())
    assert main(["ingest", *words, "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.startswith("scalper: ") and said.count("\n") == 1
    assert sorted(p.name for p in folder.iterdir()) == before


def test_the_example_mapping_is_sound(folder: Path) -> None:
    assert mapping_of(column_map.read(folder / "map.yaml", "--columns")).facts.ticker == "SBER"
