"""What a person must hear about the platform: kept in a file, sent to Telegram where that is configured.

A notice says what happened and what to do. Telling must never fail the work that it tells of: a Telegram that
does not answer is itself written down, and that is all.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

NOTICES = Path("runtime/platform/notices.jsonl")
MAX_BYTES = 1 << 20
"""A longer file is kept once as ``notices.jsonl.1``; older notices are gone."""
TIMEOUT_S = 5.0
MAX_CHARS = 4000
API = "https://api.telegram.org"


@dataclass(frozen=True, slots=True)
class Notice:
    """``kind``: FAILED, CRASHED, CANCELLED, STALE_QUEUE, ...; ``todo``: what the reader should do now."""

    at: str
    kind: str
    flow: str
    run: str
    text: str
    todo: str
    sent: str = ""

    def line(self) -> str:
        return f"{self.at}  {self.kind}  {self.flow} ({self.run}): {self.text}  -> {self.todo}"


def tell(workdir: Path, *, kind: str, flow: str, run: str, text: str, todo: str) -> Notice:
    """Write the notice down and send it if SCALPER_TELEGRAM_TOKEN and SCALPER_TELEGRAM_CHAT are set."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    sent = _telegram(f"Scalper platform: {kind} {flow} ({run})\n{text}\n\nWhat to do: {todo}")
    notice = Notice(at, kind, flow, run, text[:MAX_CHARS], todo, sent)
    path = workdir / NOTICES
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        path.replace(path.with_suffix(".jsonl.1"))
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(notice), ensure_ascii=False) + "\n")
    return notice


def recent(workdir: Path, count: int) -> list[Notice]:
    """The newest notices, oldest first."""
    try:
        lines = (workdir / NOTICES).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Notice(**json.loads(line)) for line in lines[-count:] if line.endswith("}")]


def _telegram(text: str) -> str:
    """``sent``, ``not configured`` or the kind of failure (never the address: it holds the token)."""
    token, chat = os.environ.get("SCALPER_TELEGRAM_TOKEN", ""), os.environ.get("SCALPER_TELEGRAM_CHAT", "")
    if not token or not chat:
        return "not configured"
    url = f"{os.environ.get('SCALPER_TELEGRAM_API', API)}/bot{token}/sendMessage"
    body = json.dumps({"chat_id": chat, "text": text[:MAX_CHARS]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    for pause_s in (0.0, 1.0):
        time.sleep(pause_s)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return "sent"
        except urllib.error.HTTPError as error:
            said = f"Telegram answered {error.code}"
        except (OSError, ValueError) as error:
            said = f"Telegram: {type(error).__name__}"
    return said
