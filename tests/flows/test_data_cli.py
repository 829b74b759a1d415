"""``scalper data``: words, numbers, pictures and lines about a recording, with an exit status to rely on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.cli import main
from flows.data_page import Look, duration, number, page, percent, squeezed
from flows.data_plots import DARK, VIEWS, png
from market.inspect import inspect_day
from market.recording import Recording, write_recording
from market.simulator import SimSpec, simulate_market
from market.types import SECOND_NS, Books, InstrumentDay, Trades
from market.verdict import judge
from market.writer import RecordingWriter

DAY = "2026-01-15"
BLOCKS = re.compile("[▁▂▃▄▅▆▇█▏▎▍▌▋▊▉▐]")


@pytest.fixture(scope="module")
def days() -> list[InstrumentDay]:
    specs = [SimSpec("SIMA"), SimSpec("SIMF", "LARGE", kind="future")]
    return simulate_market(specs, hours=0.1, seed=7, day=DAY)[0]


def recorded(path: Path, *days: InstrumentDay, watermark: str = "SIMULATED") -> Path:
    write_recording(
        path, days, source="test", watermark=watermark, tariff="simulated", provenance={"seed": 1}
    )  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, days: list[InstrumentDay]) -> Path:
    return recorded(tmp_path_factory.mktemp("data") / "sim", *days)


def spoilt(day: InstrumentDay) -> InstrumentDay:
    """Every twentieth book crossed, and a silence of five minutes."""
    books = day.books.rows(np.arange(len(day.books)))
    books.bid_px[::20, 0] = books.ask_px[::20, 0] + 1
    books.recv_ns[700:] += 300 * SECOND_NS
    return replace(day, books=books)


def test_info_lists_the_days_and_explains_one(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(recording)]) == 0
    said = capsys.readouterr().out
    assert "SIMULATED" in said and "data hash" in said and "--ticker" in said
    assert re.search(rf"SIMA +{DAY} +1,440 .* ok\n", said) and re.search(rf"SIMF +{DAY} +1,440 ", said)
    assert main(["data", "info", str(recording), "--ticker", "SIMF"]) == 0
    said = capsys.readouterr().out
    for label in (
        "verdict",
        "span",
        "books",
        "trades",
        "gaps",
        "state",
        "spread",
        "depth",
        "mid",
        "volume",
        "clock",
    ):
        assert re.search(rf"^{label}  ", said, re.MULTILINE), label
    assert "SIMA" not in said and not BLOCKS.search(said) and "\033" not in said
    assert max(map(len, said.splitlines())) <= 130
    assert main(["data", "info", str(recording), "--ticker", "SIMF", "--bars"]) == 0
    assert BLOCKS.search(capsys.readouterr().out)
    assert main(["data", "info", str(recording), "--all"]) == 0
    assert capsys.readouterr().out.count("\nspan  ") == 2


def test_info_for_machines(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "info", str(recording), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["watermark"], said["data_hash"]) == ("SIMULATED", Recording.open(recording).data_hash())
    assert [(day["instrument"]["ticker"], day["verdict"]["level"]) for day in said["days"]] == [
        ("SIMA", "ok"), ("SIMF", "ok"),
    ]  # fmt: skip
    assert said["days"][0]["spread"]["ticks"]["p50"] >= 1


def test_validate_says_why_and_exits_with_one(
    recording: Path, tmp_path: Path, days: list[InstrumentDay], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "validate", str(recording)]) == 0
    said = capsys.readouterr().out
    assert f"SIMA {DAY}: ok\n" in said and "none dropped" in said and said.endswith("2 ok\n")
    bad = recorded(tmp_path / "bad", spoilt(days[0]), days[1])
    assert main(["data", "validate", str(bad)]) == 1
    said = capsys.readouterr().out
    assert "72 crossed" in said and "  crossed_time: " in said and "  gaps: " in said
    assert "1 suspicious, 1 ok" in said or "1 implausible, 1 ok" in said
    assert main(["data", "validate", str(bad), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["days"]
    assert found[0]["report"]["crossed"] == 72 and found[1]["verdict"]["reasons"] == []
    assert main(["data", "validate", str(bad), "--ticker", "SIMF"]) == 0


def test_one_unsound_row_is_enough_for_one(tmp_path: Path, days: list[InstrumentDay]) -> None:
    books = days[0].books.rows(np.arange(len(days[0].books)))
    books.bid_qty[5, 0] = -1
    assert main(["data", "validate", str(recorded(tmp_path / "r", replace(days[0], books=books)))]) == 1


def test_plot_writes_pictures_and_a_page_that_needs_nothing(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plots"
    assert main(["data", "plot", str(recording), "--out", str(out), "--ticker", "SIMA"]) == 0
    assert "index.html" in capsys.readouterr().out
    pictures = sorted(path.name for path in (out / "SIMA" / DAY).iterdir())
    assert pictures == sorted(f"{view.name}.png" for view in VIEWS)
    assert all((out / "SIMA" / DAY / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    text = (out / "index.html").read_text()
    assert text.count("data:image/png;base64,") == 2 * len(VIEWS) and "prefers-color-scheme: dark" in text
    links = re.findall(r'(?:src|srcset|href)="([^"]{1,40})', text)
    assert all(link.startswith(("data:image/png", "#")) for link in links) and "<script" not in text
    assert "SIMULATED: this market was made by a program" in text and 'class="verdict ok"' in text


@pytest.mark.parametrize("left", ["books", "trades", "nothing"])
def test_every_view_of_an_incomplete_day_can_be_drawn(days: list[InstrumentDay], left: str) -> None:
    day = replace(
        days[0],
        books=days[0].books.rows(slice(0, 40)) if left == "books" else Books.empty(),
        trades=days[0].trades.rows(slice(0, 40)) if left == "trades" else Trades.empty(),
    )
    found = inspect_day(day)
    for view in VIEWS:
        assert png(view, found, DARK, "REAL").startswith(b"\x89PNG")
    text = page(found, judge(found), "REAL", Look(bars=True, colour=True))
    if left != "books":
        assert "no books recorded" in text or left == "nothing"
    if left == "books":
        assert "no trades recorded" in text


def test_a_simulated_picture_says_so_even_when_it_is_empty(days: list[InstrumentDay]) -> None:
    found = inspect_day(days[0])
    views = {view.name: view for view in VIEWS}
    for name in ("spread", "gaps"):
        assert png(views[name], found, DARK, "SIMULATED") != png(views[name], found, DARK, "REAL")


def test_export_and_import_make_the_same_recording(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, back = tmp_path / "out.jsonl.gz", tmp_path / "back"
    assert main(["data", "export", str(recording), "--to", "jsonl", str(lines)]) == 0
    assert "2,880 books" in capsys.readouterr().out
    assert main(["ingest", str(lines), "--out", str(back)]) == 0
    assert Recording.open(back).data_hash() == Recording.open(recording).data_hash()


@pytest.mark.slow
@pytest.mark.recorded
def test_a_foreign_day_makes_the_round_trip(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Import, validate, export, import again: nothing is lost, and the verdict stays the same."""
    source = shared_data / "moex-qsh" / "SNGR-12.18.2018-10-05.OrdLog.qsh"
    first, lines, second = tmp_path / "first", tmp_path / "day.jsonl.gz", tmp_path / "second"
    assert main(["ingest", str(source), "--out", str(first)]) == 0
    capsys.readouterr()
    assert main(["data", "validate", str(first)]) == 1
    said = capsys.readouterr().out
    assert "clock_behind" in said and "none dropped" in said
    assert main(["data", "export", str(first), "--to", "jsonl", str(lines)]) == 0
    assert main(["ingest", str(lines), "--out", str(second)]) == 0
    assert Recording.open(second).data_hash() == Recording.open(first).data_hash()
    capsys.readouterr()
    assert main(["data", "validate", str(second)]) == 1
    assert capsys.readouterr().out == said


