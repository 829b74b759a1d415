"""Tones on this machine: 1.5 kHz liquidity, 2.5 kHz high risk. No sound device is not an error.

A tone is a sine of 16-bit samples as a WAV file, faded in and out so that it does not click. One thread plays
it with whatever player the machine has.
"""

from __future__ import annotations

import io
import math
import queue
import shutil
import struct
import subprocess
import tempfile
import threading
import wave
from pathlib import Path
from typing import Any

RATE_HZ = 16_000
BEEP_S, GAP_S, FADE_S = 0.18, 0.09, 0.01
BEEPS = {1500: 1, 2500: 3}
"""A risk sounds three times: it can be told from liquidity without an ear for pitch."""
AMPLITUDE = 14_000
PLAYERS = (
    ("pw-play",), ("paplay",), ("aplay", "-q"), ("afplay",), ("play", "-q"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"), ("cvlc", "--play-and-exit", "--quiet"),
)  # fmt: skip
TIMEOUT_S = 5.0
GIVE_UP_AFTER = 3
"""Failures in a row after which the player is not started any more."""


def tone(hz: int) -> bytes:
    """The WAV file of a tone: mono, 16 bits."""
    fade = int(RATE_HZ * FADE_S)
    n = int(RATE_HZ * BEEP_S)
    beep = [
        round(AMPLITUDE * min(1.0, i / fade, (n - i) / fade) * math.sin(2 * math.pi * hz * i / RATE_HZ))
        for i in range(n)
    ]
    gap = [0] * int(RATE_HZ * GAP_S)
    samples = (beep + gap) * (BEEPS.get(hz, 1) - 1) + beep
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()


def find_player() -> tuple[str, ...] | None:
    return next((player for player in PLAYERS if shutil.which(player[0])), None)


class Tones:
    """``play`` never blocks: while one tone sounds, at most one more waits, and a risk replaces liquidity."""

    def __init__(self) -> None:
        self.player = find_player()
        self.played = 0
        self.last_error = "" if self.player else "no player on this machine"
        self._failures = 0
        self._next: queue.Queue[int | None] = queue.Queue(1)
        self._folder = tempfile.TemporaryDirectory(prefix="scalper-tones-") if self.player else None
        self._thread: threading.Thread | None = None
        if self.player:
            self._thread = threading.Thread(target=self._run, name="tones", daemon=True)
            self._thread.start()

    def play(self, hz: int) -> None:
        if self._thread is None:
            return
        try:
            self._next.put_nowait(hz)
        except queue.Full:
            try:
                waiting = self._next.get_nowait()
                self._next.put_nowait(waiting if waiting is None else max(waiting, hz))
            except (queue.Empty, queue.Full):
                pass  # the thread took it in between: a tone sounds anyway

    def report(self) -> dict[str, Any]:
        return {
            "player": self.player[0] if self.player else None,
            "played": self.played,
            "last_error": self.last_error,
        }

    def close(self) -> None:
        if self._thread is None:
            return
        try:
            self._next.put_nowait(None)
        except queue.Full:
            return  # a daemon thread: it does not hold up the stop
        self._thread.join(TIMEOUT_S)
        if self._folder is not None and not self._thread.is_alive():
            self._folder.cleanup()

    def _run(self) -> None:
        files: dict[int, Path] = {}
        while (hz := self._next.get()) is not None:
            if self._failures >= GIVE_UP_AFTER:
                continue
            try:
                if hz not in files:
                    assert self._folder is not None
                    files[hz] = Path(self._folder.name) / f"tone-{hz}.wav"
                    files[hz].write_bytes(tone(hz))
                subprocess.run(
                    [*(self.player or ()), str(files[hz])], timeout=TIMEOUT_S, check=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError) as error:
                self._failures += 1
                code = getattr(error, "returncode", type(error).__name__)
                self.last_error = f"{self.player[0] if self.player else 'player'}: {code}"
            else:
                self._failures = 0
                self.played += 1
                self.last_error = ""
