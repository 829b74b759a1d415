"""Server-sent events: the sections that changed, once a second, to everybody who looks.

One thread makes the sections while somebody looks, however many they are; nobody looks, nothing is read.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from live.dashboard.views import Views
from live.verdict import Verdict

INTERVAL_S = 1.0
SLOW_EVERY = 5
"""Turns between two looks at the database."""
MAX_LISTENERS = 24


class TooManyListeners(Exception):
    """More pages are open than are served."""


class Publisher:
    """``listen`` gives a generator of messages; ``close`` ends them all."""

    def __init__(self, views: Views, interval_s: float = INTERVAL_S) -> None:
        self._views, self._interval_s = views, interval_s
        self._sections: dict[str, tuple[int, str]] = {}
        self._turn = 0
        self._listeners = 0
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def everything(self) -> dict[str, Any]:
        """All sections, made now."""
        with self._making:
            return {**self._views.fast(), **self._views.slow()}

    @contextmanager
    def listen(self) -> Iterator[Iterator[bytes]]:
        """Raises TooManyListeners."""
        with self._changed:
            if self._listeners >= MAX_LISTENERS:
                raise TooManyListeners
            self._listeners += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dashboard-views", daemon=True)
                self._thread.start()
        try:
            yield self._messages()
        finally:
            with self._changed:
                self._listeners -= 1

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _messages(self) -> Iterator[bytes]:
        seen = 0
        known: dict[str, int] = {}
        while True:
            with self._changed:
                while not self._closed and self._turn == seen:
                    self._changed.wait()
                if self._closed:
                    return
                seen = self._turn
                news = {n: text for n, (v, text) in self._sections.items() if known.get(n) != v}
                known = {n: v for n, (v, _) in self._sections.items()}
            body = ",".join(f"{json.dumps(name)}:{text}" for name, text in news.items())
            yield f'data: {{"at_ns":{time.time_ns()},"sections":{{{body}}}}}\n\n'.encode()

    def _make(self, *, slow: bool) -> dict[str, Any]:
        try:
            with self._making:
                made = self._views.fast()
                return made | self._views.slow() if slow else made
        except Exception as error:  # noqa: BLE001 - a page that silently stands still would say that all is well
            why = f"{type(error).__name__}: {error}"
            return {"verdict": asdict(Verdict("bad", "The dashboard cannot read the runner's files", why))}

    def _run(self) -> None:
        turn = 0
        while True:
            started_s = time.monotonic()
            made = self._make(slow=turn % SLOW_EVERY == 0)
            turn += 1
            with self._changed:
                for name, content in made.items():
                    text = json.dumps(content, separators=(",", ":"))
                    version, before = self._sections.get(name, (0, ""))
                    if text != before:
                        self._sections[name] = (version + 1, text)
                self._turn += 1
                self._changed.notify_all()
                wait_s = max(0.05, self._interval_s - (time.monotonic() - started_s))
                self._changed.wait_for(lambda: self._closed, wait_s)
                if self._closed or not self._listeners:
                    self._thread = None
                    return
