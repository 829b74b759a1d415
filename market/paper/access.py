"""Who calls: tokens with their rights, and the token of the call that is being answered."""

from __future__ import annotations

import hmac
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Access = Literal["full", "read_only"]
TOKEN_BYTES = 32
MAX_TOKENS = 1000


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. ``accounts`` None: every account, those opened later included."""

    value: str
    access: Access = "full"
    accounts: frozenset[str] | None = None

    def sees(self, account_id: str) -> bool:
        return self.accounts is None or account_id in self.accounts


class Tokens:
    """The tokens that open this exchange."""

    def __init__(self) -> None:
        self._tokens: list[Token] = []

    def issue(self, access: Access = "full", accounts: frozenset[str] | None = None) -> Token:
        """A new token. Raises ValueError when there are absurdly many."""
        if len(self._tokens) >= MAX_TOKENS:
            raise ValueError(f"{MAX_TOKENS} tokens were issued already")
        token = Token(secrets.token_urlsafe(TOKEN_BYTES), access, accounts)
        self._tokens.append(token)
        return token

    def find(self, authorization: str) -> Token | None:
        """The token of an ``authorization`` header, compared in constant time."""
        given, found = authorization.encode(), None
        for token in self._tokens:
            if hmac.compare_digest(given, f"Bearer {token.value}".encode()):
                found = token
        return found


_NOBODY = Token("")

CALLER: ContextVar[Token] = ContextVar("paper_caller", default=_NOBODY)
"""The token of the call being answered; code that calls behaviours directly has every right."""
