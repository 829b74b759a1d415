"""Notices: written down with what to do, sent where that is configured, and never a failure of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flows import notices


@pytest.fixture
def telegram(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict]]:
    """A server that answers like Telegram's; what it was sent."""
    got: list[dict] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append({"path": self.path, **body})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("SCALPER_TELEGRAM_TOKEN", "123:secret")
    monkeypatch.setenv("SCALPER_TELEGRAM_CHAT", "42")
    monkeypatch.setenv("SCALPER_TELEGRAM_API", f"http://127.0.0.1:{server.server_port}")
    yield got
    server.shutdown()
    server.server_close()


def _tell(folder: Path) -> notices.Notice:
    return notices.tell(folder, kind="FAILED", flow="retrain", run="retrain 1", text="boom", todo="mend it")


def test_a_notice_is_kept_and_sent(tmp_path: Path, telegram: list[dict]) -> None:
    assert _tell(tmp_path).sent == "sent"
    (message,) = telegram
    assert message["path"] == "/bot123:secret/sendMessage" and message["chat_id"] == "42"
    assert "boom" in message["text"] and "What to do: mend it" in message["text"]
    (kept,) = notices.recent(tmp_path, 5)
    assert kept.text == "boom" and "mend it" in kept.line()


def test_a_dead_telegram_is_written_down_without_its_token(
    tmp_path: Path, telegram: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALPER_TELEGRAM_API", "http://127.0.0.1:9")
    assert _tell(tmp_path).sent.startswith("Telegram: ")
    assert "secret" not in (tmp_path / notices.NOTICES).read_text()


def test_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALPER_TELEGRAM_TOKEN", raising=False)
    monkeypatch.setattr(notices, "MAX_BYTES", 500)
    for _ in range(20):
        assert _tell(tmp_path).sent == "not configured"
    sizes = [p.stat().st_size for p in (tmp_path / notices.NOTICES).parent.iterdir()]
    assert len(sizes) == 2 and max(sizes) < 1000
