"""The mapping of kind ``columns``, checked: which column means what. Its shape is shown in ``columns``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from market.errors import RecordingError
from market.importers import fixed
from market.importers.instruments import Facts
from market.types import DEPTH, NANO

UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000}
SECTIONS = {
    "books": ("recv_time", "exch_time", "bid_price", "bid_size", "ask_price", "ask_size"),
    "trades": ("recv_time", "exch_time", "price", "size", "side"),
}
NEEDED = {"books": SECTIONS["books"][2:], "trades": ("price", "size")}
TOP = ("instrument", "price_unit", "size_unit", "books", "trades", "delimiter")
INSTRUMENT = ("ticker", "class_code", "kind", "lot", "tick", "tick_value", "currency", "name", "tariff")


@dataclass(frozen=True, slots=True)
class Time:
    column: str
    unit: str
    zone: ZoneInfo


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the mapping. ``names``: the columns by role, level by level for books."""

    what: str
    recv: Time
    exch: Time
    names: dict[str, list[str]]
    buy: frozenset[str]
    sell: frozenset[str]

    def wanted(self, header: list[str]) -> list[str] | None:
        """The columns to read from a table with ``header``, None if it is not of this section."""
        fixed_names = [self.recv.column, self.exch.column]
        levels = min((len(self._held(role, header)) for role in NEEDED[self.what]), default=0)
        if levels == 0 or not set(fixed_names) <= set(header):
            return None
        named = [name for role in self.names for name in self._held(role, header)]
        if "side" in self.names and self.names["side"][0] not in header:
            return None
        return list(dict.fromkeys(fixed_names + named))

    def _held(self, role: str, header: list[str]) -> list[str]:
        held = []
        for name in self.names[role]:
            if name not in header:
                break
            held.append(name)
        return held

    def levels(self, header: list[str]) -> int:
        return min(len(self._held(role, header)) for role in NEEDED["books"])


@dataclass(frozen=True, slots=True)
class Mapping:
    facts: Facts
    tariff: str
    price_unit_nano: int
    size_unit_nano: int
    delimiter: str
    sections: tuple[Section, ...]


def mapping_of(raw: dict[str, Any]) -> Mapping:
    """Check a mapping; RecordingError names the key that is unknown, missing or impossible."""
    _known(raw, TOP, "the mapping")
    instrument = raw.get("instrument") or {}
    _known(instrument, INSTRUMENT, "instrument")
    if "ticker" not in instrument:
        raise RecordingError("the mapping lacks instrument.ticker")
    kind = instrument.get("kind")
    if kind not in (None, "share", "future"):
        raise RecordingError(f"instrument.kind is {kind!r}; it is share or future")
    lot = instrument.get("lot")
    if lot is not None:
        if not str(lot).isdecimal() or int(lot) < 1:
            raise RecordingError(f"instrument.lot is {lot!r}: a whole number above zero is needed")
        lot = int(lot)
    facts = Facts(
        str(instrument["ticker"]), str(instrument.get("class_code", "")), kind, lot,
        _nano(instrument, "tick", None), _nano(instrument, "tick_value", None),
        str(instrument.get("currency", "rub")), str(instrument.get("name", "")),
    )  # fmt: skip
    sections = tuple(_section(what, raw[what]) for what in SECTIONS if raw.get(what) is not None)
    if not sections:
        raise RecordingError("the mapping has neither books nor trades")
    price_unit, size_unit = _nano(raw, "price_unit", NANO), _nano(raw, "size_unit", NANO)
    assert price_unit is not None and size_unit is not None
    delimiter = str(raw.get("delimiter", ","))
    if len(delimiter) != 1 or not delimiter.isascii():
        raise RecordingError(f"delimiter is {delimiter!r}: one character is needed")
    return Mapping(facts, str(instrument.get("tariff", "trader")), price_unit, size_unit, delimiter, sections)


def _known(raw: Any, allowed: tuple[str, ...], where: str) -> None:
    if not isinstance(raw, dict):
        raise RecordingError(f"{where} has to be a mapping of keys, not {raw!r}")
    if unknown := [key for key in raw if key not in allowed]:
        raise RecordingError(f"{where}: unknown key {unknown[0]!r}; known here: {', '.join(allowed)}")


def _nano(raw: dict[str, Any], key: str, default: int | None) -> int | None:
    if raw.get(key) is None:
        return default
    nano = fixed.nano_of_text(str(raw[key]), key)
    if nano <= 0:
        raise RecordingError(f"{key} is {raw[key]}: it has to be above zero")
    return nano


def _section(what: str, raw: Any) -> Section:
    _known(raw, SECTIONS[what], what)
    if missing := [role for role in NEEDED[what] if role not in raw]:
        raise RecordingError(f"{what} lacks {missing[0]!r}")
    if "recv_time" not in raw and "exch_time" not in raw:
        raise RecordingError(f"{what} lacks recv_time")
    recv = _time(raw.get("recv_time", raw.get("exch_time")), f"{what}.recv_time")
    exch = _time(raw.get("exch_time", raw.get("recv_time")), f"{what}.exch_time")
    buy, sell = frozenset({"1", "B", "BUY", "b", "buy"}), frozenset({"-1", "2", "S", "SELL", "s", "sell"})
    names: dict[str, list[str]] = {}
    for role in SECTIONS[what][2:]:
        value = raw.get(role)
        if role == "side":
            if value is None:
                continue
            if isinstance(value, dict):
                _known(value, ("column", "buy", "sell"), "trades.side")
                buy, sell = _codes(value, "buy", buy), _codes(value, "sell", sell)
                value = value.get("column")
        if not isinstance(value, str):
            raise RecordingError(f"{what}.{role} has to be the name of a column, not {value!r}")
        if what == "books":
            if "{level}" not in value:
                raise RecordingError(
                    f"books.{role} is {value!r}: it needs {{level}} where the level's number goes"
                )
            names[role] = [value.replace("{level}", str(level)) for level in range(1, DEPTH + 1)]
        else:
            names[role] = [value]
    return Section(what, recv, exch, names, buy, sell)


def _codes(raw: dict[str, Any], key: str, default: frozenset[str]) -> frozenset[str]:
    codes = raw.get(key)
    if codes is None:
        return default
    if not isinstance(codes, list):
        raise RecordingError(f"trades.side.{key} is {codes!r}: a list is needed, such as [1, B]")
    return frozenset(map(str, codes))


def _time(raw: Any, where: str) -> Time:
    if isinstance(raw, str):
        return Time(raw, "ns", ZoneInfo("UTC"))
    _known(raw, ("column", "unit", "zone"), where)
    unit = raw.get("unit", "ns")
    if unit not in (*UNITS_NS, "s", "iso") or not isinstance(raw.get("column"), str):
        raise RecordingError(f"{where} is {raw!r}: it needs column, and a unit of ns, us, ms, s or iso")
    try:
        return Time(raw["column"], unit, ZoneInfo(str(raw.get("zone", "UTC"))))
    except (KeyError, ValueError, OSError) as error:
        raise RecordingError(f"{where}: unknown time zone {raw.get('zone')!r}") from error
