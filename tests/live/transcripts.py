"""What the documentation shows on a terminal, read from its pages and typed again.

A block to be typed again stands under a comment that names the folder it is typed in::

    <!-- transcript: empty -->
    ```console
    $ live-runner halt --reason lunch
    halted: lunch (…); market data goes on, …
    ```

Lines after ``$`` are what the command says, standard error included. ``…`` in a line stands for anything, a
line of ``…`` alone for any number of lines. A block's commands share the folder, and so do the blocks of a
page, from top to bottom.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from live import cli

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("empty", "day")
"""Nothing but the folder; or the workspace after the session of ``test_operator_day``."""
EXIT_CODE = '; echo "exit code $?"'
_BLOCK = re.compile(r"^<!-- transcript: (\w+) -->\n```console\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """``steps``: (command, the lines it says)."""

    page: str
    line: int
    place: str
    steps: tuple[tuple[str, tuple[str, ...]], ...]


def blocks(place: str | None = None) -> list[Block]:
    """Those of every page, in reading order; of one place or of all."""
    pages = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
    found = [block for page in pages for block in _read(page)]
    return [block for block in found if place in (None, block.place)]


def _read(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 3
        parts = re.split(r"^\$ (.*)\n", match[2], flags=re.M)
        assert not parts[0].strip(), f"{page.name}:{line}: the block begins with words that nobody typed"
        steps = tuple(
            (command, tuple(said.splitlines()))
            for command, said in zip(parts[1::2], parts[2::2], strict=True)
        )
        found.append(Block(page.relative_to(ROOT).as_posix(), line, match[1], steps))
    return found


def fits(shown: tuple[str, ...], said: str) -> bool:
    """Whether the page's lines are what was said."""
    pattern = ""
    for line in shown:
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, said if said.endswith("\n") or not said else said + "\n") is not None


def type_again(block: Block, folder: Path) -> None:
    """Types the block's commands in ``folder``; AssertionError says which one answers otherwise."""
    for command, shown in block.steps:
        said = _say(command, folder)
        expected = "\n".join(shown)
        assert fits(shown, said), (
            f"{block.page}:{block.line}: `{command}` shows\n{expected}\n\nand now says\n{said}"
        )


def _say(command: str, folder: Path) -> str:
    """What a terminal would show. A plain command of ours runs in this process, which has its imports done
    already; what needs a shell gets one.
    """
    plain = command.removesuffix(EXIT_CODE)
    if not plain.startswith("live-runner ") or set(plain) & set("|;<>$&`"):
        return _in_a_shell(command, folder)
    words = [
        str(found)
        for word in shlex.split(plain)[1:]
        for found in (sorted(folder.glob(word)) if "*" in word else [word])
    ]
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = cli.main(words)
        except SystemExit as stop:
            code = stop.code
    return said.getvalue() + (f"exit code {code}\n" if plain != command else "")


def _in_a_shell(command: str, folder: Path) -> str:
    names = folder / ".bin"
    names.mkdir(exist_ok=True)
    program = names / "live-runner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m live.cli "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{names}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, timeout=300,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout
