"""Looking at foreign files: what they begin with, what is packed in them, line by line or whole.

Whatever is wrong with a file is one RecordingError that names it and how far it could be read.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from market.errors import RecordingError

HEAD_BYTES = 1 << 16
BLOCK_BYTES = 1 << 20
LINE_BYTES = 1 << 26
"""No line of a text source is longer; a damaged file must not fill the memory."""
GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Look:
    """A first look at a path. ``head``: the first bytes, unpacked if the file is gzip. ``members``: names in
    a zip archive. ``trouble``: why the beginning could not be unpacked, or empty."""

    path: Path
    is_dir: bool = False
    head: bytes = b""
    members: tuple[str, ...] = ()
    trouble: str = ""

    def first_line(self) -> bytes:
        return self.head.partition(b"\n")[0].strip()


def look(path: Path) -> Look:
    """Look at ``path``; a file that cannot be unpacked has an empty head."""
    if path.is_dir():
        return Look(path, is_dir=True)
    try:
        with path.open("rb") as f:
            raw = f.read(HEAD_BYTES)
        if raw.startswith(ZIP):
            with zipfile.ZipFile(path) as archive:
                return Look(path, members=tuple(archive.namelist()))
        if raw.startswith(GZIP):
            raw = zlib.decompressobj(31).decompress(raw, HEAD_BYTES)
    except FileNotFoundError:
        raise RecordingError(f"there is nothing at {path} to ingest") from None
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        return Look(path, trouble=str(error))
    return Look(path, head=raw)


def unpacked(path: Path) -> bytes:
    """The whole file, unpacked if it is gzip (several members too). RecordingError names the byte at which
    a truncated or damaged stream ends."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    if not raw.startswith(GZIP):
        return raw
    parts: list[bytes] = []
    rest = raw
    while rest.startswith(GZIP):
        member = zlib.decompressobj(31)
        at = len(raw) - len(rest)
        for start in range(0, len(rest), BLOCK_BYTES):
            try:
                parts.append(member.decompress(rest[start : start + BLOCK_BYTES]))
            except zlib.error as error:
                raise RecordingError(
                    f"{path} is damaged after packed byte {at + start:,}: {error}"
                ) from error
            if member.eof:
                rest = member.unused_data + rest[start + BLOCK_BYTES :]
                break
        if not member.eof:
            raise RecordingError(
                f"{path} is cut off: its gzip stream has no end after {len(raw):,} packed bytes "
                f"({sum(map(len, parts)):,} unpacked); fetch the file again"
            )
    if rest.strip(b"\0"):
        raise RecordingError(
            f"{path} has {len(rest):,} bytes that are no gzip after byte {len(raw) - len(rest):,}"
        )
    return b"".join(parts)


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file, plain or gzip, with their numbers from 1, one in memory at a time."""
    number = 0
    try:
        with path.open("rb") as f:
            packed = f.read(2) == GZIP
        with gzip.open(path, "rb") if packed else path.open("rb") as f:
            while line := f.readline(LINE_BYTES):
                number += 1
                if len(line) == LINE_BYTES:
                    raise RecordingError(
                        f"{path}, line {number:,}: longer than {LINE_BYTES:,} bytes, not text"
                    )
                yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordingError(f"{path} is cut off or damaged after line {number:,}: {error}") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error


def members(path: Path) -> dict[str, bytes]:
    """The files packed in a zip archive, by name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RecordingError(f"{path} is a damaged zip archive: {error}") from error
