"""Recordings: what was seen of instruments on exchange days, on disk (the layout: docs/recordings.md).

``recording`` reads and writes whole ones; ``log``, ``unfinished`` and ``finish`` are the parts of one that is
being made (``market.writer``); ``info`` and ``tables`` are what it consists of.
"""

from market.recording.info import (
    BOOK_FILE,
    INFO_FILE,
    OWN_FILE,
    SCHEMA_VERSION,
    TRADES_FILE,
    RecordingInfo,
    Watermark,
)
from market.recording.log import UNFINISHED
from market.recording.recording import Recording, write_recording

__all__ = [
    "BOOK_FILE", "INFO_FILE", "OWN_FILE", "SCHEMA_VERSION", "TRADES_FILE", "UNFINISHED", "Recording",
    "RecordingInfo", "Watermark", "write_recording",
]  # fmt: skip
