"""What every module of the command line shares: how a verb is made, and what a group of verbs does alone."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Protocol

from market.errors import ConfigError

Run = Callable[[argparse.Namespace], int]
"""What a verb does; returns the exit status."""


class VerbMaker(Protocol):
    """Adds a verb to ``scalper``; ``example`` is one command line that works."""

    def __call__(self, name: str, run: Run, text: str, example: str) -> argparse.ArgumentParser: ...


def help_of(name: str) -> Run:
    """For a verb that only groups others."""

    def run(args: argparse.Namespace) -> int:  # argparse requires the inner verb, so this never runs
        raise ConfigError(f"scalper {name} needs a verb: see scalper {name} --help")

    return run
