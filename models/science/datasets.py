"""The recordings that the protocol runs on. They are third parties' data beside the project, never inside
it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from market.errors import ConfigError
from market.fees import tariff
from market.types import NANO, InstrumentDay
from models.science.context import Columns, columns
from models.science.protocol import FEWEST_ROWS, Frames, Spans

BESIDE = Path("../shared/data")
VARIABLE = "SCALPER_DATA"
MOSCOW_2013 = timezone(timedelta(hours=4))
"""Moscow kept UTC+4 all year from March 2011 to October 2014."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one recording under the data folder, and how it is split."""

    name: str
    title: str
    files: tuple[str, ...]
    clock: bool = False
    """Split by the fixed hours of the protocol, not by share of time."""


SOURCES = (
    Source("rts", "MOEX RTS-12.13, 2013-12-10", ("moex-rts",), clock=True),
    Source(
        "btc-2024",
        "Binance USD-M BTCUSDT, 2024-07-18",
        ("binance/usdm_btcusdt_20240718.gz", "binance/usdm_btcusdt_20240719.gz"),
    ),
    Source(
        "btc-2023",
        "Binance USD-M BTCUSDT, 2023-04-04",
        ("binance/usdm_btcusdt_20230404.dat.gz", "binance/usdm_btcusdt_20230405.dat.gz"),
    ),
    Source(
        "coinm",
        "Binance COIN-M BTCUSD, 2024-08-08",
        ("binance/cm_btcusd_perp_20240808.gz", "binance/cm_btcusd_perp_20240809.gz"),
    ),
    Source(
        "amzn", "LOBSTER AMZN, 2012-06-21", ("lobster/LOBSTER_SampleFile_AMZN_2012-06-21_5.zip",)
    ),
)  # fmt: skip


@dataclass(slots=True)
class Study:
    """One recording, ready for the protocol: frames, columns, spans and what a side costs."""

    name: str
    title: str
    day: InstrumentDay
    frames: Frames
    columns: Columns
    spans: Spans
    tariff: str
    fee_ppm: int

    @property
    def hours(self) -> float:
        return float(self.frames.recv_ns[-1] - self.frames.recv_ns[0]) / NANO / 3600


def folder_of(given: Path | None) -> Path:
    """``--data``, else $SCALPER_DATA, else ../shared/data. ConfigError with the way out when absent."""
    folder = given or Path(os.environ.get(VARIABLE) or BESIDE)
    if not folder.is_dir():
        raise ConfigError(
            f"there is no folder {folder} with recordings: give one with --data DIR or {VARIABLE}=DIR. It "
            "holds moex-rts/ (*.book20.parquet, *.trades.parquet), binance/ and lobster/; third parties' "
            "recordings are no part of this project"
        )
    return folder


def chosen(only: Sequence[str]) -> tuple[Source, ...]:
    """The sources with these names, all when none is given. ``binance`` stands for its three captures."""
    known = {s.name for s in SOURCES} | {"binance"}
    if unknown := sorted(set(only) - known):
        raise ConfigError(f"--only {', '.join(unknown)}: unknown; known: {', '.join(sorted(known))}")
    wanted = set(only) or known
    return tuple(
        s for s in SOURCES if s.name in wanted or ("binance" in wanted and s.files[0].startswith("binance/"))
    )


def load(source: Source, folder: Path, say: Say) -> Study | None:
    """Read, check and prepare a recording; None, with a line said, where its files are not there."""
    from market import importers
    from market.validate import clean_day

    paths = [folder / file for file in source.files]
    if missing := [str(path) for path in paths if not path.exists()]:
        say(f"{source.name}: left out, there is no {', '.join(missing)}")
        return None
    imported = importers.load(paths)
    day = max((clean_day(raw)[0] for raw in imported.days), key=lambda d: len(d.books))
    return study_of(day, source.name, source.title, imported.tariff, clock=source.clock)


def study_of(day: InstrumentDay, name: str, title: str, tariff_name: str, *, clock: bool = False) -> Study:
    """A day made ready: by the protocol's fixed hours (``clock``), else first 60 % / last 40 % by time."""
    if len(day.books) < 3 * FEWEST_ROWS:
        raise ConfigError(f"{name}: {len(day.books)} books are too few for the protocol")
    frames = Frames.of(day.books)
    spans = spans_of(day, frames, clock=clock)
    return Study(
        name, title, day, frames, columns(day), spans, tariff_name, tariff(tariff_name).ppm(day.instrument)
    )


def spans_of(day: InstrumentDay, frames: Frames, *, clock: bool) -> Spans:
    """Train 10:03-15:00 and test 15:06-17:00 Moscow (``clock``), else 60 % and 40 % by time."""
    if not clock:
        return Spans.by_share(frames.recv_ns)
    midnight = datetime.strptime(day.day, "%Y-%m-%d").replace(tzinfo=MOSCOW_2013)

    def at(hour: int, minute: int) -> int:
        return int((midnight + timedelta(hours=hour, minutes=minute)).timestamp()) * NANO

    return Spans.by_clock(frames.recv_ns, (at(10, 3), at(15, 0)), (at(15, 6), at(17, 0)))
