"""From what a file says, what a person says and what is commonly known, to an ``Instrument``.

A share's tick is worth tick x lot; a future's tick value is set by its contract and is in no recording, so it
has to be known or given.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from market.errors import RecordingError
from market.importers.fixed import nano_of_text
from market.importers.source import FACTS, ImportOptions
from market.types import NANO, Instrument

NAMESPACE = uuid.UUID("0d5e7f0e-2f2e-5b57-8f0b-8b8a4f7b6c3a")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source knows of its instrument; None where it does not say. ``assumed``: what is not from the
    file, in words, for the provenance."""

    ticker: str
    class_code: str = ""
    kind: Literal["share", "future"] | None = None
    lot: int | None = None
    tick_nano: int | None = None
    tick_value_nano: int | None = None
    currency: str = "rub"
    name: str = ""
    assumed: str = ""


MOEX_LOTS: dict[str, int] = {"SBER": 10, "GAZP": 10}
"""Shares in a lot on the main board, as it was on the days of the recordings (2017 to early 2024)."""

ROUBLE_FUTURES = ("SNGR-",)
"""Futures on one share, quoted in roubles for a contract: a price step is worth the step in roubles."""


def uid_of(class_code: str, ticker: str) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, f"{class_code}/{ticker}")


def moex(ticker: str, class_code: str, tick_nano: int | None, lot: int | None = None) -> Facts:
    """What is commonly known of a MOEX instrument by its ticker. A board code means a share, a hyphen in a
    ticker without one a future; neither is a guess for anything else."""
    if class_code == "SPBFUT" or (not class_code and "-" in ticker):
        known = tick_nano is not None and ticker.startswith(ROUBLE_FUTURES)
        return Facts(
            ticker, "SPBFUT", "future", 1, tick_nano, tick_nano if known else None,
            assumed="quoted in roubles for a contract: a tick is worth its size in roubles" if known else "",
        )  # fmt: skip
    if class_code in ("TQBR", "EQBR", "TQTF"):
        if lot is None and ticker in MOEX_LOTS:
            lot = MOEX_LOTS[ticker]
            return Facts(
                ticker, class_code, "share", lot, tick_nano, assumed=f"a lot of {lot} {ticker} shares"
            )
        return Facts(ticker, class_code, "share", lot, tick_nano)
    return Facts(ticker, class_code, lot=lot, tick_nano=tick_nano)


def describe(facts: Facts, options: ImportOptions, provenance: dict[str, Any]) -> Instrument:
    """The instrument; what was assumed or given goes into ``provenance["instruments"]``. RecordingError names
    the flag for what is missing, or flags that would describe several instruments at once."""
    options = options.of(facts.ticker)
    ticker = options.ticker or facts.ticker
    class_code = options.class_code or facts.class_code
    kind = options.instrument_kind or facts.kind
    if kind is None:
        raise _missing(ticker, "whether it is a share or a future", "--instrument share (or future)")
    tick_nano = options.tick_nano or facts.tick_nano
    if not tick_nano:
        raise _missing(ticker, "the price step", "--tick 0.01")
    lot = options.lot or facts.lot or (1 if kind == "future" else None)
    if lot is None:
        raise _missing(ticker, "the size of a lot", "--lot 10")
    tick_value_nano = options.tick_value_nano or facts.tick_value_nano
    if not tick_value_nano:
        if kind == "future":
            raise _missing(ticker, "what one lot gains when the price rises a tick", "--tick-value 1")
        tick_value_nano = tick_nano * lot
    uid = uid_of(class_code, ticker)
    instrument = Instrument(
        uid=str(uid), ticker=ticker, class_code=class_code, figi=f"{kind[:3].upper()}{uid.hex[:9].upper()}",
        kind=kind, lot=lot, tick_nano=tick_nano, tick_value_nano=tick_value_nano,
        currency=options.currency or facts.currency, name=facts.name,
    )  # fmt: skip
    told = _told(facts, options)
    others = [
        name
        for name, other in provenance.get("instruments", {}).items()
        if other.get("named", name) != facts.ticker and "flags" in other
    ]
    if others and "flags" in told:
        raise RecordingError(
            f"{others[0]} and {facts.ticker} cannot both be {', '.join(told['flags'])}: flags describe one "
            "instrument; give a file of facts by ticker (--instruments FILE) or ingest them apart"
        )
    if told:
        provenance.setdefault("instruments", {})[ticker] = told
    return instrument


def _told(facts: Facts, options: ImportOptions) -> dict[str, Any]:
    """For the provenance: what was assumed, and what a person said."""
    given = {
        name.removesuffix("_nano"): value / NANO if name.endswith("_nano") else value
        for name in FACTS
        if (value := getattr(options, name)) is not None
    }
    told: dict[str, Any] = {}
    if given:
        told["listed" if options.listed else "flags"] = given
    if options.ticker:
        told["named"] = facts.ticker
    if facts.assumed:
        told["assumed"] = facts.assumed
    return told


_LISTED = ("ticker", "class_code", "kind", "lot", "tick", "tick_value", "size_step", "currency")


def listed(raw: dict[str, Any]) -> dict[str, ImportOptions]:
    """Facts by ticker from ``{"SBER": {"lot": 10, ...}, ...}``. RecordingError names what is wrong."""
    out: dict[str, ImportOptions] = {}
    for ticker, given in raw.items():
        if not isinstance(given, dict) or (unknown := [key for key in given if key not in _LISTED]):
            wrong = repr(unknown[0]) if isinstance(given, dict) else repr(given)
            raise RecordingError(f"instruments, {ticker}: {wrong} is none of {', '.join(_LISTED)}")
        kind, lot = given.get("kind"), given.get("lot")
        if kind not in (None, "share", "future"):
            raise RecordingError(f"instruments, {ticker}: kind is {kind!r}; it is share or future")
        if lot is not None and (not str(lot).isdecimal() or int(lot) < 1):
            raise RecordingError(
                f"instruments, {ticker}: lot is {lot!r}: a whole number above zero is needed"
            )
        steps: dict[str, Any] = {
            f"{key}_nano": nano_of_text(str(given[key]), f"instruments, {ticker}: {key}")
            for key in ("tick", "tick_value", "size_step")
            if key in given
        }
        if any(value <= 0 for value in steps.values()):
            raise RecordingError(f"instruments, {ticker}: steps and values have to be above zero")
        text: dict[str, Any] = {
            key: str(given[key]) for key in ("ticker", "class_code", "currency") if key in given
        }
        out[str(ticker)] = ImportOptions(
            instrument_kind=kind, lot=None if lot is None else int(lot), **steps, **text
        )
    return out


def _missing(ticker: str, what: str, flag: str) -> RecordingError:
    return RecordingError(f"{ticker}: the files do not say {what}; give it, for instance {flag}")
