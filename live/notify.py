"""Telegram and tones. A notice is queued and forgotten: nothing here may delay or stop trading."""

from __future__ import annotations

import io
import json
import math
import queue
import shutil
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
import wave
from dataclasses import dataclass

MAX_QUEUE = 200
"""Notices waiting for a slow Telegram; the oldest are dropped."""
TIMEOUT_S = 5.0
MIN_INTERVAL_S = 1.1
"""Telegram allows about one message per second and chat."""
TONE_SECONDS = 0.25
_PLAYERS = (("aplay", "-q", "-"), ("paplay",), ("afplay", "-"))


@dataclass(frozen=True, slots=True)
class Notice:
    text: str
    tone_hz: int | None = None


class Notifier:
    """A daemon thread that sends. ``dropped`` and ``last_error`` are shown in the status."""

    def __init__(
        self,
        token: str,
        chat_id: str,
        *,
        sound: bool,
        prefix: str = "",
        api: str = "https://api.telegram.org",
    ) -> None:
        self._url = f"{api}/bot{token}/sendMessage" if token and chat_id else ""
        self._chat_id, self._prefix = chat_id, prefix
        self._player = next((p for p in _PLAYERS if shutil.which(p[0])), None) if sound else None
        self._queue: queue.Queue[Notice | None] = queue.Queue(MAX_QUEUE)
        self.dropped = 0
        self.sent = 0
        self.last_error = ""
        self._thread: threading.Thread | None = None
        if self._url or self._player:
            self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)
            self._thread.start()

    def send(self, text: str, tone_hz: int | None = None) -> None:
        """Never blocks; the oldest waiting notice makes room for a new one."""
        if self._thread is None:
            return
        while True:
            try:
                self._queue.put_nowait(Notice(text, tone_hz))
            except queue.Full:
                try:
                    self._queue.get_nowait()
                    self.dropped += 1
                except queue.Empty:
                    pass
            else:
                return

    def close(self, wait_s: float = 2.0) -> None:
        """Gives what is queued a moment; a dead Telegram does not hold up the stop."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(wait_s)

    def _run(self) -> None:
        while (notice := self._queue.get()) is not None:
            if notice.tone_hz and self._player:
                self._play(notice.tone_hz)
            if self._url:
                self._telegram(notice.text)
                time.sleep(MIN_INTERVAL_S)

    def _telegram(self, text: str) -> None:
        body = json.dumps({"chat_id": self._chat_id, "text": f"{self._prefix}{text}"[:4096]}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                self.sent += 1
                self.last_error = ""
        except (OSError, ValueError) as error:
            # The address holds the token, so only the kind of failure is kept.
            code = error.code if isinstance(error, urllib.error.HTTPError) else type(error).__name__
            self.dropped += 1
            self.last_error = f"Telegram: {code}"

    def _play(self, tone_hz: int) -> None:
        try:
            subprocess.run(
                self._player or (), input=_tone(tone_hz), timeout=2.0, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            self.last_error = f"sound: {type(error).__name__}"


def _tone(hz: int, rate: int = 16_000) -> bytes:
    """A short sine as a WAV file in memory."""
    samples = (int(12_000 * math.sin(2 * math.pi * hz * n / rate)) for n in range(int(rate * TONE_SECONDS)))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", s) for s in samples))
    return buffer.getvalue()
