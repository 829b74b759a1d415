"""The Bot API over HTTPS. Its addresses hold the token, so no address ever gets into a message."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any

from market.errors import ScalperError

MAX_ANSWER_BYTES = 4_000_000
MIN_HIDDEN_CHARS = 6
"""Shorter pieces of a token are no secret, and occur everywhere."""
_RETRY = frozenset({408, 409, 429})
_ADVICE = {
    400: "check notifications.chat_id",
    401: "the bot does not know notifications.token: make a new one with @BotFather",
    403: "the chat has not started the bot, or has thrown it out",
    404: "notifications.token is not a token of this Bot API",
    409: "another process reads the commands of this bot",
}


class TelegramError(ScalperError):
    """A call that failed. ``permanent``: the same call will fail again. ``retry_after_s``: Telegram's own
    wish.
    """

    def __init__(self, text: str, *, permanent: bool, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Following one would hand the token to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class TelegramApi:
    """``call`` blocks: only threads that may wait use it."""

    def __init__(self, token: str, base: str) -> None:
        self._token, self._base = token.strip(), base.rstrip("/")
        # An error may quote the token with its odd characters escaped: what lies between them is hidden too.
        pieces = {self._token, *re.split(r"[^\w-]", self._token)}
        self._hidden = sorted((p for p in pieces if len(p) >= MIN_HIDDEN_CHARS), key=len, reverse=True)
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __repr__(self) -> str:
        return f"TelegramApi({self.scrub(self._base)})"

    def call(self, method: str, fields: dict[str, Any], timeout_s: float) -> Any:
        """The ``result`` of the answer. Raises TelegramError."""
        try:
            request = urllib.request.Request(
                f"{self._base}/bot{self._token}/{method}",
                json.dumps(fields).encode(),
                {"Content-Type": "application/json"},
            )
            with self._opener.open(request, timeout=timeout_s) as answer:
                body = json.loads(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            raise self._refused(method, error) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise TelegramError(
                f"Telegram {method}: {type(error).__name__}: {self.scrub(str(reason))}", permanent=False
            ) from None
        if not isinstance(body, dict) or body.get("ok") is not True:
            raise TelegramError(f"Telegram {method}: that was no answer of the Bot API", permanent=False)
        return body.get("result")

    def scrub(self, text: str) -> str:
        """``text`` without the token and without its parts."""
        for part in self._hidden:
            text = text.replace(part, "***")
        return text

    def _refused(self, method: str, error: urllib.error.HTTPError) -> TelegramError:
        try:
            body = json.loads(error.read(MAX_ANSWER_BYTES))
            words = str(body.get("description", ""))
            wish = body.get("parameters", {}).get("retry_after")
            wish_s = float(wish) if wish is not None else None
        except (OSError, ValueError, AttributeError, TypeError, http.client.HTTPException):
            words, wish_s = "", None
        permanent = 300 <= error.code < 500 and error.code not in _RETRY
        advice = _ADVICE.get(error.code, "")
        text = f"Telegram {method}: {error.code} {self.scrub(words)}" + (f" ({advice})" if advice else "")
        return TelegramError(text, permanent=permanent, retry_after_s=wish_s)