def test_a_recording_in_the_making_is_explained_as_far_as_it_is(
    tmp_path: Path, days: list[InstrumentDay], capsys: pytest.CaptureFixture[str]
) -> None:
    day, path = days[0], tmp_path / "live"
    b = day.books
    with RecordingWriter(
        path, source="test", watermark="SIMULATED", tariff="simulated", provenance={}
    ) as writer:
        for i in range(50):
            writer.book(
                day.instrument, int(b.exch_ns[i]), int(b.recv_ns[i]), b.bid_px[i], b.bid_qty[i], b.ask_px[i],
                b.ask_qty[i], int(b.flags[i]),
            )  # fmt: skip
        writer.flush()
        assert main(["data", "info", str(path)]) == 0
        said = capsys.readouterr().out
        assert "still being recorded" in said and re.search(r"^books +50 ", said, re.MULTILINE)
    assert main(["data", "info", str(path)]) == 0
    assert "data hash" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["data", "info", "REC", "--ticker", "NONE"], "does not hold NONE"),
        (["data", "plot", "REC", "--out", "REC/recording.json"], "cannot be written"),
        (["data", "export", "nowhere", "--to", "jsonl", "x"], "there is no recording at nowhere"),
        (["data", "export", ".", "--to", "jsonl", "x"], ". is not a recording yet: run scalper ingest"),
        (["data", "validate", "REC", "nowhere"], "there is no recording at nowhere"),
    ],
)
def test_an_expected_failure_is_one_line(
    argv: list[str], expected: str, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main([word.replace("REC", str(recording)) for word in argv]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.startswith("scalper: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("ns", "said"),
    [
        (0, "0 ns"), (755_400, "755 us"), (120e6, "120 ms"), (1.73e9, "1.73 s"), (59.97e9, "1 min 00 s"),
        (103e9, "1 min 43 s"), (25_200e9, "7 h 00 min"), (3_599.7e9, "1 h 00 min"), (-2.5e9, "-2.5 s"),
        (999.6e6, "1 s"),
    ],
)  # fmt: skip
def test_durations_read_well(ns: float, said: str) -> None:
    assert duration(ns) == said


def test_numbers_read_well() -> None:
    assert [percent(x) for x in (0, 1e-6, 0.1234, 0.99999, 1)] == [
        "0 %",
        "<0.1 %",
        "12.3 %",
        ">99.9 %",
        "100 %",
    ]
    assert [number(x) for x in (3, 0.714, 36.04, 1234.4, 1e9)] == [
        "3",
        "0.71",
        "36.0",
        "1,234",
        "1,000,000,000",
    ]
    assert squeezed([1, 2, 3, 4, 5, 6], 3) == [1.5, 3.5, 5.5] and squeezed([1.0], 60) == [1.0]
    look = Look(bars=True)
    assert (look.bar(1.0, 4), look.bar(0.5, 4), look.bar(1e-9, 4), look.bar(0, 4)) == ("████", "██", "▏", "")
    assert look.left_bar(0.625, 4) == " ▐██" and look.spark([0, 1, 8], 3) == " ▂█"
