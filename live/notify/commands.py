"""Commands from Telegram: /status, /pnl, /halt, /resume; for allowed chats only, by long polling.

A thread of its own asks for messages. What was written while nobody listened is thrown away: a ``/resume`` of
yesterday must not act today. A chat that is not allowed gets no answer, and the audit hears of it.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from live.control import Control, NotDone, liftable
from live.notify.sender import Notifier
from live.notify.telegram import TelegramApi, TelegramError
from live.status import NoStatus
from live.verdict import judge
from market.types import NANO

POLL_S = 25
FIRST_PAUSE_S, MAX_PAUSE_S = 1.0, 60.0
CODE_SECONDS = 60.0
MAX_WRONG_CODES = 3
SKEW_S = 30.0
"""A message as much older than the listener is still one for it: Telegram's clock is not ours."""
AUDIT_PAUSE_S = 60.0
MAX_STRANGERS = 200
MAX_WORDS = 300
HELP = (
    "/status what it does and what holds it\n/pnl the result so far\n/halt REASON stop sending orders\n"
    "/resume remove the halt and what a person may lift (asks for a code)"
)

AuditCall = Callable[[str, str, dict[str, Any]], None]
"""(tag, event, fields); called from the listener's thread."""


@dataclass(slots=True)
class _Asked:
    """A /resume that waits for its code, and what the person was shown."""

    code: str
    until_s: float
    flag: str | None
    names: tuple[str, ...]
    wrong: int = 0


class CommandListener:
    """``start`` it once; ``close`` returns at once (the thread is a daemon inside a long poll)."""

    def __init__(
        self,
        api: TelegramApi,
        notifier: Notifier,
        control: Control,
        chats: Collection[str],
        audit: AuditCall,
        *,
        poll_s: int = POLL_S,
    ) -> None:
        self._api, self._notifier, self._control = api, notifier, control
        self._chats, self._audit, self._poll_s = frozenset(chats), audit, poll_s
        self._asked: dict[str, _Asked] = {}
        self._strangers: OrderedDict[str, float] = OrderedDict()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telegram-commands", daemon=True)
        self.handled = self.refused = 0
        self.last_error = ""

    def start(self) -> None:
        self._since_s = time.time() - SKEW_S
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def _run(self) -> None:
        offset, pause_s = 0, FIRST_PAUSE_S
        while not self._closing.is_set():
            fields = {"offset": offset, "timeout": self._poll_s, "allowed_updates": ["message"]}
            try:
                updates = self._api.call("getUpdates", fields, self._poll_s + 10.0)
                updates = [u for u in updates if isinstance(u.get("update_id"), int)]
            except (TelegramError, TypeError, AttributeError) as error:
                self.last_error = str(error)
                wish_s = getattr(error, "retry_after_s", None)
                self._closing.wait(min(MAX_PAUSE_S, wish_s if wish_s is not None else pause_s))
                pause_s = min(MAX_PAUSE_S, 2 * pause_s)
                continue
            self.last_error, pause_s = "", FIRST_PAUSE_S
            for update in updates:
                offset = max(offset, update["update_id"] + 1)
                if not self._closing.is_set():
                    self._take(update)

    def _take(self, update: dict[str, Any]) -> None:
        message = update.get("message")
        if not isinstance(message, dict) or not isinstance(message.get("text"), str):
            return
        chat_id = str(message.get("chat", {}).get("id", ""))
        command, _, rest = message["text"].strip().partition(" ")
        command = command.partition("@")[0].lower()
        if not command.startswith("/") or float(message.get("date", 0)) < self._since_s:
            return
        if chat_id not in self._chats:
            self.refused += 1
            self._stranger(chat_id, command)
            return
        self.handled += 1
        self._notifier.reply(self._answer(chat_id, command, rest.strip()[:MAX_WORDS]), chat_id)

    def _stranger(self, chat_id: str, command: str) -> None:
        """Told once a minute for each chat; the number of chats remembered is bounded."""
        now_s = time.monotonic()
        if now_s - self._strangers.get(chat_id, -1e9) < AUDIT_PAUSE_S:
            return
        self._strangers[chat_id] = now_s
        self._strangers.move_to_end(chat_id)
        if len(self._strangers) > MAX_STRANGERS:
            self._strangers.popitem(last=False)
        self._audit("RISK", "TELEGRAM_REFUSED", {"chat_id": chat_id, "command": command[:32]})

    # ---- commands

    def _answer(self, chat_id: str, command: str, rest: str) -> str:
        try:
            if command == "/status":
                return status_text(self._control.status())
            if command == "/pnl":
                return pnl_text(self._control.status())
            if command == "/halt":
                return self._halt(chat_id, rest)
            if command == "/resume":
                return self._resume(chat_id, rest)
        except (NotDone, NoStatus) as error:
            return str(error)
        return HELP

    def _halt(self, chat_id: str, reason: str) -> str:
        text = self._control.halt(reason or "halted from the chat", f"Telegram {chat_id}")
        self._audit("RISK", "TELEGRAM_HALT", {"chat_id": chat_id, "reason": text})
        return f"HALTED: {text}. No order is sent until /resume; open positions are not watched."

    def _resume(self, chat_id: str, code: str) -> str:
        asked = self._asked.pop(chat_id, None)
        now_s = time.monotonic()
        if not code:
            return self._ask(chat_id, now_s)
        if asked is None or now_s > asked.until_s:
            return "No resume waits for a code; send /resume first."
        if not hmac.compare_digest(code.encode(), asked.code.encode()):
            asked.wrong += 1
            self._audit("RISK", "TELEGRAM_WRONG_CODE", {"chat_id": chat_id, "tries": asked.wrong})
            if asked.wrong < MAX_WRONG_CODES:
                self._asked[chat_id] = asked
                return "That is not the code."
            return "Three wrong codes; send /resume again."
        by = f"Telegram {chat_id}"
        done = self._control.resume("resumed", by, seen_flag=asked.flag, names=asked.names)
        self._audit("RISK", "TELEGRAM_RESUME", {"chat_id": chat_id, "done": done})
        return f"{done}."

    def _ask(self, chat_id: str, now_s: float) -> str:
        flag = self._control.halted()
        try:
            status = self._control.status()
        except NoStatus:
            status = {}
        names = liftable(status)
        if flag is None and not names:
            return "There is nothing that a person could lift. " + (status_text(status) if status else "")
        code = f"{secrets.randbelow(9000) + 1000}"
        self._asked[chat_id] = _Asked(code, now_s + CODE_SECONDS, flag, names)
        what = [f"the halt “{flag}”"] if flag is not None else []
        what += names
        return (
            f"This lifts {', '.join(what)}. Positions and the broker's terminal looked at? "
            f"Then send /resume {code} within {CODE_SECONDS:g} s."
        )


