"""The dashboard: SQLite (read-only) and the status file as JSON, and one page that needs nothing from
outside.

Loopback by default; any other host needs a token, given as ``?token=...`` once or ``Authorization: Bearer
...``.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
import urllib.parse
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from live import status as status_
from live.config import is_loopback
from live.storage import StorageError, reader
from market.errors import ConfigError, ScalperError

PAGE = Path(__file__).with_name("dashboard.html")
MAX_ROWS = 200
MAX_CURVE_POINTS = 600
COOKIE = "scalper_token"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Views:
    """What the page asks for. Every answer is JSON-able."""

    def __init__(self, database: Path, runtime: Path, flag: Path) -> None:
        self._database, self._runtime, self._flag = database, runtime, flag

    def answers(self) -> dict[str, Callable[[str], Any]]:
        return {
            "status": lambda session: self.status(), "sessions": lambda session: self.sessions(),
            "signals": partial(self._rows, "signals", "now_ns"),
            "orders": partial(self._rows, "orders", "created_ns"),
            "fills": partial(self._rows, "fills", "now_ns"), "trips": partial(self._rows, "trips", "exit_ns"),
            "holds": partial(self._rows, "holds", "raised_ns"),
            "positions": partial(self._rows, "positions", "updated_ns"), "equity": self.equity,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        flag = self._flag
        try:
            found = status_.read(self._runtime)
        except status_.NoStatus as error:
            return {"alive": False, "error": str(error)}
        found["halt_flag"] = (
            flag.read_text(encoding="utf-8", errors="replace").strip() if flag.exists() else None
        )
        return found

    def sessions(self) -> list[dict[str, Any]]:
        with reader(self._database) as connection:
            rows = connection.execute(
                "SELECT session_id, mode, alias, model_version, manifest_sha256, watermark, started_wall_ns, "
                "ended_wall_ns FROM sessions ORDER BY started_wall_ns DESC LIMIT 50"
            ).fetchall()
        return [dict(row) for row in rows]

    def _rows(self, table: str, order: str, session: str) -> list[dict[str, Any]]:
        with reader(self._database) as connection:
            rows = connection.execute(
                f"SELECT * FROM {table} WHERE session_id = ? ORDER BY {order} DESC LIMIT ?",
                (session or self._latest(connection), MAX_ROWS),
            ).fetchall()
        return [dict(row) for row in rows]

    def equity(self, session: str) -> list[list[int]]:
        """[now_ns, gross, fees, net] thinned to what a screen can show, the last point always kept."""
        with reader(self._database) as connection:
            rows = connection.execute(
                "SELECT now_ns, gross_nano, fees_nano, net_nano FROM equity WHERE session_id = ? ORDER BY "
                "now_ns",
                (session or self._latest(connection),),
            ).fetchall()
        step = -(-len(rows) // MAX_CURVE_POINTS) or 1
        points = [list(row) for row in rows[::step]]
        if rows and list(rows[-1]) != points[-1]:
            points.append(list(rows[-1]))
        return points

    @staticmethod
    def _latest(connection: sqlite3.Connection) -> str:
        row = connection.execute(
            "SELECT session_id FROM sessions ORDER BY started_wall_ns DESC LIMIT 1"
        ).fetchone()
        return str(row[0]) if row else ""


class _Handler(BaseHTTPRequestHandler):
    """GET only. ``views`` and ``token`` are set on the class made by ``make_server``."""

    views: Views
    token: str = ""
    server_version = "scalper"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:  # the name is http.server's
        parts = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(parts.query)
        if not self._allowed(query):
            self._answer(401, "text/plain", b"a token is needed: open /?token=... once\n")
        elif parts.path == "/":
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/" if self.token else ""
            self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes(), cookie)
        elif parts.path.startswith("/api/"):
            self._api(parts.path.removeprefix("/api/"), query.get("session", [""])[0])
        else:
            self._answer(404, "text/plain", b"not here\n")

    def _api(self, name: str, session: str) -> None:
        view = self.views.answers().get(name)
        if view is None:
            self._answer(404, "application/json", b'{"error": "unknown view"}')
            return
        try:
            body, code = view(session), 200
        except (StorageError, ScalperError) as error:
            body, code = {"error": str(error)}, 503
        self._answer(code, "application/json", json.dumps(body).encode())

    def _allowed(self, query: dict[str, list[str]]) -> bool:
        if not self.token:
            # No token means loopback: then the Host header must be loopback too (DNS rebinding).
            host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
            return is_loopback(host)
        given = [query.get("token", [""])[0], self.headers.get("Authorization", "").removeprefix("Bearer ")]
        for pair in self.headers.get("Cookie", "").split(";"):
            name, _, value = pair.strip().partition("=")
            if name == COOKIE:
                given.append(value)
        return any(hmac.compare_digest(text.encode(), self.token.encode()) for text in given)

    def _answer(self, code: int, kind: str, body: bytes, cookie: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if cookie:
            self.send_header("Set-Cookie", cookie)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the address may hold the token."""


def make_server(
    database: Path, runtime: Path, flag: Path, host: str, port: int, token: str
) -> ThreadingHTTPServer:
    """A server ready for ``serve_forever``. ConfigError: an open host without a token, a port in use."""
    if not is_loopback(host) and not token:
        raise ConfigError(f"dashboard.host {host} is not loopback: set dashboard.token, or use 127.0.0.1")
    handler = type("Handler", (_Handler,), {"views": Views(database, runtime, flag), "token": token})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise ConfigError(
            f"the dashboard cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from None
    server.daemon_threads = True
    return server


def serve(database: Path, runtime: Path, flag: Path, host: str, port: int, token: str) -> None:
    """`live-runner dashboard`: until Ctrl-C."""
    with make_server(database, runtime, flag, host, port, token) as server:
        print(
            f"dashboard on http://{host}:{server.server_address[1]}/" + ("?token=..." if token else ""),
            flush=True,
        )
        server.serve_forever()
