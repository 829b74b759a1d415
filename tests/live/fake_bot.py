"""A Bot API server on the loopback, over real HTTP: keeps what it is told, fails when asked to."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "123456:AAF-secret-part-of-the-token"
WAIT_S = 30.0


class FakeBot:
    """``answers``: (code, body) for the next sendMessage calls; after them everything succeeds."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.calls: list[str] = []
        self.arrived = 0
        """Calls that are here, answered or stalled."""
        self.answers: deque[tuple[int, dict[str, Any]]] = deque()
        self.updates: list[dict[str, Any]] = []
        self.stall = threading.Event()
        self.changed = threading.Condition()
        self._next = 1
        bot = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                parts = self.path.split("/")
                code, answer = bot.answer(*parts[1:], body) if len(parts) == 3 else (200, "not a Bot API")
                data = json.dumps(answer).encode()
                try:
                    self.send_response(code)
                    if 300 <= code < 400:
                        self.send_header("Location", f"{bot.url}/elsewhere{self.path}")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client gave up

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.stall.clear()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, secret: str, method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if secret != f"bot{TOKEN}":
            return 401, {"ok": False, "error_code": 401, "description": "Unauthorized"}
        if method == "getUpdates":
            return 200, {"ok": True, "result": self._updates(body)}
        with self.changed:
            self.arrived += 1
            self.changed.notify_all()
        while self.stall.is_set():
            time.sleep(0.02)
        with self.changed:
            self.calls.append(method)
            self.times.append(time.monotonic())
            failing = self.answers.popleft() if self.answers else None
            if failing is None:
                self.messages.append(body)
            self.changed.notify_all()
        return failing or (200, {"ok": True, "result": {"message_id": len(self.messages)}})

    def _updates(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + body["timeout"]
        with self.changed:
            while True:
                self.updates = [u for u in self.updates if u["update_id"] >= body["offset"]]
                if self.updates or time.monotonic() >= deadline:
                    return list(self.updates)
                self.changed.wait(0.05)

    # ---- what a test does

    def say(self, text: str, chat: int = 42, age_s: float = 0.0) -> None:
        """Somebody writes to the bot."""
        with self.changed:
            message = {"date": int(time.time() - age_s), "chat": {"id": chat}, "text": text}
            self.updates.append({"update_id": self._next, "message": message})
            self._next += 1
            self.changed.notify_all()

    def wait(self, count: int, wait_s: float = WAIT_S) -> list[str]:
        """The texts, once there are so many."""
        deadline = time.monotonic() + wait_s
        with self.changed:
            while len(self.messages) < count:
                assert time.monotonic() < deadline, f"{len(self.messages)} of {count}: {self.messages}"
                self.changed.wait(0.1)
            return [m["text"] for m in self.messages]

    def wait_calls(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        with self.changed:
            while len(self.calls) < count:
                assert time.monotonic() < deadline, f"{len(self.calls)} of {count} calls"
                self.changed.wait(0.1)

    def wait_arrived(self, count: int) -> None:
        deadline = time.monotonic() + WAIT_S
        with self.changed:
            while self.arrived < count:
                assert time.monotonic() < deadline, f"{self.arrived} of {count} calls"
                self.changed.wait(0.1)
