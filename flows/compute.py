"""Where the parts of a stage are computed: one after another in this process, or on a Dask cluster.

``compute`` of params.yaml chooses, and ``SCALPER_COMPUTE_ENGINE``, ``SCALPER_COMPUTE_ADDRESS`` win over it,
for an address is a fact about a machine. It is no parameter of any stage: every part is a pure function of
files and of numbers, so a bundle has the same hash wherever its parts were computed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from flows.params import ComputeParams, check_compute
from market.errors import ScalperError

T = TypeVar("T")
R = TypeVar("R")

ENGINE, ADDRESS = "SCALPER_COMPUTE_ENGINE", "SCALPER_COMPUTE_ADDRESS"
ON_DASK = "flows.compute_dask"
"""Loaded by its name, so that no stage depends on it: where a part is computed changes no byte of a result,
and a change of that module is no reason to compute features again."""


class ComputeError(ScalperError):
    """The cluster cannot do what was asked."""

    exit_code = 2


class Pool(Protocol):
    """Computes the parts of one stage."""

    @property
    def workers(self) -> int:
        """How many parts are computed at a time."""

    def map(self, work: Callable[[T], R], items: Sequence[T], name: str = "part") -> Iterator[R]:
        """``work`` of every item, in the order of ``items``; each is there once it and those before it are.

        ``work`` is a function of a module, and must be pure: a part whose worker dies is computed once more.
        Items and results are small (paths, not arrays); files are written by a rename. The first part that
        fails raises its error.
        """


class Here:
    """Everything in this process."""

    workers = 1

    def map(self, work: Callable[[T], R], items: Sequence[T], name: str = "part") -> Iterator[R]:
        return map(work, items)


def run(stage: str, asked: ComputeParams, body: Callable[[Pool], R], *, parts: int | None = None) -> R:
    """``body`` with the pool that ``asked`` and the environment name; ``parts``: how many can be computed
    side by side, where that is known: for fewer than two no cluster is started. ConfigError for what cannot
    be, ComputeError when the cluster does not answer or loses its workers over one part again and again."""
    settings = in_force(asked)
    if settings.engine == "local" or (parts is not None and parts < 2):
        return body(Here())
    result: R = importlib.import_module(ON_DASK).run(stage, settings, body)
    return result


def in_force(asked: ComputeParams) -> ComputeParams:
    """``asked`` with what the environment says instead; an address there asks for Dask."""
    engine, address = os.environ.get(ENGINE), os.environ.get(ADDRESS)
    settings = replace(
        asked, engine=engine or ("dask" if address else asked.engine), address=address or asked.address
    )
    check_compute(settings, f"params.yaml with {ENGINE}, {ADDRESS}" if engine or address else "params.yaml")
    return settings
