"""What a recording says about itself: ``recording.json``, its names and versions."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from market.errors import RecordingError
from market.types import Instrument

SCHEMA_VERSION = 2
"""The newest that this program reads. A recording without own events is written as version 1: its bytes (and
so the hash of everything that was made from them) stay what they were before own events existed."""

INFO_FILE = "recording.json"
BOOK_FILE = "book.parquet"
TRADES_FILE = "trades.parquet"
OWN_FILE = "own.parquet"

Watermark = Literal["SIMULATED", "REAL"]

_TICKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class RecordingInfo:
    """What ``recording.json`` says. ``own``: the days that also have own events, by ticker."""

    schema_version: int
    source: str
    watermark: Watermark
    tariff: str
    instruments: tuple[Instrument, ...]
    days: dict[str, tuple[str, ...]]
    provenance: dict[str, Any]
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: str,
        watermark: Watermark,
        tariff: str,
        instruments: dict[str, Instrument],
        days: dict[str, set[str]],
        own: dict[str, set[str]],
        provenance: dict[str, Any],
    ) -> RecordingInfo:
        """In the one order in which it is written, with the lowest version that can say it."""
        own = {ticker: found for ticker, found in own.items() if found}
        return cls(
            2 if own else 1, source, watermark, tariff,
            tuple(instruments[t] for t in sorted(instruments)),
            {t: tuple(sorted(days[t])) for t in sorted(days)},
            provenance,
            {t: tuple(sorted(own[t])) for t in sorted(own)},
        )  # fmt: skip

    def instrument(self, ticker: str) -> Instrument:
        for instrument in self.instruments:
            if instrument.ticker == ticker:
                return instrument
        known = ", ".join(i.ticker for i in self.instruments)
        raise RecordingError(f"the recording holds no instrument {ticker!r}; it holds {known}")

    def files(self, ticker: str, day: str) -> tuple[str, ...]:
        """The tables of one day, relative to the recording."""
        own = (OWN_FILE,) if day in self.own.get(ticker, ()) else ()
        return tuple(f"{ticker}/{day}/{name}" for name in (BOOK_FILE, TRADES_FILE, *own))

    def to_dict(self) -> dict[str, Any]:
        fields = {
            "schema_version": self.schema_version,
            "source": self.source,
            "watermark": self.watermark,
            "tariff": self.tariff,
            "instruments": [i.to_dict() for i in self.instruments],
            "days": {ticker: list(days) for ticker, days in self.days.items()},
            "provenance": self.provenance,
        }
        if self.own:
            fields["own"] = {ticker: list(days) for ticker, days in self.own.items()}
        return fields

    def write(self, folder: Path) -> None:
        """``recording.json`` in ``folder``, flushed to the disk."""
        text = json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        with (folder / INFO_FILE).open("w", encoding="utf-8", newline="\n") as f:
            f.write(text + "\n")
            f.flush()
            os.fsync(f.fileno())


def check_watermark(watermark: str) -> None:
    if watermark not in get_args(Watermark):
        raise RecordingError(f"a recording's watermark is SIMULATED or REAL, not {watermark!r}")


def check_ticker(ticker: str) -> None:
    if not _TICKER.fullmatch(ticker):
        raise RecordingError(f"the ticker {ticker!r} cannot be a folder name in a recording")


def check_names(ticker: str, day: str) -> None:
    """Both become folder names, and may come from a file that somebody else wrote."""
    check_ticker(ticker)
    try:
        proper = date.fromisoformat(day).isoformat() == day
    except (ValueError, TypeError):
        proper = False
    if not proper:
        raise RecordingError(f"the day of {ticker} is written YYYY-MM-DD in a recording, not {day!r}")


def read_info(path: Path) -> RecordingInfo:
    """``recording.json`` of the folder ``path``, checked; RecordingError says what is wrong with it."""
    if not path.is_dir():
        raise RecordingError(f"there is no recording at {path}: no such folder")
    try:
        raw = json.loads((path / INFO_FILE).read_text("utf-8"))
    except FileNotFoundError:
        raise RecordingError(f"{path} is not a recording: it has no {INFO_FILE}") from None
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path / INFO_FILE} cannot be read: {error}") from error
    return info_of(raw, str(path / INFO_FILE))


def info_of(raw: Any, where: str) -> RecordingInfo:
    """The content of a ``recording.json``, checked; ``where`` is what errors call it."""
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise RecordingError(f"{where} has no schema_version: it does not describe a recording")
    if not 1 <= version <= SCHEMA_VERSION:
        newer = "update this program to read it" if version > SCHEMA_VERSION else "ingest it again"
        raise RecordingError(
            f"{where} has schema version {version}, this program reads 1 to {SCHEMA_VERSION}; {newer}"
        )
    try:
        info = RecordingInfo(
            version, str(raw["source"]), raw["watermark"], str(raw["tariff"]),
            tuple(Instrument.from_dict(fields) for fields in raw["instruments"]),
            {str(t): tuple(days) for t, days in raw["days"].items()},
            dict(raw["provenance"]),
            {str(t): tuple(days) for t, days in raw.get("own", {}).items()},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{where} is damaged: {error!r}") from error
    if info.watermark not in get_args(Watermark):
        raise RecordingError(f"{where} has the unknown watermark {info.watermark!r}")
    for ticker, days in [*info.days.items(), *info.own.items()]:
        info.instrument(ticker)
        for day in days:
            check_names(ticker, day)
    return info
