"""Is all well? One plain sentence from the runner's status, why, and what to do.

The dashboard's banner, ``/status`` in a chat and the metrics use this one judgement, so they cannot disagree.
``ok``: it trades as it should. ``idle``: it does not trade, and that is right. ``watch``: it trades, and
something needs a look. ``bad``: it does not do what it should, or money is at risk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from market.types import NANO

Level = Literal["ok", "idle", "watch", "bad"]
LEVELS: tuple[Level, ...] = ("ok", "idle", "watch", "bad")
"""From best to worst."""

STARTING_S = 30.0
"""How long a start may take before the absence of reconciliation is a fault."""
WATCH = "Watch the position in the broker's terminal."
DRAWDOWN_WARNING = 0.8
"""Share of the day's loss limit that is worth a look."""


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    headline: str
    why: str = ""
    what_to_do: str = ""


WORDS: dict[str, tuple[Level, str, str]] = {
    "SESSION": ("idle", "Outside trading hours", ""),
    "MANUAL_OVERRIDE": ("bad", "Halted by hand", "Resume when the reason is gone."),
    "DAILY_LOSS": (
        "bad", "The day's loss limit is reached", "Nothing until midnight; look at the trades of today.",
    ),
    "LOSS_COOLDOWN": ("watch", "A pause after losses", "It ends by itself; look at the last trades."),
    "VOLATILITY": (
        "bad", "The market is too volatile", "Resume by hand when the index is back under its limit.",
    ),
    "CRITICAL_DRIFT": ("bad", "The market no longer looks like the training data", "Load another model."),
    "LATENCY": ("bad", "This machine is too slow", "Find what slows it down, then resume by hand."),
    "HEARTBEAT": ("bad", "No market data comes", "Look at the connection and at the broker's state."),
    "CONNECTION": ("bad", "No connection to the broker", "Check the network; use the broker's terminal."),
    "NOT_RECONCILED": (
        "bad", "Not compared with the broker yet", "Look at the last error below.",
    ),
    "POSITION_MISMATCH": (
        "bad", "The broker's position is not ours", "Compare with the broker's terminal before resuming.",
    ),
    "BOOK_QUARANTINE": ("watch", "A book is not believed", "It lifts with the first good book."),
    "TRADING_STATUS": ("idle", "The exchange does not trade it", ""),
    "MODEL_EXPIRED": ("bad", "The model is past its date", "Promote a newer bundle."),
    "ROTATED_OUT": ("idle", "Rotated out: others are more tradable", ""),
    "REJECT_STREAK": ("bad", "The broker rejects our orders", "Read the reasons under the last orders."),
    "ORDER_UNKNOWN": ("bad", "Nobody knows what became of an order", "Look for it in the broker's terminal."),
    "ORDER_STATE": (
        "bad", "An order is in an impossible state", "Compare with the broker's terminal, then resume.",
    ),
    "LEDGER_MISMATCH": (
        "bad", "The day's deals are not the broker's", "Compare with the broker's report, then resume.",
    ),
    "STOP_REQUESTED": ("idle", "The runner is stopping", ""),
}  # fmt: skip
"""Every hold in words: how bad, what it is, what a person does."""


def judge(status: dict[str, Any]) -> Verdict:
    """The verdict over ``live.status.read`` with ``halt_flag`` added (see ``live.control``)."""
    if not status["alive"]:
        return _not_running(status)
    worst = _worst_hold(status)
    if worst is not None:
        return worst
    if status.get("halt_flag") is not None:
        # The flag is there and the runner has not said so yet: it polls once a second.
        return Verdict("watch", "Being halted by hand", status["halt_flag"])
    link = status["connection"]
    if not link["up"]:
        return Verdict("bad", _stuck("No connection to the broker", status), link["last_error"])
    for headline, why, what in _worries(status):
        return Verdict("watch", headline, why, what)
    instruments = (status.get("instruments") or {}).values()
    if instruments and all(i["warming_up"] or i["rotated_out"] for i in instruments):
        return Verdict("idle", "Warming up", "The features need two minutes of books before the first score.")
    return Verdict("ok", "All is well", f"Trading {_list(status)}; {_lots(status)}.")


def _not_running(status: dict[str, Any]) -> Verdict:
    lots, ended = _lots(status), status.get("ended")
    age = _ago(status["age_s"])
    if ended is not None and not ended["failure"]:
        level: Level = "bad" if status["positions"] else "idle"
        more = (
            f"{lots} at the broker, and nobody watches it." if status["positions"] else "No position is open."
        )
        return Verdict(level, "The runner has stopped", f"{ended['reason']}, {age} ago. {more}")
    why = f"Last sign of life {age} ago" + (f": {ended['failure']}" if ended else "") + f". Then: {lots}."
    what = "Look at the broker's terminal, then start it again: it takes orders and positions over."
    return Verdict("bad", "The runner is NOT RUNNING", why, what)


_Rank = tuple[int, bool, bool]
"""Index of the level, a position is stuck, over everything."""


