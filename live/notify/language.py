"""Notices in another language, at the way out.

Everybody else speaks English: the engine, the audit, the journal, the terminal. So the words that a replay
compares and a log tool searches do not depend on who reads the chat. The English sentence is the key, as in
gettext; but what arrives here has its numbers filled in already, so a key with ``{holes}`` is a pattern.
What is in a hole is translated in its turn. The name of the event stays as it is: it is what the audit, the
documents and ``severity`` know. What the catalogue lacks (a broker's own message) stays in English: a notice
is never lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from string import Formatter
from typing import Any

LANGUAGES = ("en", "ru")
Translate = Callable[[str], str]
SEPARATORS = ("; ", ". ", ", ")
"""What joins sentences; tried in this order where the whole is unknown."""
OUTER = "{reason}; until {when}"
"""Every hold is told so, and anything may stand before it: tried first."""
_EVENT = re.compile(r"(?P<event>[A-Z][A-Z_]{2,})(?P<about>[^:]*): (?P<words>.*)", re.S)
_AGAIN = re.compile(r"(?P<line>.+) (?P<again>\(\d+ more times? in [\d.]+ s\))", re.S)
"""What ``dedupe`` adds."""
_WORD = re.compile(r"[A-Za-z]{2}")
_LOWER = re.compile(r"[a-z]")
"""A pattern without one would fit almost everything: it is tried last."""
_HOLES = {
    "n": r"[-+]?[\d.,]+",
    "ticker": r"[^\s,;]+",
    "name": r"[^\s:]+",
    "metric": r"[\w./:-]+",
    "lots": r"(?:[-+]?\d.*?|no position is open|flat)",
}
"""What may stand in holes of these names; anything in the others."""


@cache
def translator(language: str) -> Translate:
    """From the English of a notice to ``language`` (one of LANGUAGES)."""
    if language == "en":
        return str
    from live.notify.russian import PHRASES

    return Catalogue(PHRASES).text


class Catalogue:
    """Phrases by their English pattern. ``text`` never raises and never returns nothing for something."""

    def __init__(self, phrases: Mapping[str, str]) -> None:
        self._whole = {key: words for key, words in phrases.items() if "{" not in key}
        # The pattern with the most words of its own knows best what it is about.
        holed = sorted((key for key in phrases if "{" in key), key=lambda key: -len(_bare(key)))
        self._patterns = [(_pattern(key), phrases[key]) for key in holed if _WORD.search(_bare(key))]
        self._loose = [(_pattern(key), phrases[key]) for key in holed if not _WORD.search(_bare(key))]
        self._outer = [(_pattern(key), phrases[key]) for key in holed if key == OUTER]
        self._lines = [(_pattern(key), phrases[key]) for key in holed if _EVENT.match(key)]
        self._lookup = lru_cache(maxsize=512)(self._find)

    def text(self, text: str) -> str:
        """A message of any number of lines."""
        return "\n".join(self._line(line) for line in text.split("\n"))

    def knows(self, sentence: str) -> bool:
        """Whether the catalogue has this sentence as a whole."""
        return self._lookup(sentence) is not None

    def _line(self, line: str) -> str:
        again = _AGAIN.fullmatch(line)
        if again is not None:
            return self._line(again["line"]) + " " + self.phrase(again["again"])
        known = self._whole.get(line) or self._match(line, self._lines)
        if known is not None:
            return known
        event = _EVENT.fullmatch(line)
        # "SIMP is mute: no book ..." begins like an event and is a sentence.
        if event is None or (_LOWER.search(event["about"]) and self.knows(line)):
            return self.phrase(line)
        return f"{event['event']}{event['about']}: {self.phrase(event['words'])}"

    def phrase(self, text: str) -> str:
        """A sentence, or sentences joined by a separator; what is unknown stays."""
        found = self._match(text, self._outer) or self._lookup(text)
        if found is None and text[:1].isalpha():  # a headline in the middle of a sentence, or the other way
            other = self._lookup(text[:1].swapcase() + text[1:])
            found = None if other is None else other[:1].swapcase() + other[1:]
        found = found or self._match(text, self._loose)
        if found is not None:
            return found
        if text.endswith(".") and len(text) > 1:
            return self.phrase(text[:-1]) + "."
        for separator in SEPARATORS:
            head, found_one, tail = text.partition(separator)
            if found_one:
                return self.phrase(head) + separator + self.phrase(tail)
        return text

    def _find(self, text: str) -> str | None:
        if text in self._whole:
            return self._whole[text]
        return self._match(text, self._patterns)

    def _match(self, text: str, patterns: Sequence[tuple[re.Pattern[str], str]]) -> str | None:
        for pattern, words in patterns:
            match = pattern.fullmatch(text)
            if match is not None:
                return words.format_map(
                    {name: _Filled(value, self) for name, value in match.groupdict().items()}
                )
        return None


class _Filled:
    """What stood in a hole: ``{x}`` is translated in its turn, ``{x!s}`` stays as it is."""

    def __init__(self, text: str, catalogue: Catalogue) -> None:
        self._text, self._catalogue = text, catalogue

    def __str__(self) -> str:
        return self._text

    def __format__(self, spec: str) -> str:
        return self._catalogue.text(self._text)


def _bare(key: str) -> str:
    return re.sub(r"{\w+}", " ", key)


def _pattern(key: str) -> re.Pattern[str]:
    parts: list[str] = []
    pieces: list[tuple[str, Any]] = [(text, name) for text, name, _, _ in Formatter().parse(key)]
    for text, name in pieces:
        parts.append(re.escape(text))
        if name is not None:
            parts.append(f"(?P<{name}>{_HOLES.get(name, '.+?')})")
    return re.compile("".join(parts), re.S)