def status_text(status: dict[str, Any]) -> str:
    """A phone screen of status: the verdict first."""
    found = judge(status)
    lines = [found.headline]
    lines += [line for line in (found.why, found.what_to_do) if line]
    lines += [f"{h['name']}{'' if h['scope'] == '*' else ' ' + h['scope']}: {h['reason']}; until "
              f"{h['lifts_when']}" for h in status["holds"]]  # fmt: skip
    lots = ", ".join(f"{t} {p['lots']:+d}" for t, p in status["positions"].items()) or "flat"
    model = status["model"]
    lines.append(f"{lots}; net {status['net_nano'] / NANO:+.2f} RUB")
    lines.append(f"{status['mode']}, model {model['alias']} v{model['version']}")
    return "\n".join(lines)


def pnl_text(status: dict[str, Any]) -> str:
    """The session's money; simulated money says so."""
    lines = [
        f"net {status['net_nano'] / NANO:+.2f} RUB (gross {status['gross_nano'] / NANO:+.2f}, fees "
        f"{status['fees_nano'] / NANO:.2f})"
    ]
    day = status.get("day")
    if day:
        lines.append(f"realised today {day['realised_nano'] / NANO:+.2f}, the day's limit is "
                     f"{-day['loss_limit_nano'] / NANO:.2f}")  # fmt: skip
    lines += [
        f"{ticker} {row['lots']:+d} lots, open {row.get('unrealised_nano', 0) / NANO:+.2f}"
        for ticker, row in status["positions"].items()
    ]
    counts = status["counts"]
    lines.append(", ".join(f"{counts.get(name, 0)} {name}" for name in ("fills", "orders", "signals")))
    if status["watermark"] == "SIMULATED":
        lines.append("SIMULATED: not evidence of an edge")
    return "\n".join(lines)
