"""Telling people: Telegram messages, tones, and commands from Telegram. Nothing here may delay or stop
trading.
"""

from live.notify.notice import Notice, Severity
from live.notify.sender import Notifier

__all__ = ["Notice", "Notifier", "Severity"]
