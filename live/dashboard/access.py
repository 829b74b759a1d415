"""Who may look, and who may write.

The token is given once, in the body of the sign-in form or as ``Authorization: Bearer``; never in an address,
which ends up in histories and logs. A browser then holds a random session id in a cookie, not the token.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from live.config import is_loopback

COOKIE = "scalper_session"
SESSION_SECONDS = 12 * 3600.0
MAX_SESSIONS = 64
MAX_FAILURES, FAILURE_WINDOW_S = 10, 60.0
"""Wrong tokens that are looked at in a minute, from everybody together; the correct one waits as well."""


class Access:
    """Thread-safe. ``token`` empty: only this machine is answered, and nobody writes."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token) if token else b""
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)
        self._lock = threading.Lock()

    @property
    def writable(self) -> bool:
        return bool(self._digest)

    def may_read(self, headers: Mapping[str, str]) -> bool:
        if not self._digest:
            # No token means loopback: then the Host header must be loopback too (DNS rebinding).
            return is_loopback(_host_of(headers.get("Host", "")))
        kind, _, given = headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._correct(given.strip())
        return self._session(headers) is not None

    def may_write(self, headers: Mapping[str, str]) -> bool:
        return self.writable and self.may_read(headers)

    @staticmethod
    def same_origin(headers: Mapping[str, str]) -> bool:
        """The page that asks is ours: browsers say where a request comes from, and cannot be made to lie."""
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin",):
            return False
        origin, host = headers.get("Origin", ""), headers.get("Host", "")
        return bool(host) and origin.partition("://")[2] == host

    def sign_in(self, token: str) -> str | None:
        """A new session's id for the right token, else None."""
        if not self._digest or not self._correct(token):
            return None
        session, now_s = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            self._sessions[_digest(session)] = now_s + SESSION_SECONDS
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return session

    def sign_out(self, headers: Mapping[str, str]) -> None:
        session = self._session(headers)
        with self._lock:
            if session is not None:
                self._sessions.pop(session, None)

    def throttled(self) -> bool:
        """Too many wrong tokens lately."""
        with self._lock:
            return self._blocked()

    def _blocked(self) -> bool:
        full = len(self._failures) == MAX_FAILURES
        return full and time.monotonic() - self._failures[0] < FAILURE_WINDOW_S

    def _correct(self, given: str) -> bool:
        # Digests of one length: the time of the comparison says nothing about the token, not even its length.
        right = hmac.compare_digest(_digest(given), self._digest)
        with self._lock:
            if self._blocked():
                return False
            if not right:
                self._failures.append(time.monotonic())
        return right

    def _session(self, headers: Mapping[str, str]) -> bytes | None:
        try:
            cookies = SimpleCookie(headers.get("Cookie", ""))
        except CookieError:
            return None
        if COOKIE not in cookies:
            return None
        key = _digest(cookies[COOKIE].value)
        with self._lock:
            until_s = self._sessions.get(key)
            if until_s is None or time.monotonic() > until_s:
                self._sessions.pop(key, None)
                return None
        return key


def _host_of(header: str) -> str:
    """Without the port; empty for what is not a host."""
    try:
        return "" if "@" in header else urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
