"""The HTTP side of the dashboard: pages, the live stream, and the two things a person may do."""

from __future__ import annotations

import json
import socket
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from live.config import is_loopback
from live.config_schema import RunnerConfig
from live.control import Control, NotDone
from live.dashboard.access import COOKIE, SESSION_SECONDS, Access
from live.dashboard.stream import Publisher, TooManyListeners
from live.dashboard.views import Views
from market.errors import ConfigError

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/draw.js": ("draw.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
OPEN_TO_ALL = frozenset({"/style.css", "/icon.svg"})
MAX_BODY_BYTES = 4_000
MAX_THREADS = 64
TIMEOUT_S = 10.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # no-referrer would also take Origin from the sign-in form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer
    server_version = "scalper"
    sys_version = ""
    timeout = TIMEOUT_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name is http.server's
        path, access = self._path(), self.server.access
        if path is None:
            return
        if path in OPEN_TO_ALL or access.may_read(self.headers):  # type: ignore[arg-type]
            self._show(path)
        elif path == "/" and access.writable:
            self._file("login.html", "text/html; charset=utf-8", 401)
        else:
            self._refuse(403 if not access.writable else 401, "a token is needed: sign in at /")

    def do_POST(self) -> None:
        path, access = self._path(), self.server.access
        if path is None:
            return
        body = self._body()
        if body is None:
            return
        headers: Any = self.headers
        if not access.same_origin(headers):
            self._refuse(403, "only this page itself may ask for that")
        elif path == "/login":
            self._login(body)
        elif not access.writable:
            self._refuse(403, "this dashboard only shows: set dashboard.token to halt and resume from it")
        elif not access.may_write(headers):
            self._refuse(401, "a token is needed: sign in at /")
        elif path == "/logout":
            access.sign_out(headers)
            self._go_home(f"{COOKIE}=; Max-Age=0; HttpOnly; SameSite=Strict; Path=/")
        elif path in ("/api/halt", "/api/resume"):
            self._write(path, body)
        else:
            self._refuse(404, "not here")

    # ---- reading

    def _path(self) -> str | None:
        parts = urllib.parse.urlsplit(self.path)
        if parts.query:
            # Addresses end up in histories and logs: nothing that matters may be put there.
            self._refuse(400, "no address of this server takes a query; sign in at /")
            return None
        return parts.path

    def _show(self, path: str) -> None:
        if path in FILES:
            self._file(*FILES[path])
        elif path == "/events":
            self._events()
        elif path == "/api/all":
            self._json(200, self.server.publisher.everything())
        elif path.startswith("/api/"):
            found = self.server.publisher.everything()
            name = path.removeprefix("/api/")
            if name in found:
                self._json(200, found[name])
            else:
                self._refuse(404, f"no section {name[:40]}; there are {', '.join(sorted(found))}")
        else:
            self._refuse(404, "not here")

    def _file(self, name: str, kind: str, code: int = 200) -> None:
        body = (PAGE / name).read_bytes()
        if name == "index.html":
            writable = b"yes" if self.server.access.writable else b"no"
            body = body.replace(b'data-writable="no"', b'data-writable="' + writable + b'"')
        self._answer(code, kind, body)

    def _events(self) -> None:
        try:
            with self.server.publisher.listen() as messages:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self._security()
                self.end_headers()
                self.close_connection = True
                for message in messages:
                    self.wfile.write(message)
                    if not self.server.access.may_read(self.headers):  # type: ignore[arg-type]
                        return  # signed out, or the session is over
        except TooManyListeners:
            self._refuse(503, "too many pages are open")
        except (OSError, ValueError):
            self.close_connection = True  # the page was closed

    # ---- writing

    def _login(self, body: bytes) -> None:
        access = self.server.access
        if access.throttled():
            self._answer(429, "text/plain; charset=utf-8", b"too many wrong tokens; wait a minute\n")
            return
        form = urllib.parse.parse_qs(body.decode("utf-8", "replace"))
        session = access.sign_in(form.get("token", [""])[0])
        if session is None:
            page = (PAGE / "login.html").read_bytes().replace(b'id="wrong" hidden', b'id="wrong"')
            self._answer(401, "text/html; charset=utf-8", page)
            return
        age = int(SESSION_SECONDS)
        self._go_home(f"{COOKIE}={session}; Max-Age={age}; HttpOnly; SameSite=Strict; Path=/")

    def _write(self, path: str, body: bytes) -> None:
        if self.headers.get_content_type() != "application/json":
            self._refuse(415, "send JSON")
            return
        try:
            wish = json.loads(body)
            reason = str(wish.get("reason", ""))
            seen = wish.get("seen_flag")
            names = tuple(str(name) for name in wish.get("names", ()))
            confirmed = wish.get("confirm") is True
        except (ValueError, AttributeError, TypeError):
            self._refuse(400, "that is not the JSON this takes")
            return
        if not confirmed:
            self._refuse(400, "not confirmed")
            return
        by = f"dashboard, {self.client_address[0]}"
        try:
            if path == "/api/halt":
                done = f"Halted: {self.server.control.halt(reason, by)}"
            else:
                done = self.server.control.resume(
                    reason, by, seen_flag=None if seen is None else str(seen), names=names
                )
        except NotDone as error:
            self._refuse(409, str(error))
        else:
            self._json(200, {"done": done})

    def _body(self) -> bytes | None:
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= MAX_BODY_BYTES:
            self.close_connection = True
            self._refuse(413, f"a body of 0 to {MAX_BODY_BYTES} bytes is needed")
            return None
        return self.rfile.read(length)

    # ---- answers

    def _json(self, code: int, content: Any) -> None:
        self._answer(code, "application/json", json.dumps(content).encode())

    def _refuse(self, code: int, why: str) -> None:
        self._json(code, {"error": why})

    def _go_home(self, cookie: str) -> None:
        self.send_response(303)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", cookie)
        self.send_header("Content-Length", "0")
        self._security()
        self.end_headers()

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self._security()
        self.end_headers()
        self.wfile.write(body)

    def _security(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: nobody's address or cookie is written anywhere."""


class DashboardServer(ThreadingHTTPServer):
    """``serve_forever`` in a thread of its own; ``close`` ends it and every open page."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, access: Access, publisher: Publisher, control: Control) -> None:
        self.access, self.publisher, self.control = access, publisher, control
        self._host = host
        self._slots = threading.BoundedSemaphore(MAX_THREADS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.server_address[1]}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, up to a number; more are hung up on."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is not an error of ours."""

    def close(self) -> None:
        self.publisher.close()
        self.shutdown()
        self.server_close()


def make_server(
    config: RunnerConfig, *, host: str | None = None, port: int | None = None, interval_s: float | None = None
) -> DashboardServer:
    """A server ready for ``serve_forever``. ConfigError: an open host without a token, a port in use."""
    board = config.dashboard
    host = board.host if host is None else host
    port = board.port if port is None else port
    if not is_loopback(host) and not board.token:
        raise ConfigError(f"dashboard.host {host} is not loopback: set dashboard.token, or use 127.0.0.1")
    control = Control(Path(config.manual_override.flag_path), Path(config.system.runtime_dir))
    views = Views(Path(config.storage.path), control)
    publisher = Publisher(views) if interval_s is None else Publisher(views, interval_s)
    try:
        return DashboardServer(host, port, Access(board.token), publisher, control)
    except OSError as error:
        raise ConfigError(
            f"the dashboard cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from None


def serve(config: RunnerConfig, host: str | None, port: int | None, *, as_json: bool = False) -> None:
    """`live-runner dashboard`: until Ctrl-C."""
    server = make_server(config, host=host, port=port)
    try:
        print(json.dumps({"url": server.url}) if as_json else f"dashboard on {server.url}", flush=True)
        server.serve_forever()
    finally:
        server.publisher.close()
        server.server_close()