def _worst_hold(status: dict[str, Any]) -> Verdict | None:
    """The hold that matters most, in words; one over everything before one over one instrument."""
    found = [seen for hold in status["holds"] if (seen := _seen(hold, status)) is not None]
    if not found:
        return None
    (rank, _, _), hold, words, what = max(found, key=lambda f: f[0])
    more = f" And {len(found) - 1} more." if len(found) > 1 else ""
    return Verdict(LEVELS[rank], words, f"{hold['reason']}. Until {hold['lifts_when']}.{more}", what)


def _seen(hold: dict[str, Any], status: dict[str, Any]) -> tuple[_Rank, dict[str, Any], str, str] | None:
    """(how much it matters, hold, headline, what to do); None: nothing worth a word."""
    level, words, what = WORDS.get(hold["name"], ("bad", hold["name"], ""))
    if hold["name"] == "NOT_RECONCILED" and _young(status):
        level, words, what = "idle", "Starting", ""
    whole = hold["scope"] == "*" or _all_held(hold["name"], status)
    where = "" if whole else f" ({hold['scope']})"
    held = [t for t in status["positions"] if hold["scope"] in ("*", t)]
    if hold["severity"] == "NO_ORDERS" and held:
        # Not even a stop leaves: with an open position that is the headline.
        return (LEVELS.index("bad"), True, whole), hold, _stuck(f"{words}{where}", status), f"{WATCH} {what}"
    if not whole:
        if level == "idle":
            return None  # the others trade, and this one rightly does not
        return (LEVELS.index("watch"), False, False), hold, f"{words}{where}", what
    headline = words if level == "watch" else f"Not trading: {_lower(words)}"
    return (LEVELS.index(level), False, True), hold, headline, what


def _stuck(words: str, status: dict[str, Any]) -> str:
    return f"{words}, and {_lots(status)} cannot be closed from here" if status["positions"] else words


def _all_held(name: str, status: dict[str, Any]) -> bool:
    tickers = set(status.get("instruments") or ())
    return bool(tickers) and tickers <= {h["scope"] for h in status["holds"] if h["name"] == name}


def _young(status: dict[str, Any]) -> bool:
    return (status["wall_ns"] - status.get("started_wall_ns", 0)) / NANO < STARTING_S


def _worries(status: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(headline, why, what to do), most urgent first."""
    limit_s = (status.get("limits") or {}).get("book_age_s")
    instruments = status.get("instruments") or {}
    stale = [t for t, i in instruments.items() if limit_s and _old(i, limit_s)]
    if stale:
        oldest = max(instruments[t]["book_age_s"] for t in stale)
        yield (
            f"Old data for {', '.join(stale)}", f"The last book is {_ago(oldest)} old.",
            "A quiet market, or a broken stream: compare with the broker's terminal.",
        )  # fmt: skip
    storage = status["storage"]
    if storage["degraded"]:
        yield "The database does not take writes", storage["degraded"], "Look at the disk."
    day = status.get("day")
    if day and day["loss_limit_nano"] and -day["realised_nano"] > DRAWDOWN_WARNING * day["loss_limit_nano"]:
        yield (
            "Close to the day's loss limit",
            f"Realised {day['realised_nano'] / NANO:+.2f} of {-day['loss_limit_nano'] / NANO:.2f} RUB.", "",
        )  # fmt: skip
    resources = status.get("resources") or {}
    if resources.get("simplified"):
        yield "Simplified mode", _resources(resources), "Find what takes the machine's resources."
    if status["queue"]["dropped"]:
        yield (
            "Market data was dropped", f"{status['queue']['dropped']} events found the queue full.",
            "This machine is too slow for so many instruments.",
        )  # fmt: skip
    drift = status.get("drift") or {}
    if drift.get("warning"):
        yield "The market drifts away from the training data", str(drift.get("reason", "")), ""
    notifier = status["notifier"]
    if notifier["last_error"]:
        yield "Notifications do not get through", notifier["last_error"], ""


def _resources(found: dict[str, Any]) -> str:
    """What is short, in words."""
    used = (f"{name.removesuffix('_pct')} {value:.0f} %" for name, value in found.items()
            if name.endswith("_pct") and value is not None)  # fmt: skip
    return f"In use: {', '.join(used)}. Fewer instruments, one model, a lower rate."


def _old(instrument: dict[str, Any], limit_s: float | None) -> bool:
    age_s = instrument["book_age_s"]
    return bool(limit_s and age_s and age_s > limit_s and not instrument["rotated_out"])


def _lots(status: dict[str, Any]) -> str:
    lots = ", ".join(f"{p['lots']:+d} lots of {t}" for t, p in status["positions"].items())
    return lots or "no position is open"


def _list(status: dict[str, Any]) -> str:
    names = list(status.get("instruments") or ())
    return ", ".join(names) if len(names) <= 4 else f"{len(names)} instruments"


def _lower(words: str) -> str:
    return words[:1].lower() + words[1:]


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
